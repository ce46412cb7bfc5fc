"""The plans of the CUDA back ends on a CPU: what they ask of their kernels, against one dense mask.

`varlen_attn` is replaced by a plain reference of what its documentation promises. FlexAttention runs uncompiled, as a
plain reference, and (slow) compiled for the CPU, whose kernel reads the block lists as the one for CUDA does.
"""

from __future__ import annotations

import inspect
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit import attend, model
from plaudit.attend import FLEX_BLOCK, AttentionCall, FlexPlan, VarlenPlan, seen_until, visible_TT
from plaudit.checkpoint import Checkpoint
from plaudit.config import read_config
from plaudit.errors import InternalError
from plaudit.model import RewardNet
from plaudit.pack import Pack, PackSettings, build_packs
from plaudit.preparation import load_net
from plaudit.tree import build_tree
from reference_kernels import older_varlen, reference_flex, reference_varlen
from test_attend import dense, make_pack, tensors
from tiny import save_model

CPU = torch.device("cpu")


VARLEN = "torch.nn.attention.varlen.varlen_attn"


def test_the_reference_has_the_signature_of_the_installed_torch():
    from torch.nn.attention.varlen import varlen_attn

    theirs, ours = (inspect.signature(f).parameters.values() for f in (varlen_attn, reference_varlen))
    assert [(p.name, p.kind, p.default) for p in theirs] == [(p.name, p.kind, p.default) for p in ours]


SEQUENCES = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=14), min_size=1, max_size=9)


def pack_of(lists, *, padding=0, min_shared=1):
    """A pack of one group, with as much padding as asked for."""
    sequences = [np.asarray(x, np.int32) for x in lists]
    tree = build_tree(sequences, min_shared=min_shared)
    members = tuple((0, k) for k in range(len(lists)))
    return Pack(tree=tree, size=tree.num_tokens + padding, members_L=members, num_total=sum(map(len, lists)))


@settings(max_examples=150, deadline=None)
@given(
    lists=SEQUENCES,
    min_shared=st.sampled_from([1, 3, 99]),
    padding=st.integers(0, 5),
    window=st.none() | st.integers(1, 15),
    heads=st.sampled_from([(1, 1), (4, 2), (3, 3), (6, 1)]),
    scaling=st.sampled_from([0.25, 1.5]),
    varlen=st.sampled_from([reference_varlen, older_varlen]),
)
def test_varlen_equals_the_dense_mask_on_random_trees(lists, min_shared, padding, window, heads, scaling, varlen):
    pack = pack_of(lists, padding=padding, min_shared=min_shared)
    call = AttentionCall(scaling=scaling, window=window)
    ours, twin = (tensors(pack, *heads, width=8, grad=True) for _ in range(2))
    plan = VarlenPlan(pack, CPU)
    assert plan.is_shared == bool((pack.tree.parents_S >= 0).any())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VARLEN, varlen)
        out = plan.attend(*ours, call)
    assert out.shape == (pack.size, heads[0], 8)
    wanted = dense(pack, *twin, call)
    torch.testing.assert_close(out[: pack.num_unique], wanted, atol=5e-6, rtol=1e-5)
    weights = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(3))
    (out[: pack.num_unique] * weights).sum().backward()
    (wanted * weights).sum().backward()
    for a, b in zip(ours, twin, strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=2e-5, rtol=1e-5)


@settings(max_examples=100, deadline=None)
@given(SEQUENCES, st.sampled_from([1, 3, 99]), st.integers(0, 5))
def test_keys_of_varlen_stand_in_order_of_position_without_a_gap(lists, min_shared, padding):
    pack = pack_of(lists, padding=padding, min_shared=min_shared)
    plan, tree = VarlenPlan(pack, CPU), pack.tree
    seen, positions = visible_TT(tree), tree.positions_T()
    bounds = list(zip(pairwise(plan.cu_q.tolist()), pairwise(plan.cu_k.tolist()), strict=True))
    assert len(bounds) == tree.num_segments + (padding > 0)
    for (a, b), (c, d) in bounds[: tree.num_segments]:
        keys = plan.index[c:d].tolist()
        assert set(keys) == set(np.flatnonzero(seen[b - 1]).tolist())
        assert positions[keys].tolist() == list(range(d - c))
        assert keys[-(b - a) :] == list(range(a, b))
    if padding:
        (a, b), (c, d) = bounds[-1]
        assert plan.index[c:d].tolist() == list(range(a, b)) == list(range(pack.num_unique, pack.size))


