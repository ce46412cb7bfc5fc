"""Which Groups are trained on, how often, and which are kept to evaluate on: by lot, and never by place.

Part of `corpus`, above `sift`. Shares and splits are drawn by what a Group is, so they do not change when files are
listed in another order. Invariant: evaluation and training data share no prompt, nor the opening of a conversation
where the split is ours, unless the user insists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from plaudit.corpus.sift import Sifted, count_of
from plaudit.errors import DataError
from plaudit.keys import Key, draw_lot, show_prompt

TOO_MUCH = 1.5
"""A conversation that would make the evaluation set this many times larger than asked for is trained on instead."""


def take_share(sifted: Sequence[Sifted], share: float, seed: int) -> list[Sifted]:
    """This share of the Groups, to the nearest whole number and one at least, in the order in which they came."""
    if share >= 1 or not sifted:
        return list(sifted)
    ranked = rank(sifted, seed, "share")
    kept = set(ranked[: max(1, round(share * len(sifted)))])
    return [one for n, one in enumerate(sifted) if n in kept]


def repeat_share(sifted: Sequence[Sifted], weight: float, seed: int) -> list[Sifted]:
    """Each Group as often as its weight says, for weights from 1 up; a fraction is a share that comes once more."""
    whole = int(max(weight, 1))
    more = weight - whole
    return [*sifted] * whole + (take_share(sifted, more, seed) if more > 1e-9 else [])


def rank(sifted: Sequence[Sifted], seed: int, purpose: str) -> list[int]:
    """Their numbers in an order that depends on what they are. Equal Groups take their turns one copy after another."""
    copies: Counter[Key] = Counter()
    lots = []
    for n, one in enumerate(sifted):
        number = copies[one.key]
        copies[one.key] += 1
        lots.append((draw_lot(seed, purpose, one.key, number.to_bytes(8, "little")), n))
    return [n for _, n in sorted(lots)]


def mix(parts: Iterable[Sequence[Sifted]], seed: int) -> list[Sifted]:
    """All parts in one order, the same whichever came first."""
    everything = [one for part in parts for one in part]
    return [everything[n] for n in rank(everything, seed, "mix")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """The openings and prompts that are kept for evaluation; `by` says which of the two decides."""

    keys: frozenset[Key]
    by: str

    def holds(self, one: Sifted) -> bool:
        """Whether a Group is for evaluation."""
        return (one.opening if self.by == "opening" else one.prompt) in self.keys


def choose_split(sifted: Iterable[Sifted], share: float, seed: int) -> Split | None:
    """About `share` of the prompts, by whole conversations: all prompts with one opening stay together.

    None where there is one prompt only. Where all prompts have one opening, each prompt is by itself.
    """
    prompts_of: dict[Key, set[Key]] = {}
    for one in sifted:
        prompts_of.setdefault(one.opening, set()).add(one.prompt)
    by = "opening"
    if len(prompts_of) == 1:
        by, prompts_of = "prompt", {prompt: {prompt} for prompts in prompts_of.values() for prompt in prompts}
    if len(prompts_of) < 2:
        return None
    total = len(set().union(*prompts_of.values()))
    wanted = max(1, round(share * total))
    kept: set[Key] = set()
    size = 0
    for key in sorted(prompts_of, key=lambda key: (draw_lot(seed, "split", key), key)):
        if size >= wanted:
            break
        grown = size + len(prompts_of[key])
        if grown <= max(wanted + 1, TOO_MUCH * wanted) and grown < total:
            kept.add(key)
            size = grown
    if not kept:
        kept = {min(prompts_of, key=lambda key: (len(prompts_of[key]), draw_lot(seed, "split", key), key))}
    return Split(keys=frozenset(kept), by=by)


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlap:
    """Prompts of an evaluation set that are trained on, some of them to look at; and conversations only begun alike."""

    name: str
    num_prompts: int
    num_shared: int
    num_begun: int
    examples: tuple[str, ...]

    def sentence(self) -> str:
        """The count and the examples."""
        shown = "; ".join(f"“{example}”" for example in self.examples)
        return f"{self.num_shared:,} of {count_of(self.num_prompts, 'prompt')} of {self.name} ({shown})"


def find_overlaps(train: Iterable[Sifted], evals: Mapping[str, Sequence[Sifted]]) -> list[Overlap]:
    """What each evaluation set shares with the training data."""
    trained: set[Key] = set()
    opened: set[Key] = set()
    for one in train:
        trained.add(one.prompt)
        opened.add(one.opening)
    return [find_overlap(name, sifted, trained, opened) for name, sifted in evals.items()]


def find_overlap(name: str, sifted: Sequence[Sifted], trained: Collection[Key], opened: Collection[Key]) -> Overlap:
    """What one evaluation set shares with the prompts and openings that are trained on."""
    shared = {one.prompt: one for one in sifted if one.prompt in trained}
    begun = {one.prompt for one in sifted if one.opening in opened and one.prompt not in trained}
    return Overlap(
        name=name,
        num_prompts=len({one.prompt for one in sifted}),
        num_shared=len(shared),
        num_begun=len(begun),
        examples=tuple(show_prompt(one.group) for one in list(shared.values())[:3]),
    )


def judge_overlaps(overlaps: Sequence[Overlap], *, is_forced: bool) -> tuple[list[str], list[str]]:
    """Notes and alarms; refused if prompts are shared and nobody insists."""
    shared = [overlap for overlap in overlaps if overlap.num_shared]
    said = "; and ".join(overlap.sentence() for overlap in shared)
    if shared and not is_forced:
        raise DataError(
            f"evaluation data share prompts with training data: {said}; take them out of one of the two, or set "
            "split.force_overlap=true to go on with figures that flatter the model"
        )
    notes = [
        f"{overlap.name}: {count_of(overlap.num_begun, 'prompt')} of {overlap.num_prompts:,} "
        f"{'goes' if overlap.num_begun == 1 else 'go'} on with a conversation that is in the training data"
        for overlap in overlaps
        if overlap.num_begun
    ]
    return notes, [f"evaluation data share prompts with training data, as you allowed: {said}"] if shared else []
