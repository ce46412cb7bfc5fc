"""K token lists become one prefix tree: what they share is there once.

First room of the waist; pure numpy. A Segment is a run of tokens that follows its parent's path from some depth on. The
sequences are sorted, so each one shares its longest prefix with its neighbour, and the tree needs one segment a
sequence and no inner nodes: the first sequence is a whole row, every later one is only its tail. A sequence that is a
prefix of the next one shares its segment, and is read at a token within it.

        depth 0        offset of B      offset of C
          |-- prompt ----|---- answer A ----------|        segment 0   (parent -1, offset 0)
                         |-- answer B --|                  segment 1   (parent 0, offset = where it leaves A)
                                |-- C --|                  segment 2   (parent 1, offset = where it leaves B)

Invariant: walking a segment's path from the root spells the sequence it came from, and every token occurs once a
prefix. Letters: S segments, T tokens, K sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]

MIN_SHARED = 8
"""A shared run shorter than this is computed again: gathering its keys would cost more than its tokens do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tree:
    """Segments laid end to end, parents before children, and the token where each sequence's score is read."""

    tokens_T: Ints
    starts_S: Ints
    lengths_S: Ints
    offsets_S: Ints
    parents_S: Ints
    leaf_K: Ints

    @property
    def num_tokens(self) -> int:
        """Tokens that have to be computed."""
        return len(self.tokens_T)

    @property
    def num_segments(self) -> int:
        """Segments, at most one a sequence."""
        return len(self.starts_S)

    def positions_T(self) -> Ints:
        """The place of each token on its own path: what the model takes for its position."""
        shift_S = self.offsets_S - self.starts_S
        return np.arange(self.num_tokens, dtype=np.int32) + np.repeat(shift_S, self.lengths_S)

    def path(self, segment: int) -> list[tuple[int, int]]:
        """Runs of tokens [start, stop) before the segment on its path, root first, the segment itself left out."""
        runs: list[tuple[int, int]] = []
        parents, offsets, starts = self.parents_S, self.offsets_S, self.starts_S
        depth, above = int(offsets[segment]), int(parents[segment])
        while depth > 0:
            # A parent begins above its child, so each step up is a run.
            offset, start = int(offsets[above]), int(starts[above])
            runs.append((start, start + depth - offset))
            depth, above = offset, int(parents[above])
        return runs[::-1]

    def sequence(self, k: int) -> Ints:
        """The tokens of sequence k, spelled along its path; the slow twin of the tree."""
        leaf = int(self.leaf_K[k])
        segment = int(np.searchsorted(self.starts_S, leaf, side="right")) - 1
        runs = [*self.path(segment), (int(self.starts_S[segment]), leaf + 1)]
        return np.concatenate([self.tokens_T[a:b] for a, b in runs])


def build_tree(sequences: Sequence[Ints], *, min_shared: int = MIN_SHARED) -> Tree:
    """The prefix tree of the sequences, none of them empty; sharing is found on token ids, at any depth."""
    order = sort_sequences(sequences)
    starts: list[int] = []
    lengths: list[int] = []
    offsets: list[int] = []
    parents: list[int] = []
    leaf_K, pieces = np.zeros(len(sequences), np.int32), []
    open_segments: list[int] = []  # the path of the sequence before, root first
    total, previous = 0, None
    for k in order:
        ids = sequences[k]
        shared = 0 if previous is None else common_prefix(previous, ids)
        if previous is not None and shared == len(ids):  # sorted, so it is the same sequence again
            leaf_K[k] = total - 1
            continue
        while open_segments and offsets[open_segments[-1]] >= shared:
            open_segments.pop()
        if shared < min_shared:
            shared, open_segments = 0, []
        elif previous is not None and shared == len(previous):
            # The one before is a prefix of this one (a second reading of it): its segment is made longer, and its leaf
            # is a token within. A segment of its own would gather the keys of the whole path for a token or two.
            pieces.append(ids[shared:])
            lengths[-1] += len(ids) - shared
            total += len(ids) - shared
            leaf_K[k], previous = total - 1, ids
            continue
        parents.append(open_segments[-1] if open_segments else -1)
        open_segments.append(len(starts))
        starts.append(total)
        lengths.append(len(ids) - shared)
        offsets.append(shared)
        pieces.append(ids[shared:])
        total += len(ids) - shared
        leaf_K[k] = total - 1
        previous = ids
    columns = (np.asarray(column, np.int32) for column in (starts, lengths, offsets, parents))
    starts_S, lengths_S, offsets_S, parents_S = columns
    return Tree(
        tokens_T=np.concatenate(pieces).astype(np.int32, copy=False),
        starts_S=starts_S,
        lengths_S=lengths_S,
        offsets_S=offsets_S,
        parents_S=parents_S,
        leaf_K=leaf_K,
    )


def sort_sequences(sequences: Sequence[Ints]) -> list[int]:
    """Indices in lexicographic order of token ids: big-endian bytes compare as the numbers do."""
    keys = [np.asarray(ids, dtype=">u4").tobytes() for ids in sequences]
    return sorted(range(len(keys)), key=keys.__getitem__)


def common_prefix(a: Ints, b: Ints) -> int:
    """How many tokens a and b have in common from the start."""
    n = min(len(a), len(b))
    differ = a[:n] != b[:n]
    first = int(differ.argmax()) if n else 0
    return first if n and differ[first] else n
