"""tree.py against spelling every path out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.tree import build_tree, common_prefix, sort_sequences

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=17)


def arrays(lists):
    return [np.asarray(x, np.int32) for x in lists]


@settings(max_examples=300)
@given(SEQUENCES, st.integers(1, 6))
def test_every_path_spells_its_sequence(lists, min_shared):
    sequences = arrays(lists)
    tree = build_tree(sequences, min_shared=min_shared)
    for k, ids in enumerate(sequences):
        assert tree.sequence(k).tolist() == ids.tolist()
        leaf = int(tree.leaf_K[k])
        assert tree.positions_T()[leaf] == len(ids) - 1


@settings(max_examples=300)
@given(SEQUENCES)
def test_each_prefix_is_computed_once(lists):
    tree = build_tree(arrays(lists), min_shared=1)
    prefixes = {tuple(x[: n + 1]) for x in lists for n in range(len(x))}
    assert tree.num_tokens == len(prefixes)
    assert tree.num_segments <= len(lists)


def test_parents_come_before_children_and_segments_are_contiguous():
    tree = build_tree(arrays([[1, 2, 3, 4], [1, 2, 3, 5, 6], [1, 2, 7], [9, 9]]), min_shared=1)
    assert (tree.parents_S < np.arange(tree.num_segments)).all()
    assert tree.starts_S.tolist() == np.concatenate([[0], np.cumsum(tree.lengths_S)[:-1]]).tolist()
    assert tree.offsets_S[tree.parents_S == -1].tolist() == [0, 0]


def test_identical_sequences_and_prefixes_cost_nothing():
    tree = build_tree(arrays([[5, 6, 7, 8], [5, 6], [5, 6, 7, 8], [5, 6, 7]]), min_shared=1)
    assert tree.tokens_T.tolist() == [5, 6, 7, 8]
    assert tree.leaf_K.tolist() == [3, 1, 3, 2]


def test_a_short_shared_run_is_computed_again():
    sequences = arrays([[1, 2, 3, 4, 5], [1, 2, 9]])
    assert build_tree(sequences, min_shared=3).num_tokens == 8
    assert build_tree(sequences, min_shared=2).num_tokens == 6


@pytest.mark.parametrize(
    ("a", "b", "n"), [([], [1], 0), ([1], [1], 1), ([1, 2], [1, 3], 1), ([1, 2], [1, 2, 3], 2), ([4], [5], 0)]
)
def test_common_prefix(a, b, n):
    assert common_prefix(np.asarray(a, np.int32), np.asarray(b, np.int32)) == n


def test_sorting_is_by_number_not_by_byte():
    assert sort_sequences(arrays([[300], [2], [70000], [2, 1]])) == [1, 3, 0, 2]


def test_a_prefix_of_the_next_sequence_is_read_within_its_segment():
    """Two readings of each completion, as training asks for: the second is no segment and no token more."""
    trunk = list(range(20))
    whole = arrays([[*trunk, 30, 31, 40], [*trunk, 32, 33, 34, 40]])
    tree = build_tree([*whole, *(ids[:-1] for ids in whole)])
    assert (tree.num_segments, tree.num_tokens) == (2, 27)
    assert (tree.leaf_K[:2] - tree.leaf_K[2:]).tolist() == [1, 1]
    unshared = build_tree([whole[0], whole[0][:-1]], min_shared=1 << 30)
    assert (unshared.num_segments, unshared.num_tokens) == (2, 45), "nothing is shared where that is asked for"
