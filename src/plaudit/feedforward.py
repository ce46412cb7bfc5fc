"""Feed-forward blocks with nothing left over: the gate fused into its product, and the last block at the leaves only.

Stands above `model`. Two savings that need no change to a model's code, for the gated blocks that most families share
(`down(act(gate(x)) * up(x))`): on a CPU without gradients the activation and the product of the two halves ride in the
matrix products; and since a score reads one token, the last block of all is computed for those tokens alone, with or
without gradients. Invariant: what comes out at the leaves equals the block as its maker wrote it, to rounding; the
model's self-test compares exactly that, with `as_written` on its other side.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

FUSED = {
    "SiLUActivation": ("swish", ""),
    "SiLU": ("swish", ""),
    "GELUTanh": ("gelu", "tanh"),
    "PytorchGELUTanh": ("gelu", "tanh"),
}
"""Activations that the CPU's matrix library applies while it writes a product."""


# Decoder layers call their feed-forward block with the hidden states alone, so what one forward asks of it cannot
# travel as an argument. A context variable holds it for the calling thread; on the module, it would be every thread's.
# Each value names its owner, because a thread may run several models.
_LEAVES: ContextVar[tuple[LeafFeedForward, Tensor] | None] = ContextVar("plaudit_leaves", default=None)
_AS_WRITTEN: ContextVar[frozenset[LeafFeedForward]] = ContextVar("plaudit_as_written", default=frozenset())


class LeafFeedForward:
    """The feed-forward blocks of one backbone, taken over; `at_leaves` says which tokens the last one is for."""

    def __init__(self, backbone: nn.Module) -> None:
        self.blocks = [m for m in backbone.modules() if _is_gated(m)]
        layers = getattr(backbone, "layers", None)
        last = getattr(layers[-1], "mlp", None) if isinstance(layers, nn.ModuleList) and len(layers) else None
        self.last = last if any(last is block for block in self.blocks) else None
        for block in self.blocks:
            block.forward = self._taken_over(block, block.forward)

    @contextlib.contextmanager
    def at_leaves(self, leaf_L: Tensor, *, are_unique: bool = False) -> Iterator[None]:
        """For the calling thread: hidden states are read at these tokens and nowhere else.

        Say `are_unique` where that is known: on a GPU, finding out would wait for all work that is queued there.
        """
        # A token that is read twice is computed once: a scatter of two would count its gradient twice.
        before = _LEAVES.set((self, leaf_L if are_unique else torch.unique(leaf_L)))
        try:
            yield
        finally:
            _LEAVES.reset(before)

    @contextlib.contextmanager
    def as_written(self) -> Iterator[None]:
        """For the calling thread: every block runs its own code, as the slow reference."""
        before = _AS_WRITTEN.set(_AS_WRITTEN.get() | {self})
        try:
            yield
        finally:
            _AS_WRITTEN.reset(before)

    def _taken_over(self, block: Any, original: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        activation = FUSED.get(type(block.act_fn).__name__)

        def compute(x: Tensor) -> Tensor:
            if activation is None or torch.is_grad_enabled() or not _can_fuse(block, x):
                return original(x)
            return _compute_fused(block, x, *activation)

        def forward(x: Tensor) -> Tensor:
            if self in _AS_WRITTEN.get():
                return original(x)
            owner, leaves = _LEAVES.get() or (None, None)
            if block is not self.last or owner is not self or leaves is None or len(leaves) * 2 > x.shape[1]:
                return compute(x)
            return torch.zeros_like(x).index_copy(1, leaves, compute(x.index_select(1, leaves)))

        return forward


def _is_gated(module: nn.Module) -> bool:
    names = ("gate_proj", "up_proj", "down_proj")
    return all(isinstance(getattr(module, name, None), nn.Linear) for name in names) and hasattr(module, "act_fn")


def _can_fuse(block: Any, x: Tensor) -> bool:
    """Whether the matrix library takes this block as it stands now: a projection inside a LoRA layer is not plain."""
    plain = all(
        # ZeRO-3 leaves a weight of no dimension in the place of one that is elsewhere until its layer is called.
        type(layer) is nn.Linear and layer.weight.dtype is x.dtype and layer.weight.ndim == 2
        for layer in (block.gate_proj, block.up_proj)
    )
    return plain and x.device.type == "cpu" and x.dtype is torch.bfloat16 and _has_fused_products()


@cache
def _has_fused_products() -> bool:
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _compute_fused(block: Any, x: Tensor, activation: str, algorithm: str) -> Tensor:
    gate, up = block.gate_proj, block.up_proj
    gated = torch.ops.mkldnn._linear_pointwise(x, gate.weight, gate.bias, activation, [], algorithm)
    found: Tensor = block.down_proj(torch.ops.mkldnn._linear_pointwise.binary(x, gated, up.weight, up.bias, "mul"))
    return found