def test_nothing_is_gathered_where_nothing_is_shared(monkeypatch):
    calls = []
    monkeypatch.setattr(VARLEN, lambda q, k, v, *args, **kwargs: calls.append(k) or q)
    monkeypatch.setattr(attend._GatherKeys, "apply", lambda *args: pytest.fail("gathered"))
    pack = pack_of([[1, 2, 3], [4, 5]], padding=3)
    VarlenPlan(pack, CPU).attend(*tensors(pack), AttentionCall(scaling=1.0))
    assert calls[0].shape[0] == pack.size


def test_gradients_of_shared_keys_are_summed_in_fp32():
    x = torch.zeros(2, 1, 1, dtype=torch.bfloat16, requires_grad=True)
    index = torch.tensor([0] * 513 + [1])
    grad = torch.full((514, 1, 1), 2.0**-9, dtype=torch.bfloat16)
    grad[0] = 1.0
    attend._GatherKeys.apply(x, index).backward(grad)
    # In bf16 each of the 512 small addends would be lost beside the 1.
    assert x.grad.dtype == torch.bfloat16
    assert x.grad.flatten().tolist() == [2.0, 2.0**-9]


@pytest.mark.parametrize("refused", [{"softcap": 5.0}, {"dropout": 0.1}])
def test_varlen_refuses_what_its_kernel_does_not_compute(refused):
    pack = make_pack(6)
    with pytest.raises(InternalError, match="softcap or dropout, which it does not compute"):
        VarlenPlan(pack, CPU).attend(*tensors(pack), AttentionCall(scaling=0.25, **refused))


@settings(max_examples=200, deadline=None)
@given(SEQUENCES, st.sampled_from([1, 3, 99]))
def test_each_token_is_seen_by_what_follows_up_to_one_place(lists, min_shared):
    tree = pack_of(lists, min_shared=min_shared).tree
    i, j = np.arange(tree.num_tokens)[:, None], np.arange(tree.num_tokens)[None]
    assert ((j <= i) & (i < seen_until(tree)[None]) == visible_TT(tree)).all()


@settings(max_examples=100, deadline=None)
@given(
    lists=SEQUENCES,
    min_shared=st.sampled_from([1, 3, 99]),
    padding=st.integers(0, 5),
    window=st.none() | st.integers(1, 15),
    softcap=st.sampled_from([None, 0.7, 5.0]),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 1)]),
)
def test_flex_equals_the_dense_mask_on_random_trees(lists, min_shared, padding, window, softcap, heads):
    pack = pack_of(lists, padding=padding, min_shared=min_shared)
    call = AttentionCall(scaling=0.4, window=window, softcap=softcap)
    q, k, v = tensors(pack, *heads, width=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attend, "_compiled_flex", lambda: reference_flex)
        out = FlexPlan(pack, CPU).attend(q, k, v, call)
    torch.testing.assert_close(out[: pack.num_unique], dense(pack, q, k, v, call), atol=5e-6, rtol=1e-5)
    assert out[pack.num_unique :].isfinite().all()


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("window", [None, 33])
def test_flex_uncompiled_equals_the_dense_mask(window, softcap, monkeypatch):
    from torch.nn.attention.flex_attention import flex_attention

    monkeypatch.setattr(attend, "_compiled_flex", lambda: flex_attention)
    pack = make_pack(5, groups=2)
    call = AttentionCall(scaling=0.25, window=window, softcap=softcap)
    q, k, v = tensors(pack)
    plan = FlexPlan(pack, CPU)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is slow so
        out = plan.attend(q, k, v, call)
    torch.testing.assert_close(out[: pack.num_unique], dense(pack, q, k, v, call), atol=2e-6, rtol=1e-5)
    assert plan.mask(window) is plan.mask(window), "a pack's layers share its mask"
    assert plan.mask(window) is not plan.mask(7)
    with pytest.raises(InternalError, match="flex back end came upon dropout"):
        plan.attend(q, k, v, AttentionCall(scaling=0.25, dropout=0.1))


