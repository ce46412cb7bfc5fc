"""Trees are laid into packs: rows of one token budget, so that memory is one number whatever the groups look like.

Second room of the waist; pure numpy. Items (Groups, or pieces of Groups that are larger than a pack) are placed by
first fit, longest first, beside items that begin alike, and every pack becomes one tree: sharing reaches across Groups,
so a long system prompt is computed once a pack. Pack sizes are rounded up to few values, because matrix products run
slower on odd ones and allocators keep what they have seen.

Invariant: every sequence that goes in is a leaf of exactly one pack; a pack exceeds its budget only if one sequence
does. Letters: L leaves, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from plaudit.tree import MIN_SHARED, Ints, Tree, build_tree, common_prefix, sort_sequences

ROUND_TO = 64
NEVER_SHARED = 1 << 30
CLUSTER = 64
"""Items whose first tokens agree this far are placed side by side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackSettings:
    """How packs are cut.

    `fixed` pads each to a size that depends on its longest sequence alone (invariant scores); `whole` never cuts a
    Group: a pack exceeds the budget if one Group does (training, where its scores are compared).
    """

    budget: int = 4096
    share: bool = True
    fixed: bool = False
    whole: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack:
    """One row for the model: a tree, its padded size, and whose leaf each leaf is (group, completion)."""

    tree: Tree
    size: int
    members_L: tuple[tuple[int, int], ...]
    num_total: int

    @property
    def num_unique(self) -> int:
        """Tokens that are computed, padding apart."""
        return self.tree.num_tokens


@dataclass(slots=True)
class _Item:
    """Sequences of one Group that travel together."""

    members: list[tuple[int, int]]
    sequences: list[Ints]
    size: int
    cluster: bytes


@dataclass(slots=True)
class _Bin:
    """A pack being filled."""

    room: int
    items: list[_Item] = field(default_factory=list)
    clusters: set[bytes] = field(default_factory=set)


def build_packs(groups: Sequence[Sequence[Ints | None]], settings: PackSettings) -> list[Pack]:
    """Packs that hold every sequence of every group once; None is a completion without tokens and is left out."""
    packs: list[Pack] = []
    for budget, chosen in _size_classes(groups, settings):
        items = [item for number, row in chosen for item in _cut_group(number, row, budget, settings)]
        for filled in _first_fit(items, budget, settings):
            packs.append(_lay(filled, budget, settings))
    return packs


def _size_classes(
    groups: Sequence[Sequence[Ints | None]], settings: PackSettings
) -> list[tuple[int, list[tuple[int, list[tuple[int, Ints]]]]]]:
    """(budget, [(group, [(completion, ids)])]): one class, or with `fixed` one for each doubling of the budget."""
    classes: dict[int, dict[int, list[tuple[int, Ints]]]] = {}
    smallest = -(-settings.budget // ROUND_TO) * ROUND_TO if settings.fixed else settings.budget
    for number, row in enumerate(groups):
        for k, ids in enumerate(row):
            if ids is None:
                continue
            budget = smallest
            while settings.fixed and budget < len(ids):
                budget *= 2
            classes.setdefault(budget, {}).setdefault(number, []).append((k, ids))
    return [(budget, list(chosen.items())) for budget, chosen in sorted(classes.items())]


def _cut_group(number: int, row: list[tuple[int, Ints]], budget: int, settings: PackSettings) -> list[_Item]:
    """A group as one item, or as several that fit; neighbours in sorted order stay together, since they share most."""
    sequences = [ids for _, ids in row]
    items: list[_Item] = []
    previous: Ints | None = None
    for at in sort_sequences(sequences):
        k, ids = row[at]
        shared = common_prefix(previous, ids) if settings.share and previous is not None else 0
        cost = len(ids) - (shared if shared >= MIN_SHARED else 0)
        is_full = bool(items) and not settings.whole and (not settings.share or items[-1].size + cost > budget)
        if not items or is_full:
            items.append(_Item([], [], 0, ids[:CLUSTER].tobytes()))
            cost = len(ids)
        item = items[-1]
        item.members.append((number, k))
        item.sequences.append(ids)
        item.size += cost
        previous = ids
    return items


def _first_fit(items: list[_Item], budget: int, settings: PackSettings) -> list[_Bin]:
    """First fit, longest first; an item costs less in a pack that already holds its opening tokens."""
    common, leads = _shared_leads(items) if settings.share else (0, {})
    bins: list[_Bin] = []
    for item in sorted(items, key=lambda item: -item.size):
        lead = leads.get(item.cluster, common)
        beside = [b for b in bins if item.cluster in b.clusters and b.room >= item.size - lead] if lead > common else []
        chosen = beside[0] if beside else next((b for b in bins if b.room >= item.size - common), None)
        if chosen is None:
            chosen = _Bin(budget)
            bins.append(chosen)
        shared = lead if item.cluster in chosen.clusters else common if chosen.items else 0
        chosen.room -= item.size - shared
        chosen.items.append(item)
        chosen.clusters.add(item.cluster)
    return bins


def _shared_leads(items: list[_Item]) -> tuple[int, dict[bytes, int]]:
    """How many opening tokens all items share, and how many those of each cluster share."""
    clusters: dict[bytes, list[Ints]] = {}
    for item in items:
        clusters.setdefault(item.cluster, []).extend((item.sequences[0], item.sequences[-1]))
    everything = [ids for members in clusters.values() for ids in members]
    leads = {cluster: _lead(members) for cluster, members in clusters.items()}
    return _lead(everything), leads


def _lead(sequences: list[Ints]) -> int:
    """The longest opening that all sequences share and none is used up by, or 0 if too short to be shared."""
    order = sort_sequences(sequences)
    shared = common_prefix(sequences[order[0]], sequences[order[-1]])
    return shared if shared >= MIN_SHARED else 0


def _lay(filled: _Bin, budget: int, settings: PackSettings) -> Pack:
    """The bin as one tree."""
    sequences = [ids for item in filled.items for ids in item.sequences]
    tree = build_tree(sequences, min_shared=MIN_SHARED if settings.share else NEVER_SHARED)
    size = -(-tree.num_tokens // ROUND_TO) * ROUND_TO
    return Pack(
        tree=tree,
        size=max(size, budget) if settings.fixed else size,
        members_L=tuple(member for item in filled.items for member in item.members),
        num_total=sum(map(len, sequences)),
    )
