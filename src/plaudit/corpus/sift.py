"""A Group becomes one that something can be learned from, or a reason; and what data say twice, or both ways.

Part of `corpus`, above `settings`. What is left out or changed is what no loss could use: labels over completions that
are the same to the letter, labels of weight zero, Groups without a label that compares. Invariant: every Group that
comes is taken or counted under one reason, and every label that goes is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from plaudit.corpus.settings import CorpusSettings
from plaudit.errors import InternalError
from plaudit.group import Comparison, Group, Label, Preference, Ranking, Ratings, Tie
from plaudit.keys import Key, content_key, group_key, opening_key, prompt_key

ALONE = "only one completion"
UNLABELLED = "no label"
SAME = "the completions that are compared are identical"
WEIGHTLESS = "every label has weight zero"
SILENT = "no label compares two completions"
TIED = "every label is a tie, and loss.ties is drop"
UNRATED = "no ratings, which regression learns from"

MOST_COMPARED = 64
"""Comparisons of one Group that are held against those of others: the ledger must not grow with the square of K."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sifted:
    """A Group that is taken, what it can be told from others by, and what its labels say."""

    group: Group
    key: Key
    prompt: Key
    opening: Key
    completions: tuple[Key, ...]
    num_comparisons: int
    num_pairs: int


@dataclass(kw_only=True, slots=True)
class Tally:
    """What became of the Groups of one part, in numbers."""

    read: int = 0
    taken: int = 0
    comparisons: int = 0
    ties: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)

    def sentences(self, name: str) -> list[str]:
        """One sentence for every reason."""
        return [
            *(f"{name}: {count_of(n, 'group')} of {self.read:,} left out: {why}" for why, n in _sort(self.left_out)),
            *(f"{name}: {count_of(n, what)}" for what, n in _sort(self.changed)),
        ]


def _sort(counter: Counter[str]) -> list[tuple[str, int]]:
    """The most frequent first, and equals by name: reading in another order says the same."""
    return sorted(((what, n) for what, n in counter.items() if n), key=lambda item: (-item[1], item[0]))


def count_of(number: int, noun: str) -> str:
    """A number and its noun, which is more than one thing unless the number is 1; a verb may follow after a colon."""
    head, _, rest = noun.partition(":")
    return f"{number:,} {head}{'' if number == 1 else 's'}{rest}"


IDENTICAL_LABELS = "label: over identical completions taken out"
CUT = "ranking: cut, as a completion came twice in it and its first place counts"
WEIGHTLESS_LABELS = "label: of weight zero taken out"
ALIKE = "pair: of completions that differ only in white space (kept)"
NEGATIVE = "label: with a negative margin, which says that the worse completion is the better one (kept)"


class Sieve:
    """Takes Groups one by one; `tally` says what became of them."""

    def __init__(self, settings: CorpusSettings, *, is_training: bool = True) -> None:
        self.tally = Tally()
        self._learns, self._is_training = settings.learns, is_training
        self._drops_ties = settings.ties == "drop" and is_training

    def take(self, group: Group) -> Sifted | None:
        """The Group without what nobody can learn from; None if nothing is left of it."""
        self.tally.read += 1
        completions = tuple(content_key(completion.content) for completion in group.completions)
        cleaned = self._clean(group, completions)
        said = [c for c in cleaned.comparisons() if completions[c.better] != completions[c.worse]]
        reason = self._refuse(group, cleaned, said)
        if reason is not None:
            self.tally.left_out[reason] += 1
            return None
        pairs = {(min(c.better, c.worse), max(c.better, c.worse)) for c in said if not c.is_tie}
        num_ties = sum(c.is_tie for c in said)
        self.tally.taken += 1
        self.tally.comparisons += len(said) - num_ties
        self.tally.ties += num_ties
        self.tally.changed[ALIKE] += sum(differ_in_space_only(cleaned, a, b) for a, b in islice(pairs, MOST_COMPARED))
        self.tally.changed[NEGATIVE] += sum((getattr(label, "margin", None) or 0) < 0 for label in cleaned.labels)
        prompt = prompt_key(cleaned)
        return Sifted(
            group=cleaned,
            key=group_key(cleaned, completions),
            prompt=prompt,
            opening=prompt if len(cleaned.prompt) == 1 else opening_key(cleaned),
            completions=completions,
            num_comparisons=len(said) - num_ties,
            num_pairs=len(pairs),
        )

    def _clean(self, group: Group, completions: tuple[Key, ...]) -> Group:
        """The Group without labels that say nothing; the very same one if all of them say something."""
        if not any(label.weight == 0 for label in group.labels) and len(set(completions)) == len(completions):
            return group
        kept: list[Label] = []
        for label in group.labels:
            if label.weight == 0:
                self.tally.changed[WEIGHTLESS_LABELS] += 1
                continue
            cleaned = clean_label(label, completions)
            if cleaned is None:
                self.tally.changed[IDENTICAL_LABELS] += 1
                continue
            self.tally.changed[CUT] += cleaned is not label
            kept.append(cleaned)
        return replace(group, labels=tuple(kept))

    def _refuse(self, group: Group, cleaned: Group, said: Sequence[Comparison]) -> str | None:
        """Why nothing can be learned from a Group of which `said` is what compares different completions."""
        if self._learns == "ratings":
            # Numbers may also stand beside the completions: which of them are attributes, the loss knows.
            has_ratings = any(isinstance(label, Ratings) and any_rated(label) for label in cleaned.labels)
            if has_ratings or group.meta.get("completions"):
                return None
            if self._is_training:
                return UNRATED
        if said:
            return TIED if self._drops_ties and all(c.is_tie for c in said) else None
        if len(group.completions) == 1:
            return ALONE
        if not group.labels:
            return UNLABELLED
        if not cleaned.labels:
            return WEIGHTLESS if all(label.weight == 0 for label in group.labels) else SAME
        return SAME if any(True for _ in cleaned.comparisons()) else SILENT