def blocks_of(counts, indices):
    """A block list as a dense table."""
    [[counts]], [[indices]] = counts.tolist(), indices.tolist()
    table = np.zeros((len(counts), len(counts)), bool)
    for row, (count, chosen) in enumerate(zip(counts, indices, strict=True)):
        table[row, chosen[:count]] = True
    return table


def block_tables(mask):
    partial = blocks_of(mask.kv_num_blocks, mask.kv_indices)
    full = blocks_of(mask.full_kv_num_blocks, mask.full_kv_indices)
    # The backward reads the same tables by key.
    assert (blocks_of(mask.q_num_blocks, mask.q_indices) == partial.T).all()
    assert (blocks_of(mask.full_q_num_blocks, mask.full_q_indices) == full.T).all()
    return partial, full


@pytest.mark.parametrize("window", [None, 1, 33, 200, 5000])
@pytest.mark.parametrize("seed", range(6))
def test_block_lists_of_flex_are_those_that_torch_makes_of_the_whole_mask(seed, window):
    from torch.nn.attention.flex_attention import create_block_mask

    rng = np.random.default_rng(seed)
    pack = make_pack(seed, groups=int(rng.integers(1, 4)))
    if seed == 5:  # long rows with few segments, where most blocks are full
        row = rng.integers(0, 99, 1400).astype(np.int32)
        [pack] = build_packs([[row, np.concatenate([row[:900], row[:600]])]], PackSettings(budget=20_000))
    mine = FlexPlan(pack, CPU).mask(window)
    theirs = create_block_mask(mine.mask_mod, None, None, pack.size, pack.size, device="cpu", BLOCK_SIZE=FLEX_BLOCK)
    (partial, full), (their_partial, their_full) = block_tables(mine), block_tables(theirs)
    assert mine.BLOCK_SIZE == theirs.BLOCK_SIZE and mine.seq_lengths == theirs.seq_lengths
    assert not (partial & full).any()
    # A block is left out only if torch leaves it out, and is full only if it is: with a window, by bounds alone.
    assert not ((their_partial | their_full) & ~(partial | full)).any()
    assert not (full & ~their_full).any()
    if window is None or window == 5000:
        assert (partial == their_partial).all() and (full == their_full).all()
    if seed == 5:
        assert full.any() or window in (1, 33, 200)
        assert (partial | full).sum() < (len(full) + 1) * len(full) // 2 or window in (None, 5000)


@pytest.mark.parametrize("window", [None, 128, 254, 255, 256, 257])
def test_block_lists_are_right_where_segments_end_with_blocks(window):
    from torch.nn.attention.flex_attention import create_block_mask

    row = np.arange(512, dtype=np.int32)
    rows = [row, np.concatenate([row[:256], 600 + row[:128]]), 2000 + row[:128]]
    [pack] = build_packs([rows], PackSettings(budget=20_000))
    assert pack.tree.starts_S.tolist() == [0, 512, 640] and pack.size == 768
    mine = FlexPlan(pack, CPU).mask(window)
    theirs = create_block_mask(mine.mask_mod, None, None, 768, 768, device="cpu", BLOCK_SIZE=FLEX_BLOCK)
    for ours, wanted in zip(block_tables(mine), block_tables(theirs), strict=True):
        assert (ours == wanted).all()


