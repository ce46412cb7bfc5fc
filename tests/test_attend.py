"""attend.py: every back end that runs here against one dense mask, forward and backward."""

import numpy as np
import pytest
import torch

from plaudit import attend
from plaudit.attend import AlignedPlan, AttentionCall, BlockPlan, visible_TT
from plaudit.pack import PackSettings, build_packs
from plaudit.tree import build_tree

PLANS = {"blocks": BlockPlan, "aligned": AlignedPlan}


def make_pack(seed=0, groups=3, deepest=3):
    """Groups with ragged completions that share at several depths; one completion is a prefix of another."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(groups):
        trunk = rng.integers(0, 99, rng.integers(10, 230)).astype(np.int32)
        row = [trunk]
        for _ in range(4):
            for _ in range(deepest):
                base = row[rng.integers(len(row))]
                tail = rng.integers(0, 99, rng.integers(1, 70)).astype(np.int32)
                row.append(np.concatenate([base[: rng.integers(1, len(base) + 1)], tail]))
        rows.append(row)
    [pack] = build_packs(rows, PackSettings(budget=20_000))
    return pack


def dense(pack, q, k, v, call):
    """Softmax over one T x T mask: what all back ends have to equal."""
    per = q.shape[0] // k.shape[0]
    seen = torch.from_numpy(visible_TT(pack.tree, call.window))
    n = pack.num_unique
    logits = q[:, :n] @ k[:, :n].repeat_interleave(per, 0).transpose(1, 2) * call.scaling
    if call.softcap:
        logits = torch.tanh(logits / call.softcap) * call.softcap
    weights = logits.masked_fill(~seen, -torch.inf).softmax(-1)
    return (weights @ v[:, :n].repeat_interleave(per, 0)).transpose(0, 1)


def tensors(pack, heads=4, kv=2, width=16, grad=False):
    generator = torch.Generator().manual_seed(7)
    shapes = ((heads, pack.size, width), (kv, pack.size, width), (kv, pack.size, width))
    return [torch.randn(*s, generator=generator).requires_grad_(grad) for s in shapes]


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("window", [None, 1, 33, 200])
@pytest.mark.parametrize("name", PLANS)
def test_forward_equals_the_dense_mask(name, window, softcap):
    pack = make_pack()
    call = AttentionCall(scaling=0.25, window=window, softcap=softcap)
    q, k, v = tensors(pack)
    with torch.inference_mode():
        out = PLANS[name](pack, q.device).attend(q, k, v, call)
    torch.testing.assert_close(out[: pack.num_unique], dense(pack, q, k, v, call), atol=2e-6, rtol=1e-5)
    assert not out[pack.num_unique :].any()


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("window", [None, 33])
def test_gradients_equal_the_dense_mask(window, softcap):
    pack = make_pack(1)
    call = AttentionCall(scaling=0.25, window=window, softcap=softcap)
    ours, twin = tensors(pack, grad=True), tensors(pack, grad=True)
    weights = torch.randn(pack.num_unique, 4, 16, generator=torch.Generator().manual_seed(3))
    (BlockPlan(pack, ours[0].device).attend(*ours, call)[: pack.num_unique] * weights).sum().backward()
    (dense(pack, *twin, call) * weights).sum().backward()
    for a, b in zip(ours, twin, strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (3, 1)])
def test_grouped_heads_fold_into_rows(heads):
    pack = make_pack(2)
    call = AttentionCall(scaling=0.3)
    q, k, v = tensors(pack, *heads)
    with torch.inference_mode():
        out = BlockPlan(pack, q.device).attend(q, k, v, call)
    torch.testing.assert_close(out[: pack.num_unique], dense(pack, q, k, v, call), atol=2e-6, rtol=1e-5)


def test_aligned_rows_have_one_bit_pattern_whatever_lies_beside_them():
    rng = np.random.default_rng(5)
    trunk = rng.integers(0, 99, 150).astype(np.int32)
    mine = np.concatenate([trunk, rng.integers(0, 99, 90).astype(np.int32)])
    table = torch.randn(99 * 400, 8, 3, 16, generator=torch.Generator().manual_seed(0)).bfloat16()

    def output(rows):
        [pack] = build_packs([rows], PackSettings(budget=2048, fixed=True))
        where = np.zeros(pack.size, np.int64)
        where[: pack.num_unique] = pack.tree.tokens_T.astype(np.int64) * 400 + pack.tree.positions_T()
        x = table[torch.from_numpy(where)]  # content of a token and its position, as a model's first layer has it
        q, k, v = x[:, :4, 0].transpose(0, 1), x[:, :2, 1].transpose(0, 1), x[:, :2, 2].transpose(0, 1)
        with torch.inference_mode():
            out = AlignedPlan(pack, q.device).attend(q, k, v, AttentionCall(scaling=0.25))
        return out[pack.tree.leaf_K[pack.members_L.index((0, 0))]]

    alone = output([mine])
    for seed in range(20):
        other = np.random.default_rng(seed)
        rows = [mine]
        for _ in range(other.integers(1, 6)):
            cut = int(other.integers(0, len(mine)))
            rows.append(np.concatenate([mine[:cut], other.integers(0, 99, other.integers(1, 200)).astype(np.int32)]))
        assert torch.equal(output(rows), alone)


def test_the_dense_mask_is_the_path():
    tree = build_tree([np.asarray(x, np.int32) for x in ([1, 2, 3], [1, 2, 4, 5])], min_shared=1)
    assert visible_TT(tree).astype(int).tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 1],
    ]


def test_a_layer_without_a_pack_is_refused():
    x = torch.zeros(1, 1, 2, 4)
    with pytest.raises(attend.InternalError, match="without a pack"):
        attend.attend_pack(torch.nn.Module(), x, x, x, None)
    with pytest.raises(attend.InternalError, match="attention sinks are not computed on trees"):
        attend.attend_pack(torch.nn.Module(), x, x, x, None, plaudit_plan=BlockPlan(make_pack(), x.device), s_aux=x)


def test_each_device_has_its_ladder_and_invariance_has_one_rung():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert attend.backend_ladder(cpu) == ("blocks",)
    assert attend.backend_ladder(cuda) == ("varlen", "flex", "blocks")
    assert attend.backend_ladder(cpu, invariant=True) == attend.backend_ladder(cuda, invariant=True) == ("aligned",)
    assert {*attend.backend_ladder(cuda), "aligned"} == attend.BACKENDS.keys()


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ({}, AttentionCall(scaling=0.25)),
        ({"scaling": None, "dropout": None}, AttentionCall(scaling=0.25)),
        ({"scaling": 0.7}, AttentionCall(scaling=0.7)),
        (
            {"scaling": 2.0, "sliding_window": 33, "softcap": 5.0, "dropout": 0.1, "s_aux": None},
            AttentionCall(scaling=2.0, window=33, softcap=5.0, dropout=0.1),
        ),
    ],
)
def test_what_a_layer_asks_for_reaches_the_plan(told, wanted):
    class Recorder:
        def attend(self, *given):
            self.given = given
            return torch.zeros(5, 4, 16)

    q, k, v = torch.randn(1, 4, 5, 16), torch.randn(1, 2, 5, 16), torch.randn(1, 2, 5, 16)
    plan = Recorder()
    out, weights = attend.attend_pack(torch.nn.Module(), q, k, v, None, plaudit_plan=plan, **told)
    assert out.shape == (1, 5, 4, 16) and weights is None
    *tensors, call = plan.given
    assert call == wanted
    assert all(torch.equal(x[None], y) for x, y in zip(tensors, (q, k, v), strict=True))
