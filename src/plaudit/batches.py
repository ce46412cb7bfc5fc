"""Groups become optimizer steps: which Groups a step holds, and the packs that each rank runs for it.

Stands on `losses`, `render` and `pack`, above `trainer`. The user says how many Groups a step has; memory is the token
budget of a pack, and the step's loss does not depend on how its Groups are packed or on how many ranks share them. All
ranks know every Group and draw the same steps, so that nothing has to be sent: each takes its share of a step, by size.

Invariant: a Group's completions are compared within one set of scores. A Group larger than the budget is cut into
pieces whose scores are computed twice: once to learn the slope of the loss, once to follow it.
Letters: L leaves, C comparisons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from plaudit.errors import DataError
from plaudit.group import Group
from plaudit.losses import LOSSES, Items, LossSettings, Reads, Targets, build_items, find_positions, join_items
from plaudit.pack import Pack, PackSettings, build_packs
from plaudit.render import Rendered, Renderer
from plaudit.tree import MIN_SHARED, Ints, common_prefix, sort_sequences

WINDOW = 512
"""Groups rendered at a time."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Example:
    """A Group that can be learned from: the ids of the completions that its labels speak of, and what they ask.

    `trailing` counts the tokens of white space after each completion's closing token; it is empty where there are none,
    or where only the last token is trained.
    """

    name: str
    ids: tuple[Ints | None, ...]
    items: Items
    size: int
    trailing: tuple[int, ...] = ()

    @property
    def readings(self) -> tuple[Ints | None, ...]:
        """What is scored: every completion to its last token, then, with `trailing`, to its closing token.

        The second half are prefixes of the first, so a tree computes no token more for them.
        """
        closing = zip(self.ids, self.trailing, strict=False)
        return (*self.ids, *(ids if ids is None else ids[: len(ids) - count] for ids, count in closing))

    def place_scores(self, leaf_of: Mapping[int, int]) -> tuple[Items, dict[int, int], dict[int, int]]:
        """What `join_items` takes, if the scores of `readings` are at these places."""
        size = len(self.ids)
        last = {k: leaf for k, leaf in leaf_of.items() if k < size}
        return self.items, last, {last[k - size]: leaf for k, leaf in leaf_of.items() if k >= size}


@dataclass(kw_only=True, slots=True)
class ExampleCounts:
    """What became of the Groups, in numbers."""

    groups: int = 0
    kept: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    claims_left_out: Counter[str] = field(default_factory=Counter)

    def sentences(self) -> list[str]:
        """One sentence for every reason."""
        said = [f"{count:,} of {self.groups:,} groups left out: {why}" for why, count in self.left_out.most_common()]
        said += [
            f"{count:,} claims of labels left out in groups that stay: {why}"
            for why, count in self.claims_left_out.most_common()
        ]
        return said


def build_examples(
    groups: Iterable[Group],
    renderer: Renderer,
    loss: LossSettings,
    counts: ExampleCounts,
    *,
    both_ends: bool = True,
) -> Iterator[Example]:
    """Groups rendered and asked what their labels teach; those that teach nothing are counted with the reason.

    With `both_ends` a score is trained at the closing token too where the template writes white space after it. The
    loss of every token (`token_wise`) reads the closing token already.
    """
    both_ends = both_ends and LOSSES[loss.name].reads is not Reads.TOKENS
    source = iter(groups)
    at = 0
    while window := list(islice(source, WINDOW)):
        for group, rendered in zip(window, renderer.render(window), strict=True):
            at += 1
            counts.groups += 1
            found = _build_example(group, rendered, loss, group.id or f"group {at}", both_ends=both_ends)
            if isinstance(found, str):
                counts.left_out[found] += 1
                continue
            counts.kept += 1
            counts.claims_left_out.update(dict(found.items.left_out))
            yield found


def _build_example(
    group: Group, rendered: Rendered, loss: LossSettings, name: str, *, both_ends: bool
) -> Example | str:
    if rendered.dropped is not None:
        return rendered.dropped
    present = np.array([ids is not None for ids in rendered.ids])
    items = build_items(group, present, loss, identical=rendered.identical)
    if isinstance(items, str):
        return items
    wanted = set(items.completions())
    ids = tuple(row if k in wanted else None for k, row in enumerate(rendered.ids))
    trailing = rendered.trailing if both_ends and any(rendered.trailing) else ()
    return Example(
        name=name,
        ids=ids,
        items=items,
        size=_unique_tokens([row for row in ids if row is not None]),
        trailing=trailing,
    )


def _unique_tokens(sequences: list[Ints]) -> int:
    total, previous = 0, None
    for k in sort_sequences(sequences):
        shared = common_prefix(previous, sequences[k]) if previous is not None else 0
        total += len(sequences[k]) - (shared if shared >= MIN_SHARED else 0)
        previous = sequences[k]
    return total


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Unit:
    """One forward, and in training its backward: a pack of whole Groups with their targets, or a piece of a Group.

    `at` are the tokens whose scores are asked for (None: the leaves). A piece has no targets of its own: `whole` is the
    number of its Group among the step's, and `slots` the places of its scores there. `num_total` are the tokens of its
    completions, each counted to its last token alone.
    """

    pack: Pack
    names: tuple[str, ...]
    num_total: int = 0
    targets: Targets | None = None
    at: Tensor | None = None
    whole: int = -1
    slots: Tensor | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Step:
    """One rank's share of an optimizer step; `num_items` is what the whole step's loss is a mean over."""

    number: int
    num_items: float
    num_groups: int
    units: list[Unit]
    wholes: list[Targets]
    filler: Pack
    examples: list[Example]

    @property
    def pieces(self) -> list[Unit]:
        """The units whose scores are computed once more, beforehand."""
        return [unit for unit in self.units if unit.whole >= 0]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSettings:
    """How steps are made: Groups a step, tokens a pack, the seed of the order, and whose share."""

    groups: int = 64
    budget: int = 4096
    seed: int = 0
    rank: int = 0
    world: int = 1
    share: bool = True
    by_token: bool = False


