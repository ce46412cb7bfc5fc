"""Settings -> a Corpus in memory: every part read, sifted, split by prompt, mixed by weight, and looked at.

Part of `corpus`, above `mixture`, `reading` and `findings`; `stream` does the same for what does not fit. Invariant:
the same rows and seed give the same Corpus whichever file is listed first, and whatever is not in it is in the notes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from plaudit.corpus.findings import find_repetition, find_scarcity, find_surface, find_uncertainty
from plaudit.corpus.mixture import (
    Split,
    choose_split,
    find_overlaps,
    judge_overlaps,
    mix,
    repeat_share,
    take_share,
)
from plaudit.corpus.reading import PartReader, digest_part
from plaudit.corpus.settings import MADE, CorpusSettings, Part, name_parts
from plaudit.corpus.sift import Ledger, Sieve, Sifted, Tally, count_of
from plaudit.errors import DataError
from plaudit.group import Group
from plaudit.surface import SurfaceReport


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """What to train on and what to measure on. `notes` say what was done, `alarms` what endangers the result."""

    train: list[Group]
    evals: dict[str, list[Group]]
    notes: list[str]
    alarms: list[str]
    digests: dict[str, str]
    surface: dict[str, SurfaceReport]


@dataclass(kw_only=True, slots=True)
class Book:
    """What is said meanwhile."""

    notes: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)

    def add(self, notes: Iterable[str], alarms: Iterable[str] = ()) -> None:
        """Write down what was not said before."""
        self.notes += [note for note in dict.fromkeys(notes) if note not in self.notes]
        self.alarms += [alarm for alarm in dict.fromkeys(alarms) if alarm not in self.alarms]


@dataclass(kw_only=True, slots=True)
class Portion:
    """One part on its way: what was read, what is left of it, and what became of that."""

    name: str
    part: Part
    tally: Tally
    sifted: list[Sifted]
    digests: dict[str, str]


def read_corpus(settings: CorpusSettings) -> Corpus:
    """Everything that the settings name, in memory. Raises where nothing is left, or evaluation would be flattered."""
    book = Book()
    # Before anything is read: what is not there is said at once.
    readers, eval_readers = open_parts(settings.parts), open_parts(settings.evals)
    portions = [read_portion(reader, settings, book) for reader in readers]
    refuse_nothing(portions, settings)
    book.add([], (alarm for portion in portions for alarm in find_emptiness(portion)))
    evals = read_evals(eval_readers, settings, book)
    surface = examine(portions, settings, book) if settings.checks else {}
    for portion in portions:
        portion.sifted = take_share(portion.sifted, portion.part.weight, settings.seed)
    split = make_split(portions, settings, book) if not evals else None
    made = [one for portion in portions for one in set_aside(portion, split)]
    sets = {portion.name: portion.sifted for portion in evals} | ({MADE: made} if made else {})
    train = mix((use_part(portion, settings, book) for portion in portions), settings.seed)
    if evals:
        book.add(*judge_overlaps(find_overlaps(train, sets), is_forced=settings.force_overlap))
    if settings.learns == "comparisons":
        book.add(find_scarcity(count_pairs(portions)))
    book.add(sentence for name, sifted in sets.items() for sentence in find_uncertainty(sifted, name))
    return Corpus(
        train=[one.group for one in train],
        evals={name: [one.group for one in sifted] for name, sifted in sets.items()},
        notes=book.notes,
        alarms=book.alarms,
        digests={source: digest for portion in (*portions, *evals) for source, digest in portion.digests.items()},
        surface=surface,
    )


def count_pairs(portions: Iterable[Portion]) -> int:
    """Pairs of completions that are trained on, neither votes nor copies counted again."""
    return sum(one.num_pairs for portion in portions for one in portion.sifted)


def open_parts(parts: Sequence[Part]) -> list[PartReader]:
    """A reader for each part, under its name."""
    return [PartReader(part, name) for part, name in zip(parts, name_parts(parts), strict=True)]


def read_portion(reader: PartReader, settings: CorpusSettings, book: Book, *, is_training: bool = True) -> Portion:
    """A part read to its end and sifted."""
    sieve = Sieve(settings, is_training=is_training)
    sifted = [one for group in reader.read() if (one := sieve.take(group)) is not None]
    book.add([*reader.notes, *sieve.tally.sentences(reader.name)], reader.alarms)
    return Portion(
        name=reader.name,
        part=reader.part,
        tally=sieve.tally,
        sifted=sifted,
        digests=digest_part(reader, [one.key for one in sifted]),
    )


def read_evals(readers: Sequence[PartReader], settings: CorpusSettings, book: Book) -> list[Portion]:
    """The evaluation sets that the user named; one that nothing can be measured on is refused."""
    portions = []
    for reader in readers:
        portion, share = read_portion(reader, settings, book, is_training=False), reader.part.weight
        portion.sifted = take_share(portion.sifted, share, settings.seed)
        if share < 1:
            book.add([f"{portion.name}: by its weight of {share:g}, {len(portion.sifted):,} groups are measured on"])
        needed = portion.sifted if settings.learns == "ratings" else [o for o in portion.sifted if o.num_comparisons]
        if not needed:
            raise DataError(
                f"nothing in the evaluation set {portion.name} says which completion is better: {tell(portion)}"
            )
        portions.append(portion)
    return portions


def refuse_nothing(portions: Sequence[Portion], settings: CorpusSettings) -> None:
    """Data that teach nothing are refused, with what was wrong with them."""
    told = "; ".join(f"{portion.name}: {tell(portion)}" for portion in portions)
    if not any(portion.sifted for portion in portions):
        raise DataError(f"no group is left to learn from: {told}")
    if settings.learns == "comparisons" and not any(portion.tally.comparisons for portion in portions):
        raise DataError(f"every label is a tie, so nothing says which completion is better: {told}")


def tell(portion: Portion) -> str:
    """A part's numbers, for an error."""
    tally = portion.tally
    why = [f"{count:,} {reason}" for reason, count in tally.left_out.most_common()]
    why += [f"{count_of(tally.ties, 'tie')} and no preference"] if tally.ties and not tally.comparisons else []
    return f"of {count_of(tally.read, 'group')}, {', '.join(why) or 'none is left'}"


