"""A comparison at every token after which two completions differ, as in DeepSpeed-Chat.

Part of `losses`. The branches of a pack's tree are that region: `find_positions` says which tokens of a pack have to be
scored, so that the model is asked for those and no others. Invariant: what is compared does not depend on what the tree
shares; a token that was computed twice has one score.
Letters: C comparisons, P pairs of tokens, T tokens of a pack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid

from plaudit.config.schema import LossName
from plaudit.errors import InternalError
from plaudit.losses.loss import Loss, Reads
from plaudit.losses.pairwise import take_both_sides, widen
from plaudit.losses.settings import LossSettings
from plaudit.losses.targets import Items, Positions, Targets
from plaudit.pack import Pack
from plaudit.tree import Tree, common_prefix

Places = NDArray[np.int64]


def token_wise(score_L: Tensor, targets: Targets, settings: LossSettings) -> Tensor:
    """Mean over the divergent positions t of -log σ(better[t] - worse[t]), summed with weights.

    Needs: labels of any kind, as comparisons of two; margins are not looked at. `score_L` are the scores at the tokens
    that `find_positions` asks for. The divergent positions run from the first token that differs to the end of the
    longer completion; the shorter one holds its last score. (DeepSpeed-Chat compares with the scores of its padding.)
    For: any number of completions.
    Prefer `bradley_terry`: the last token alone is what every consumer of the model reads. This one is for data so
    small that a score a token helps, and for going on from DeepSpeed-Chat's models.

    >>> import numpy as np, torch
    >>> from plaudit import pair
    >>> from plaudit.losses import LossName, LossSettings, build_items, compute_loss, find_positions, join_items
    >>> from plaudit.pack import PackSettings, build_packs
    >>> settings = LossSettings(name=LossName.TOKEN_WISE)
    >>> items = build_items(pair("a b", " c d", " e"), [True, True], settings)
    >>> [pack] = build_packs([[np.array([1, 2, 3, 4]), np.array([1, 2, 5])]], PackSettings())
    >>> held = [(items, {0: 0, 1: 1})]
    >>> at, positions = find_positions(pack, held)
    >>> pack.tree.tokens_T[at].tolist()
    [3, 4, 5]
    >>> targets = join_items(held, positions)
    >>> scores = torch.tensor([0.0, 2.0, 0.0])
    >>> round(float(compute_loss(scores, targets, settings)), 4)
    0.41
    """
    if targets.better_P is None or targets.worse_P is None or targets.owner_P is None:
        raise InternalError("token_wise needs targets with positions; join_items takes them from find_positions")
    score_L = widen(score_L)
    owner_P = targets.owner_P
    gap_P = score_L[targets.better_P] - score_L[targets.worse_P]
    loss_P = take_both_sides(-logsigmoid(gap_P), -logsigmoid(-gap_P), targets.is_tie_C[owner_P], settings)
    # Tokens share their comparison's weight; adding losses up a comparison first would add them in any order on a GPU.
    size_C = torch.zeros_like(targets.weight_C).index_add(0, owner_P, torch.ones_like(loss_P, dtype=torch.float32))
    return ((targets.weight_C / size_C)[owner_P] * loss_P).sum()


def find_positions(pack: Pack, held: Sequence[tuple[Items, Mapping[int, int]]]) -> tuple[Places, Positions]:
    """The tokens of a pack whose scores are needed, ascending, and who is compared with whom among them.

    `held` is what `join_items` takes: the items of each Group in the pack, and the leaf of each of its completions.
    """
    paths: dict[int, Places] = {}
    for _, leaf_of in held:
        paths |= {leaf: path_tokens(pack.tree, leaf) for leaf in leaf_of.values() if leaf not in paths}
    sides: tuple[list[Places], list[Places]] = ([], [])
    for items, leaf_of in held:
        for better, worse in zip(items.better_C.tolist(), items.worse_C.tolist(), strict=True):
            both = pair_tokens(pack.tree, paths[leaf_of[better]], paths[leaf_of[worse]])
            for side, tokens in zip(sides, both, strict=True):
                side.append(tokens)
    leaves = [int(pack.tree.leaf_K[leaf]) for _, leaf_of in held for leaf in leaf_of.values()]
    at = np.unique(np.concatenate([np.asarray(leaves, np.int64), *sides[0], *sides[1]]))
    better_P, worse_P = (np.searchsorted(at, np.concatenate(side or [at[:0]])).astype(np.int64) for side in sides)
    owner_P = np.repeat(np.arange(len(sides[0])), [len(tokens) for tokens in sides[0]]).astype(np.int64)
    own = tuple(
        {k: int(np.searchsorted(at, pack.tree.leaf_K[leaf])) for k, leaf in leaf_of.items()} for _, leaf_of in held
    )
    return at, Positions(better_P=better_P, worse_P=worse_P, owner_P=owner_P, leaf_of=own)


def path_tokens(tree: Tree, k: int) -> Places:
    """Where the tokens of sequence k lie in the pack, from its first to its last."""
    leaf = int(tree.leaf_K[k])
    segment = int(np.searchsorted(tree.starts_S, leaf, side="right")) - 1
    runs = [*tree.path(segment), (int(tree.starts_S[segment]), leaf + 1)]
    return np.concatenate([np.arange(a, b, dtype=np.int64) for a, b in runs])


def pair_tokens(tree: Tree, path_a: Places, path_b: Places) -> tuple[Places, Places]:
    """The tokens of two sequences that stand against each other: from where they differ to where the longer ends."""
    size = max(len(path_a), len(path_b))
    # By token and not by place: a short shared run is computed again on each branch. Two that are the same are
    # compared once, at their last token.
    first = min(common_prefix(tree.tokens_T[path_a], tree.tokens_T[path_b]), size - 1)
    depth = np.arange(first, size)
    return path_a[np.minimum(depth, len(path_a) - 1)], path_b[np.minimum(depth, len(path_b) - 1)]


LOSS = Loss(
    name=LossName.TOKEN_WISE,
    reads=Reads.TOKENS,
    labels="comparisons",
    completions="2 or more",
    prefer="`bradley_terry`, unless data is so small that a score a token helps",
    formula="mean over divergent tokens t of -log σ(b[t] - w[t])",
    compute=token_wise,
)