def build_step(examples: Sequence[Example], settings: StepSettings, number: int = 0) -> Step:
    """This rank's share of a step of these examples."""
    num_items = sum(example.items.count for example in examples)
    mine = [examples[n] for n in share_out([e.size for e in examples], settings.world)[settings.rank]]
    large = [e for e in mine if e.size > settings.budget and not settings.by_token and e.items.count]
    small = [e for e in mine if not any(e is other for other in large)]
    units = _whole_units(small, settings)
    wholes: list[Targets] = []
    for example in large:
        units += _piece_units(example, len(wholes), settings)
        wholes.append(join_items([example.place_scores(dense_leaves(example))]))
    shortest = min(examples, key=lambda e: e.size)
    [filler] = build_packs([_one_row(shortest)], PackSettings(budget=1 << 30))
    return Step(
        number=number,
        num_items=num_items,
        num_groups=len(examples),
        units=units,
        wholes=wholes,
        filler=filler,
        examples=list(examples),
    )


def _one_row(example: Example) -> list[Ints]:
    return [min((ids for ids in example.ids if ids is not None), key=len)]


def dense_leaves(example: Example) -> dict[int, int]:
    """The place of each reading's score among those of its Group that are computed."""
    present = [k for k, ids in enumerate(example.readings) if ids is not None]
    return {k: n for n, k in enumerate(present)}


def share_out(sizes: Sequence[int], ranks: int) -> list[list[int]]:
    """Numbers of the sizes for each rank: the largest first, to whoever has least; then in their order."""
    shares: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for n in sorted(range(len(sizes)), key=lambda n: -sizes[n]):
        rank = loads.index(min(loads))
        shares[rank].append(n)
        loads[rank] += sizes[n]
    return [sorted(share) for share in shares]


def _whole_units(examples: list[Example], settings: StepSettings) -> list[Unit]:
    """Packs of whole Groups, with the targets of each."""
    packing = PackSettings(budget=settings.budget, share=settings.share, whole=True)
    units = []
    for pack in build_packs([e.readings for e in examples], packing):
        leaf_of: dict[int, dict[int, int]] = {}
        for leaf, (group, k) in enumerate(pack.members_L):
            leaf_of.setdefault(group, {})[k] = leaf
        names = tuple(examples[g].name for g in leaf_of)
        about: dict[str, Any] = {"pack": pack, "names": names, "num_total": count_total(pack, examples)}
        if settings.by_token:
            held = [(examples[g].items, leaves) for g, leaves in leaf_of.items()]
            at, positions = find_positions(pack, held)
            units.append(Unit(**about, targets=join_items(held, positions), at=torch.from_numpy(at)))
        else:
            units.append(Unit(**about, targets=join_items([examples[g].place_scores(x) for g, x in leaf_of.items()])))
    return units


def count_total(pack: Pack, examples: Sequence[Example]) -> int:
    """Tokens of the pack's completions, each counted once: a second reading of one is no completion."""
    rows = (examples[g].ids[k] for g, k in pack.members_L if k < len(examples[g].ids))
    return sum(len(ids) for ids in rows if ids is not None)


def _piece_units(example: Example, whole: int, settings: StepSettings) -> list[Unit]:
    """Packs that hold the completions of one Group which does not fit into one."""
    place = dense_leaves(example)
    packs = build_packs([example.readings], PackSettings(budget=settings.budget, share=settings.share))
    return [
        Unit(
            pack=pack,
            names=(example.name,),
            num_total=count_total(pack, [example]),
            whole=whole,
            slots=torch.tensor([place[k] for _, k in pack.members_L]),
        )
        for pack in packs
    ]


class StepSet(Dataset[Step]):
    """All steps of an epoch, drawn by seed and epoch; the last one may be smaller."""

    def __init__(self, examples: Sequence[Example], settings: StepSettings) -> None:
        if not examples:
            raise DataError("no group is left to learn from; look at what was left out, and why")
        self.examples, self.settings, self.epoch = examples, settings, 0

    def __len__(self) -> int:
        return -(-len(self.examples) // self.settings.groups)

    def __getitem__(self, number: int) -> Step:
        order = np.random.default_rng((self.settings.seed, self.epoch)).permutation(len(self.examples))
        size = self.settings.groups
        chosen = [self.examples[n] for n in order[number * size : (number + 1) * size]]
        return build_step(chosen, self.settings, number)


class StepStream(IterableDataset[Step]):
    """Steps of a stream of examples, as they come, pass after pass; `open_stream` starts the pass of that number.

    The passes are one stream to whoever draws from it: a run that goes on skips the steps that it has had, and is at
    the same row of the same pass.
    """

    def __init__(self, open_stream: Callable[[int], Iterable[Example]], settings: StepSettings) -> None:
        self.open_stream, self.settings, self.epoch = open_stream, settings, 0

    def __iter__(self) -> Iterator[Step]:
        source = self._draw()
        for number in count():
            yield build_step(list(islice(source, self.settings.groups)), self.settings, number)

    def _draw(self) -> Iterator[Example]:
        for epoch in count():
            example = None
            for example in self.open_stream(epoch):
                yield example
            if example is None:
                raise DataError("no group of the stream is left to learn from; look at what was left out, and why")