def find_emptiness(portion: Portion) -> list[str]:
    """An alarm where a whole part teaches nothing while others do."""
    return [] if portion.sifted else [f"{portion.name} adds nothing to the training data: {tell(portion)}"]


def examine(portions: Sequence[Portion], settings: CorpusSettings, book: Book) -> dict[str, SurfaceReport]:
    """Look for copies and contradictions in all parts together, and at the surface of each."""
    ledger, found = Ledger(), {}
    for portion in portions:
        for one in portion.sifted:
            ledger.add(one)
        if portion.tally.comparisons:
            # In mixed order: where the data are many, only some are looked at, and not those at the front.
            report, notes, alarms = find_surface(mix([portion.sifted], settings.seed), portion.name, settings.seed)
            book.add(notes, alarms)
            if report is not None:
                found[portion.name] = report
    book.add(*find_repetition(ledger))
    return found


def make_split(portions: Sequence[Portion], settings: CorpusSettings, book: Book) -> Split | None:
    """The prompts to set aside where no evaluation data came."""
    if settings.eval_share == 0:
        book.add(["no evaluation data came and split.eval_share is 0: nothing measures what is learned"])
        return None
    everything = [one for portion in portions for one in portion.sifted]
    split = choose_split(everything, settings.eval_share, settings.seed)
    if split is None:
        book.add(
            [],
            ["no evaluation data came, and all groups have one prompt, so none can be set aside: name evaluation data"],
        )
        return None
    kept = [one for one in everything if split.holds(one)]
    if settings.learns == "comparisons" and not any(one.num_comparisons for one in kept):
        book.add(
            [], [f"the groups that are set aside as {MADE!r} hold ties only: name evaluation data, or a larger share"]
        )
    book.add([tell_split(kept, everything, split, settings)])
    return split


def tell_split(kept: Sequence[Sifted], everything: Sequence[Sifted], split: Split, settings: CorpusSettings) -> str:
    """What was set aside, and how."""
    num_prompts = len({one.prompt for one in everything})
    together = ", prompts that begin one conversation together" if split.by == "opening" else ""
    return (
        f"no evaluation data came: {count_of(len({one.prompt for one in kept}), 'prompt')} of {num_prompts:,} "
        f"({count_of(len(kept), 'group')} of {len(everything):,}) set aside as {MADE!r}, drawn by prompt"
        f"{together} (split.eval_share {settings.eval_share:g}, seed {settings.seed})"
    )


def set_aside(portion: Portion, split: Split | None) -> list[Sifted]:
    """What of a part is for evaluation; it is no longer in the part."""
    if split is None:
        return []
    kept = [one for one in portion.sifted if split.holds(one)]
    portion.sifted = [one for one in portion.sifted if not split.holds(one)]
    return kept


def use_part(portion: Portion, settings: CorpusSettings, book: Book) -> list[Sifted]:
    """What of a part is trained on, as often as its weight says; and the sentence on it."""
    used = repeat_share(portion.sifted, portion.part.weight, settings.seed)
    weight = "" if portion.part.weight == 1 else f"; by its weight of {portion.part.weight:g}, {len(used):,} are used"
    book.add(
        [
            f"{portion.name}: {count_of(portion.tally.read, 'group')} read, {portion.tally.taken:,} taken with "
            f"{count_of(portion.tally.comparisons, 'comparison')} and {count_of(portion.tally.ties, 'tie')}{weight}"
        ]
    )
    return used
