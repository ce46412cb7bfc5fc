"""Every family: what the tree gives, scores and gradients, against one completion at a time in plain transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from plaudit import feedforward
from plaudit.model import RewardNet
from plaudit.pack import Pack, PackSettings, build_packs
from tiny import CASES, FAMILIES, Row

FP32 = 1e-5
"""Relative to the largest magnitude of what is compared: scores among scores, a gradient within its own tensor."""

BF16 = 0.06
"""How far bf16 may be from fp32, relative to the largest score; wide random weights show rounding at its worst."""

Nets = Callable[..., RewardNet]
Twins = Callable[..., Any]
families = pytest.mark.parametrize("family", FAMILIES)
cases = pytest.mark.parametrize("case", CASES)


def one_pack(groups: list[list[Row]]) -> Pack:
    [pack] = build_packs(groups, PackSettings(budget=20_000))
    return pack


def score_alone(model: Any, groups: list[list[Row]], pack: Pack) -> Tensor:
    """One completion at a time: no padding, no mask, no sharing."""
    rows = (torch.from_numpy(groups[g][k].astype(np.int64))[None] for g, k in pack.members_L)
    return torch.stack([model(input_ids=row).logits[0, 0] for row in rows])


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest one, relative to the largest magnitude of theirs."""
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(torch.finfo(torch.float32).tiny))


@families
def test_the_back_end_is_the_one_that_the_family_should_have(family: str, net_of: Nets) -> None:
    net = net_of(family)
    assert net.backend == FAMILIES[family].backend, net.reason
    if net.backend == "plain":
        assert net.reason == "a bidirectional encoder, whose prompt sees the completion"
        assert net.notes == [f"attention back end 'plain' is used: {net.reason}"]
    else:
        assert (net.reason, net.notes) == ("the self-test agrees", [])


@cases
@families
def test_scores_and_gradients_are_those_of_one_completion_alone(
    family: str, case: str, net_of: Nets, twin_of: Twins
) -> None:
    net, twin, groups = net_of(family), twin_of(family), CASES[case]()
    pack = one_pack(groups)
    weight_L = torch.randn(len(pack.members_L), generator=torch.Generator().manual_seed(1))
    net.train()
    twin.train()
    for model in (net, twin):
        model.zero_grad()
    try:
        ours, theirs = net(pack), score_alone(twin, groups, pack)
        for scores in (ours, theirs):
            (scores * weight_L + scores**2).sum().backward()
    finally:
        net.eval()
        twin.eval()
    assert theirs.detach().abs().max() > 0.05, "scores near zero would prove nothing"
    found = difference(ours.detach(), theirs.detach())
    assert found <= FP32, f"scores with a graph differ by {found:.1e}"
    with torch.inference_mode():
        found = difference(net(pack), theirs.detach())
    assert found <= FP32, f"scores without a graph differ by {found:.1e}"
    mine, wanted = dict(net.hf.named_parameters()), dict(twin.named_parameters())
    assert mine.keys() == wanted.keys()
    assert {n for n, p in mine.items() if p.grad is None} == {n for n, p in wanted.items() if p.grad is None} == set()
    differences = {name: difference(mine[name].grad, p.grad) for name, p in wanted.items()}  # type: ignore[arg-type]
    worst = max(differences, key=differences.__getitem__)
    assert differences[worst] <= FP32, f"the gradient of {worst} differs by {differences[worst]:.1e}"


@families
def test_scores_of_the_aligned_back_end_are_those_of_one_completion_alone(
    family: str, net_of: Nets, twin_of: Twins
) -> None:
    net, groups = net_of(family, invariant=True), CASES["together"]()
    assert net.backend == ("plain" if FAMILIES[family].backend == "plain" else "aligned"), net.reason
    packs = build_packs(groups, PackSettings(budget=512, fixed=True))
    assert len(packs) > 1
    for pack in packs:
        with torch.inference_mode():
            found = difference(net(pack), score_alone(twin_of(family), groups, pack))
        assert found <= FP32, f"scores differ by {found:.1e}"


@families
def test_bf16_is_no_further_from_fp32_than_twice_plain_bf16(
    family: str, net_of: Nets, twin_of: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, groups = net_of(family, "bfloat16"), CASES["together"]()
    assert net.backend == FAMILIES[family].backend, net.reason
    assert (net.dtype, net.head.weight.dtype) == (torch.bfloat16, torch.float32)
    pack, fused = one_pack(groups), []
    original = feedforward._compute_fused
    monkeypatch.setattr(feedforward, "_compute_fused", lambda *args: fused.append(args) or original(*args))
    with torch.inference_mode():
        exact = score_alone(twin_of(family), groups, pack)
        plain = score_alone(twin_of(family, torch.bfloat16), groups, pack).float()
        ours = net(pack)
    scale = exact.abs().max()
    our_error, plain_error = (float((x - exact).square().mean().sqrt() / scale) for x in (ours, plain))
    assert our_error <= 2 * plain_error, f"ours is {our_error:.1e} from fp32, plain bf16 {plain_error:.1e}"
    assert difference(ours, exact) <= BF16, f"{difference(ours, exact):.1e} from fp32"
    can_fuse = FAMILIES[family].fused and feedforward._has_fused_products()
    assert len(fused) == (len(net._feedforward.blocks) if can_fuse else 0)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.fused])
def test_the_last_feed_forward_is_computed_at_the_leaves_only(family: str, grad: bool, net_of: Nets) -> None:
    net, pack = net_of(family), one_pack(CASES["identical"]())
    seen: list[int] = []
    hooks = [
        block.down_proj.register_forward_hook(lambda _m, _i, out: seen.append(out.shape[1]))  # type: ignore[union-attr, operator]
        for block in net._feedforward.blocks
    ]
    with torch.set_grad_enabled(grad):
        net(pack)
    for hook in hooks:
        hook.remove()
    assert seen == [pack.size] * (len(hooks) - 1) + [len(set(pack.tree.leaf_K.tolist()))]


@families
def test_a_saved_folder_gives_plain_transformers_the_same_scores(
    family: str, net_of: Nets, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from transformers import AutoModelForSequenceClassification

    net, groups = net_of(family), CASES["five"]()
    folder = net.save(tmp_path_factory.mktemp("saved") / family)
    model, found = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(found[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys")), found
    pack = one_pack(groups)
    with torch.inference_mode():
        assert difference(net(pack), score_alone(model, groups, pack)) <= FP32
    again = RewardNet.load(folder, dtype="float32", device="cpu")
    with torch.inference_mode():
        assert torch.equal(again(pack), net(pack))