def test_block_lists_of_a_large_pack_take_little_memory():
    rows = [np.arange(4000, dtype=np.int32) + 7 * n for n in range(32)]
    [pack] = build_packs([[row] for row in rows], PackSettings(budget=131_072))
    assert pack.size == 128_000
    mask = FlexPlan(pack, CPU).mask(None)
    held = (mask.kv_indices, mask.full_kv_indices, mask.q_indices, mask.full_q_indices)
    assert sum(x.numel() * x.element_size() for x in held) == 4 * 4 * 1000**2
    assert int(mask.kv_num_blocks.sum() + mask.full_kv_num_blocks.sum()) < 32 * 33 * 33


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when its compiler is first imported
def test_flex_is_compiled_once_a_process_and_raises_rather_than_run_uncompiled(monkeypatch):
    import torch._dynamo

    assert attend._compiled_flex() is attend._compiled_flex()
    assert attend._compiled_flex()._torchdynamo_orig_callable.__name__ == "flex_attention"
    assert torch._dynamo.config.recompile_limit >= attend.FLEX_VARIANTS
    seen = {}
    monkeypatch.setattr(torch, "compile", lambda function, **options: seen.update(options))
    attend._compiled_flex.__wrapped__()
    assert seen == {"dynamic": True, "fullgraph": True}


@pytest.mark.filterwarnings("ignore")
def test_packs_of_all_sizes_share_a_compiled_variant():
    import torch._dynamo
    from torch.nn.attention.flex_attention import flex_attention

    graphs = []
    torch._dynamo.reset()
    compiled = torch.compile(
        flex_attention, dynamic=True, fullgraph=True, backend=lambda graph, _: graphs.append(graph) or graph
    )
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(attend, "_compiled_flex", lambda: compiled)
        for seed in range(4):
            pack = make_pack(seed, groups=1 + seed % 3)
            FlexPlan(pack, CPU).attend(*tensors(pack), AttentionCall(scaling=0.25))
    torch._dynamo.reset()
    assert len(graphs) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (33, None), (33, 5.0)])
def test_flex_compiled_for_the_cpu_equals_the_dense_mask(window, softcap, monkeypatch):
    from torch.nn.attention.flex_attention import flex_attention

    is_plain = window is None and softcap is None
    if not is_plain:
        # With a window or a cap, torch 2.13's CPU template does not compile for shapes that vary.
        fixed = torch.compile(flex_attention, dynamic=False, fullgraph=True)
        monkeypatch.setattr(attend, "_compiled_flex", lambda: fixed)
    call = AttentionCall(scaling=0.25, window=window, softcap=softcap)
    for seed in range(3 if is_plain else 1):
        pack = make_pack(seed, groups=1 + seed)
        q, k, v = tensors(pack, width=32)
        with torch.inference_mode():
            out = FlexPlan(pack, CPU).attend(q, k, v, call)
        torch.testing.assert_close(out[: pack.num_unique], dense(pack, q, k, v, call), atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_training_with_dropout_uses_a_back_end_that_computes_it(dropout, tiny_reward, monkeypatch):
    monkeypatch.setattr(attend, "_compiled_flex", lambda: reference_flex)
    monkeypatch.setattr(model, "backend_ladder", lambda device, invariant=False: ("flex", "blocks"))
    told = [f"train.dropout={dropout}", "precision=float32", "device=cpu"]
    config = read_config(None, told, {"model": str(tiny_reward), "data": ["d"], "out": "o"}).config
    net = load_net(config, engine=None)
    assert net.backend == ("blocks" if dropout else "flex"), net.notes
    note = "attention back end 'blocks' is used: flex does not compute dropout, and train.dropout is set"
    assert (note in net.notes) is bool(dropout)
    net.train()
    assert net(pack_of([list(range(7, 30))])).isfinite().all()


def test_a_softcap_is_not_compared_with_attention_that_leaves_it_out(tmp_path):
    from transformers import AutoModelForSequenceClassification

    folder = save_model(tmp_path / "gemma2", "gemma2")
    hf = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
    hf.config._attn_implementation_internal = "sdpa"  # what transformers 5.17 chooses
    net = RewardNet(hf, None, Checkpoint(folder=folder, config={}, tensors={}, head="score.weight"))
    net.choose_backend(only="blocks")
    assert (net.backend, net.notes) == ("blocks", [])
    with net.plain_attention() as plain:
        assert plain.config._attn_implementation == "eager"
