"""varlen and flex against a dense mask on the device, forward and backward: head sizes, groups, windows, softcap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from plaudit.attend import BACKENDS, AttentionCall, FlexPlan, visible_TT
from plaudit.pack import Pack, PackSettings, build_packs

FORWARD, BACKWARD = 0.01, 0.02
"""Largest error in bf16, as a share of the norm of what is compared; rounding alone is about 0.003."""

FP32 = 1e-4


def make_pack(*, groups: int = 3, completions: int = 6, trunk: int = 300, tail: int = 90, seed: int = 0) -> Pack:
    """Groups whose completions leave the prompt, and each other, at several depths."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(groups):
        row = [rng.integers(0, 999, int(rng.integers(trunk // 2, trunk))).astype(np.int32)]
        for _ in range(completions):
            base = row[int(rng.integers(len(row)))]
            own = rng.integers(0, 999, int(rng.integers(1, tail))).astype(np.int32)
            row.append(np.concatenate([base[: int(rng.integers(len(base) // 2, len(base) + 1))], own]))
        rows.append(row)
    [pack] = build_packs(rows, PackSettings(budget=1 << 20))
    return pack


def make_tensors(pack: Pack, heads: int, kv: int, width: int, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """q, k, v; wide enough that attention is not nearly uniform."""
    generator = torch.Generator().manual_seed(width + heads)
    shapes = [(n, pack.size, width) for n in (heads, kv, kv)]
    return [
        (torch.randn(*s, generator=generator) * (1.0 if n == 2 else 1.3)).to(device, dtype).requires_grad_()
        for n, s in enumerate(shapes)
    ]


def dense(pack: Pack, q: Tensor, k: Tensor, v: Tensor, call: AttentionCall) -> Tensor:
    """Softmax over one T x T mask, in fp32."""
    q, k, v = (x.float() for x in (q, k, v))
    n, per = pack.num_unique, q.shape[0] // k.shape[0]
    seen = torch.from_numpy(visible_TT(pack.tree, call.window)).to(q.device)
    logits = q[:, :n] @ k[:, :n].repeat_interleave(per, 0).transpose(1, 2) * call.scaling
    if call.softcap:
        logits = torch.tanh(logits / call.softcap) * call.softcap
    return (logits.masked_fill(~seen, -torch.inf).softmax(-1) @ v[:, :n].repeat_interleave(per, 0)).transpose(0, 1)


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Error as a share of the norm; where that is nearly zero (gradients under a window of 1), of 1% an element."""
    ours, theirs = ours.detach().float(), theirs.detach().float()
    return float((ours - theirs).norm() / theirs.norm().clamp_min(0.01 * theirs.numel() ** 0.5))


def compare(
    backend: str, pack: Pack, call: AttentionCall, tensors: list[Tensor], bounds: tuple[float, float]
) -> dict[str, float]:
    """Errors of the output and of each gradient; none above its bound."""
    [device] = {x.device for x in tensors}
    twins = [x.detach().float().requires_grad_() for x in tensors]
    out = BACKENDS[backend](pack, device).attend(*tensors, call)
    assert out.shape == (pack.size, tensors[0].shape[0], tensors[0].shape[2]) and out.dtype == tensors[0].dtype
    wanted = dense(pack, *twins, call)
    weights = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(3)).to(device, out.dtype)
    (out[: pack.num_unique] * weights).sum().backward()
    (wanted * weights.float()).sum().backward()
    errors = {"out": relative(out[: pack.num_unique], wanted)}
    for name, x, twin in zip("qkv", tensors, twins, strict=True):
        assert x.grad is not None and twin.grad is not None
        errors[name] = relative(x.grad, twin.grad)
    difference = out.detach()[: pack.num_unique].float() - wanted.detach()
    by_row = difference.flatten(1).norm(dim=1) / wanted.detach().flatten(1).norm(dim=1)
    errors["worst row"] = float(by_row.max())
    limits = {"out": bounds[0], "worst row": 5 * bounds[0]} | dict.fromkeys("qkv", bounds[1])
    assert all(errors[name] <= limits[name] for name in errors), errors
    return errors


@pytest.mark.parametrize("window", [None, 1, 100])
@pytest.mark.parametrize(("heads", "kv"), [(8, 2), (4, 4)])
@pytest.mark.parametrize("width", [64, 96, 128, 256])
def test_varlen_equals_the_dense_mask(
    width: int, heads: int, kv: int, window: int | None, device: torch.device
) -> None:
    pack = make_pack()
    call = AttentionCall(scaling=width**-0.5, window=window)
    compare("varlen", pack, call, make_tensors(pack, heads, kv, width, device, torch.bfloat16), (FORWARD, BACKWARD))


# Each combination is compiled anew, forward and backward, so there are few.
@pytest.mark.parametrize(
    ("width", "heads", "kv", "window", "softcap"),
    [(64, 8, 2, None, None), (96, 4, 4, 100, None), (128, 8, 2, 100, 30.0), (256, 8, 4, None, 50.0)],
)
def test_flex_equals_the_dense_mask(
    width: int, heads: int, kv: int, window: int | None, softcap: float | None, device: torch.device
) -> None:
    call = AttentionCall(scaling=width**-0.5, window=window, softcap=softcap)
    for seed, groups in ((0, 3), (1, 1)):  # a second size must not need another compilation
        pack = make_pack(seed=seed, groups=groups)
        compare("flex", pack, call, make_tensors(pack, heads, kv, width, device, torch.bfloat16), (FORWARD, BACKWARD))


def test_flex_in_fp32_equals_the_dense_mask(device: torch.device) -> None:
    pack = make_pack()
    compare(
        "flex", pack, AttentionCall(scaling=0.125), make_tensors(pack, 8, 2, 64, device, torch.float32), (FP32, FP32)
    )


def test_varlen_refuses_fp32(device: torch.device) -> None:
    pack = make_pack()
    with pytest.raises(RuntimeError, match="fp16"):
        plan = BACKENDS["varlen"](pack, device)
        plan.attend(*make_tensors(pack, 8, 2, 64, device, torch.float32), AttentionCall(scaling=0.125))


def test_gradients_of_a_prompt_under_64_completions(device: torch.device) -> None:
    rng = np.random.default_rng(0)
    prompt = rng.integers(0, 999, 200).astype(np.int32)
    row = [np.concatenate([prompt, rng.integers(0, 999, 20).astype(np.int32)]) for _ in range(64)]
    [pack] = build_packs([row], PackSettings(budget=1 << 20))
    tensors = make_tensors(pack, 4, 2, 64, device, torch.bfloat16)
    compare("varlen", pack, AttentionCall(scaling=0.125), tensors, (FORWARD, BACKWARD))


@pytest.mark.parametrize("backend", ["varlen", "flex"])
@pytest.mark.parametrize("window", [None, 1000])
def test_a_large_pack_equals_the_blocks_of_the_cpu_back_end(
    backend: str, window: int | None, device: torch.device, is_real: bool
) -> None:
    size = {"groups": 4, "completions": 12, "trunk": 3000, "tail": 400} if is_real else {"groups": 2, "trunk": 200}
    pack = make_pack(**size)
    call = AttentionCall(scaling=0.125, window=window)
    tensors = [x.detach() for x in make_tensors(pack, 8, 2, 64, device, torch.bfloat16)]
    with torch.inference_mode():
        out, wanted = (BACKENDS[name](pack, device).attend(*tensors, call) for name in (backend, "blocks"))
    assert relative(out[: pack.num_unique], wanted[: pack.num_unique]) <= 2 * FORWARD


def test_the_mask_of_the_largest_pack_takes_little_memory(device: torch.device, is_real: bool) -> None:
    if not is_real:
        pytest.skip("the device's memory is what is measured")
    rows: list[list[Any]] = [[np.arange(4000, dtype=np.int32) + 7 * n] for n in range(32)]
    [pack] = build_packs(rows, PackSettings(budget=131_072))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    FlexPlan(pack, device).mask(None)
    assert torch.cuda.max_memory_allocated() - before < 256 << 20