def any_rated(label: Ratings) -> bool:
    """Whether there is a number among the ratings."""
    return any(rating is not None for rating in label.ratings)


def clean_label(label: Label, completions: Sequence[Key]) -> Label | None:
    """The label without completions that came before in it; None if it compares nothing any more."""
    first = {completions[k]: k for k in reversed(label.indices())}
    kept = tuple(k for k in label.indices() if first[completions[k]] == k)
    if isinstance(label, Ratings) or len(kept) == len(label.indices()):
        return label
    match label:
        case _ if len(kept) < 2:
            return None
        case Ranking():
            return replace(label, order=kept)
        case Tie():
            return replace(label, tie=kept)
        case Preference():
            return None
        case _:
            raise InternalError(f"a label of the kind {type(label).__name__} came, one of the four kinds was needed")


def differ_in_space_only(group: Group, first: int, second: int) -> bool:
    """Whether two completions are the same words."""
    a, b = group.completions[first].text, group.completions[second].text
    # Most differ at their ends; only where they do not is it worth taking them apart.
    if a.lstrip()[:1] != b.lstrip()[:1] or a.rstrip()[-1:] != b.rstrip()[-1:]:
        return False
    return a.split() == b.split()


Statement = tuple[bool, str | None, int]
"""Whether the one with the smaller key won, who says so, and in which Group."""


class Ledger:
    """Holds Groups against each other: the same one twice, and the same two completions judged both ways.

    Labellers who disagree are a dispute: two labels of one Group, or two names. Without names, over two Groups, it is
    a contradiction: most often the same row with its columns swapped.
    """

    def __init__(self) -> None:
        self._seen: Counter[Key] = Counter()
        self._pairs: dict[int, tuple[Statement, ...]] = {}
        self.num_groups = 0

    def add(self, sifted: Sifted) -> None:
        """Write a Group down."""
        self.num_groups += 1
        self._seen[sifted.key] += 1
        for c in islice(sifted.group.comparisons(), MOST_COMPARED):
            better, worse = sifted.completions[c.better], sifted.completions[c.worse]
            if c.is_tie or better == worse:
                continue
            pair = hash((sifted.prompt, min(better, worse), max(better, worse)))
            before = self._pairs.get(pair, ())
            if len(before) < MOST_COMPARED:
                self._pairs[pair] = (*before, (better < worse, c.by, self.num_groups))

    @property
    def num_copies(self) -> int:
        """Groups of which another is the same to the letter, the first of each not counted."""
        return self.num_groups - len(self._seen)

    @property
    def num_pairs(self) -> int:
        """Different pairs of completions that are compared."""
        return len(self._pairs)

    def count_conflicts(self) -> tuple[int, int]:
        """How many pairs are contradicted, and how many only disputed."""
        conflicts = [said for said in self._pairs.values() if len(said) > 1 and len({one[0] for one in said}) > 1]
        contradicted = sum(map(is_contradiction, conflicts))
        return contradicted, len(conflicts) - contradicted


def is_contradiction(said: Sequence[Statement]) -> bool:
    """Whether a pair is judged both ways by one labeller, or by nobody in particular, in two Groups."""
    return any(
        a[0] != b[0] and a[2] != b[2] and (a[1] is None or b[1] is None or a[1] == b[1])
        for n, a in enumerate(said)
        for b in said[n + 1 :]
    )
