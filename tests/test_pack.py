"""pack.py: every sequence is a leaf once, budgets hold, alike items meet."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.pack import ROUND_TO, PackSettings, build_packs

ROW = st.lists(st.one_of(st.none(), st.lists(st.integers(0, 3), min_size=1, max_size=40)), min_size=1, max_size=9)


def arrays(rows):
    return [[None if x is None else np.asarray(x, np.int32) for x in row] for row in rows]


def spelled(packs):
    """(group, completion) -> the tokens that its leaf spells."""
    found = {}
    for pack in packs:
        for at, member in enumerate(pack.members_L):
            assert member not in found
            found[member] = pack.tree.sequence(at).tolist()
    return found


@settings(max_examples=200)
@given(st.lists(ROW, min_size=1, max_size=12), st.integers(16, 96), st.booleans(), st.booleans())
def test_every_sequence_is_a_leaf_of_one_pack(rows, budget, share, fixed):
    packs = build_packs(arrays(rows), PackSettings(budget=budget, share=share, fixed=fixed))
    assert spelled(packs) == {(g, k): ids for g, row in enumerate(rows) for k, ids in enumerate(row) if ids is not None}
    for pack in packs:
        longest = max(len(pack.tree.sequence(at)) for at in range(len(pack.members_L)))
        assert pack.num_unique <= max(budget, longest) or fixed
        assert pack.size >= pack.num_unique
        if fixed:  # the size is a function of the longest sequence's class alone
            smallest = -(-budget // ROUND_TO) * ROUND_TO
            assert pack.size in {smallest * 2**n for n in range(8)}
            assert pack.size == smallest or longest > pack.size // 2
        else:
            assert pack.size % ROUND_TO == 0 and pack.size - pack.num_unique < ROUND_TO


def test_a_system_prompt_is_computed_once_a_pack():
    system = np.arange(100, dtype=np.int32)
    rows = [[np.concatenate([system, np.full(10, 200 + g, np.int32)])] for g in range(8)]
    [pack] = build_packs(rows, PackSettings(budget=200))
    assert pack.num_unique == 180
    assert pack.num_total == 880


def test_items_that_begin_alike_share_a_pack():
    rng = np.random.default_rng(0)
    leads = [rng.integers(0, 1000, 200).astype(np.int32) for _ in range(4)]
    rows = [[np.concatenate([leads[g % 4], rng.integers(0, 1000, 20 + g).astype(np.int32)])] for g in range(16)]
    packs = build_packs(rows, PackSettings(budget=400))
    assert sum(p.num_unique for p in packs) == 4 * 200 + sum(20 + g for g in range(16))


def test_a_group_larger_than_the_budget_is_cut_between_completions():
    prompt = np.arange(50, dtype=np.int32)
    row = [np.concatenate([prompt, np.full(30, 100 + k, np.int32)]) for k in range(20)]
    packs = build_packs([row], PackSettings(budget=200))
    assert all(p.num_unique <= 200 for p in packs)
    assert sum(len(p.members_L) for p in packs) == 20


def test_a_sequence_longer_than_the_budget_gets_a_pack_of_its_own():
    packs = build_packs(
        [[np.arange(500, dtype=np.int32)], [np.arange(7, dtype=np.int32) + 900]], PackSettings(budget=100)
    )
    assert sorted(p.num_unique for p in packs) == [7, 500]


def test_first_fit_leaves_little_room():
    rng = np.random.default_rng(1)
    rows = [[rng.integers(0, 50000, n).astype(np.int32)] for n in rng.integers(20, 700, 400)]
    packs = build_packs(rows, PackSettings(budget=4096))
    assert sum(p.num_unique for p in packs) / (4096 * len(packs)) > 0.95


@pytest.mark.parametrize("share", [True, False])
def test_without_sharing_every_token_is_counted(share):
    row = [np.arange(40, dtype=np.int32), np.arange(60, dtype=np.int32)]
    [pack] = build_packs([row], PackSettings(budget=200, share=share))
    assert (pack.num_unique, pack.num_total) == ((60 if share else 100), 100)
