"""feedforward.py: what it takes over gives, at the leaves, what the block as its maker wrote it gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from plaudit import feedforward
from plaudit.feedforward import FUSED, LeafFeedForward

WIDTH, INNER, TOKENS = 32, 48, 40
LEAVES = torch.tensor([39, 3, 17, 3])
has_fused = pytest.mark.skipif(not feedforward._has_fused_products(), reason="this CPU has no fused bf16 products")


class Block(nn.Module):
    """The gated block that most families share."""

    def __init__(self, activation: str = "silu", bias: bool = False) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(WIDTH, INNER, bias=bias) for _ in range(2))
        self.down_proj = nn.Linear(INNER, WIDTH, bias=bias)
        self.act_fn = ACT2FN[activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


class Layer(nn.Module):
    def __init__(self, **kind: Any) -> None:
        super().__init__()
        self.mlp = Block(**kind)


class Backbone(nn.Module):
    """Two layers, of their feed-forward blocks alone; each block's output is added to what comes by."""

    def __init__(self, **kind: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(**kind) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer.mlp(x)
        return x


def make(dtype: torch.dtype = torch.float32, **kind: Any) -> tuple[Backbone, LeafFeedForward, Tensor]:
    torch.manual_seed(0)
    backbone = Backbone(**kind).to(dtype)
    return backbone, LeafFeedForward(backbone), torch.randn(1, TOKENS, WIDTH, dtype=dtype)


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The activations of the products that were fused."""
    seen: list[str] = []
    original = feedforward._compute_fused

    def count(block: Any, x: Tensor, activation: str, algorithm: str) -> Tensor:
        seen.append(activation)
        return original(block, x, activation, algorithm)

    monkeypatch.setattr(feedforward, "_compute_fused", count)
    yield seen


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", ["silu", "gelu_pytorch_tanh", "relu"])
def test_the_leaves_are_those_of_the_plain_block(activation: str, bias: bool, fused: list[str]) -> None:
    backbone, taken, x = make(activation=activation, bias=bias)
    with torch.inference_mode():
        with taken.as_written():
            wanted = backbone(x)
        with taken.at_leaves(LEAVES):
            found = backbone(x)
    assert fused == [], "fp32 is computed as it is written"
    torch.testing.assert_close(found[:, LEAVES], wanted[:, LEAVES], rtol=1e-5, atol=1e-6)
    others = [t for t in range(TOKENS) if t not in LEAVES.tolist()]
    assert not torch.allclose(found[:, others], wanted[:, others]), "the other tokens were computed for nothing"


@has_fused
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("activation", "name"), [("silu", "swish"), ("gelu_pytorch_tanh", "gelu"), ("relu", None)])
def test_fused_products_are_as_near_to_fp32_as_the_plain_block(
    activation: str, name: str | None, bias: bool, fused: list[str]
) -> None:
    backbone, taken, x = make(torch.bfloat16, activation=activation, bias=bias)
    with torch.inference_mode():
        with taken.as_written():
            plain = backbone(x)[:, LEAVES].float()
        assert fused == []
        with taken.at_leaves(LEAVES):
            found = backbone(x)[:, LEAVES].float()
    assert fused == ([name] * 2 if name else [])
    with torch.no_grad(), taken.as_written():
        exact = backbone.float()(x.float())[:, LEAVES]
    assert (found - exact).norm() <= 1.5 * (plain - exact).norm()
    assert not torch.equal(found, exact)


def test_every_activation_that_is_fused_is_one_that_transformers_has() -> None:
    made = {type(ACT2FN[name]).__name__ for name in ("silu", "swish", "gelu_pytorch_tanh")} | {"SiLU"}
    assert made <= FUSED.keys() | {"SiLUActivation"}
    for name in ("silu", "gelu_pytorch_tanh"):
        assert type(ACT2FN[name]).__name__ in FUSED


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_those_of_the_plain_block(dtype: torch.dtype, fused: list[str]) -> None:
    backbone, taken, x = make(dtype)
    weight = torch.randn(len(LEAVES), WIDTH, dtype=dtype)
    gradients = []
    for block in (taken.as_written(), taken.at_leaves(LEAVES)):
        entry = x.clone().requires_grad_()
        backbone.zero_grad()
        with block:
            (backbone(entry)[0, LEAVES] * weight).sum().backward()
        gradients.append([entry.grad, *(p.grad.clone() for p in backbone.parameters() if p.grad is not None)])
    assert fused == [], "a fused product has no graph"
    plain, ours = gradients
    assert len(plain) == len(ours) == 7
    for a, b in zip(plain, ours, strict=True):
        assert a is not None and b is not None
        torch.testing.assert_close(
            a, b, rtol=1e-5 if dtype is torch.float32 else 0.02, atol=1e-6 if dtype is torch.float32 else 0.02
        )


def test_a_token_that_is_read_twice_is_computed_once() -> None:
    backbone, taken, x = make()
    seen: list[int] = []
    backbone.layers[-1].mlp.down_proj.register_forward_hook(lambda _m, _i, out: seen.append(out.shape[1]))  # type: ignore[union-attr, operator]
    with torch.inference_mode(), taken.at_leaves(LEAVES):
        backbone(x)
    assert seen == [3]


def test_where_most_tokens_are_leaves_all_are_computed() -> None:
    backbone, taken, x = make()
    with torch.inference_mode():
        with taken.as_written():
            wanted = backbone(x)
        with taken.at_leaves(torch.arange(TOKENS // 2 + 1)):
            torch.testing.assert_close(backbone(x), wanted)
        with taken.at_leaves(torch.arange(TOKENS // 2)):
            assert not torch.allclose(backbone(x), wanted)


def test_leaves_and_the_plain_twin_last_for_their_block_only() -> None:
    backbone, taken, x = make()
    with torch.inference_mode():
        wanted = backbone(x)
        with pytest.raises(KeyError), taken.at_leaves(LEAVES), taken.as_written():
            torch.testing.assert_close(backbone(x), wanted)
            with taken.as_written():
                pass
            torch.testing.assert_close(backbone(x), wanted)
            raise KeyError
        torch.testing.assert_close(backbone(x), wanted)


@has_fused
def test_a_projection_that_is_wrapped_is_not_fused(fused: list[str]) -> None:
    class Wrapped(nn.Linear):
        """What LoRA puts in a projection's place, in short."""

        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    backbone, taken, x = make(torch.bfloat16)
    wrapped = Wrapped(WIDTH, INNER, bias=False).bfloat16()
    backbone.layers[0].mlp.up_proj = wrapped  # type: ignore[union-attr]
    with torch.inference_mode():
        with taken.as_written():
            wanted = backbone(x)
        found = backbone(x)
        assert fused == ["swish"], "the other layer's block"
        torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.05)
        backbone.layers[0].mlp.up_proj = nn.Linear(WIDTH, INNER, bias=False)  # type: ignore[union-attr]
        with pytest.raises(RuntimeError):
            backbone(x)  # a projection of another precision is left to fail as it would have


def test_blocks_of_another_kind_are_left_alone() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up_proj, self.down_proj = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)

    for layers in (nn.ModuleList([nn.Module()]), nn.ModuleList(), None, nn.Identity()):
        backbone = Backbone()
        backbone.layers = layers  # type: ignore[assignment]
        backbone.other = Plain()
        assert (LeafFeedForward(backbone).last, LeafFeedForward(backbone).blocks) == (None, [])
    mixed = Backbone()
    mixed.layers[-1].mlp = Plain()  # type: ignore[union-attr]
    taken = LeafFeedForward(mixed)
    assert taken.last is None and len(taken.blocks) == 1
