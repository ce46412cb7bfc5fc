"""A pack becomes attention: each segment's queries see the keys of their path and themselves, and nothing else.

Third room of the waist, and the first with torch. The model code stays untouched: transformers hands q, k and v of the
whole pack to one registered function (`ATTENTION`), which passes them to the back end's plan. Plans are built once a
pack and used by every layer.

    blocks     matrix products a segment, softmax in fp32 inside; any device, with gradients      (the default on a CPU)
    aligned    blocks of one shape a position, bit-identical whatever lies beside them            (`--invariant`)
    varlen     FlashAttention over keys gathered along each path                                  (CUDA)
    flex       FlexAttention with a block mask from the tree                                      (CUDA, softcap)

Invariant: back ends differ in speed and rounding only; `visible_TT`, one dense mask, is the slow twin of them all.
Letters: H heads, N key-value heads, P = H/N, T tokens, D head size, S segments. Query rows are laid out (T, P) a
key head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface

from plaudit.blocks import ALIGNED, AlignedPlan, AttentionCall, BlockPlan, Segment, list_segments
from plaudit.errors import InternalError
from plaudit.memory import to_device
from plaudit.pack import Pack
from plaudit.tree import Tree

ATTENTION = "plaudit"
"""The name under which transformers knows our attention function."""


class AttentionPlan(Protocol):
    """One pack's attention on one back end."""

    def attend(self, q_HTD: Tensor, k_NTD: Tensor, v_NTD: Tensor, call: AttentionCall) -> Tensor:
        """Attention output as (T, H, D)."""
        ...


def visible_TT(tree: Tree, window: int | None = None) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which key each query sees, as one dense mask: the slow twin of every back end."""
    seen = np.zeros((tree.num_tokens, tree.num_tokens), bool)
    positions = tree.positions_T()
    for s, (start, length) in enumerate(zip(tree.starts_S, tree.lengths_S, strict=True)):
        for a, b in tree.path(s):
            seen[start : start + length, a:b] = True
        seen[start : start + length, start : start + length] = np.tri(length, dtype=bool)
    return seen if window is None else seen & (positions[:, None] - positions[None] < window)


class VarlenPlan:
    """FlashAttention over ragged rows: a segment's queries against keys gathered along its path."""

    def __init__(self, pack: Pack, device: torch.device) -> None:
        segments = list_segments(pack.tree)
        if pack.size > pack.num_unique:  # padding sees itself
            segments.append(Segment(pack.num_unique, pack.size, 0, []))
        runs = [[*s.runs, (s.start, s.stop)] for s in segments]
        index = np.concatenate([np.arange(a, b) for path in runs for a, b in path])
        q_lengths = [s.stop - s.start for s in segments]
        k_lengths = [sum(b - a for a, b in path) for path in runs]
        self.is_shared = any(s.runs for s in segments)
        self.index = to_device(index, device)
        self.cu_q, self.cu_k = (to_device(np.cumsum([0, *x], dtype=np.int32), device) for x in (q_lengths, k_lengths))
        self.max_q, self.max_k = max(q_lengths), max(k_lengths)

    def attend(self, q_HTD: Tensor, k_NTD: Tensor, v_NTD: Tensor, call: AttentionCall) -> Tensor:
        """Attention output as (T, H, D)."""
        from torch.nn.attention.varlen import varlen_attn

        if call.softcap or call.dropout:
            raise InternalError("the varlen back end came upon a softcap or dropout, which it does not compute")
        q, k, v = (x.transpose(0, 1).contiguous() for x in (q_HTD, k_NTD, v_NTD))
        if self.is_shared:
            k, v = k.index_select(0, self.index), v.index_select(0, self.index)
        window = (-1, 0) if call.window is None else (call.window - 1, 0)
        lengths = (self.cu_q, self.cu_k, self.max_q, self.max_k)
        out = varlen_attn(
            q, k, v, *lengths, scale=call.scaling, window_size=window, enable_gqa=q.shape[1] != k.shape[1]
        )
        assert isinstance(out, Tensor)
        return out


@dataclass(slots=True)
class FlexPlan:
    """FlexAttention with block masks built once a pack from how far each segment sees into each other one."""

    pack: Pack
    device: torch.device
    _masks: dict[int | None, Any] = field(default_factory=dict)

    def attend(self, q_HTD: Tensor, k_NTD: Tensor, v_NTD: Tensor, call: AttentionCall) -> Tensor:
        """Attention output as (T, H, D)."""
        if call.dropout:
            raise InternalError("the flex back end came upon dropout, which it does not compute")
        cap = call.softcap or 1.0

        def capped(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return torch.tanh(score / cap) * cap

        out = _compiled_flex()(
            q_HTD[None],
            k_NTD[None],
            v_NTD[None],
            score_mod=capped if call.softcap else None,
            block_mask=self._mask(call.window),
            scale=call.scaling,
            enable_gqa=q_HTD.shape[0] != k_NTD.shape[0],
        )
        return out[0].transpose(0, 1)

    def _mask(self, window: int | None) -> Any:
        from torch.nn.attention.flex_attention import create_block_mask

        if window not in self._masks:
            segment_T, position_T, reach_SS = self._reach()

            def sees(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
                on_path = position_T[j] < reach_SS[segment_T[i], segment_T[j]]
                seen = on_path & (position_T[j] <= position_T[i])
                return seen if window is None else seen & (position_T[i] - position_T[j] < window)

            size = self.pack.size
            self._masks[window] = create_block_mask(sees, None, None, size, size, device=str(self.device))
        return self._masks[window]

    def _reach(self) -> tuple[Tensor, Tensor, Tensor]:
        """Segment and position of each token, and up to which position segment s sees segment t."""
        tree, padding = self.pack.tree, self.pack.size - self.pack.num_unique
        reach = np.zeros((tree.num_segments + 1, tree.num_segments + 1), np.int32)
        np.fill_diagonal(reach, np.iinfo(np.int32).max)
        owner = np.repeat(np.arange(tree.num_segments), tree.lengths_S)
        positions = tree.positions_T()
        for s in range(tree.num_segments):
            for a, b in tree.path(s):
                reach[s, owner[a]] = positions[b - 1] + 1
        owner_T = np.concatenate([owner, np.full(padding, tree.num_segments)])
        position_T = np.concatenate([positions, np.arange(padding)])
        arrays = (owner_T, position_T, reach)
        owner_t, position_t, reach_t = (to_device(x.astype(np.int32), self.device) for x in arrays)
        return owner_t, position_t, reach_t


@lru_cache(maxsize=1)
def _compiled_flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)  # type: ignore[no-any-return, unused-ignore]


BACKENDS: dict[str, Callable[[Pack, torch.device], AttentionPlan]] = {
    "varlen": VarlenPlan,
    "flex": FlexPlan,
    "blocks": BlockPlan,
    ALIGNED: AlignedPlan,
}


def backend_ladder(device: torch.device, *, invariant: bool = False) -> tuple[str, ...]:
    """Back ends to try on a device, fastest first; the model's self-test decides which one is trusted."""
    if invariant:
        return (ALIGNED,)
    return ("varlen", "flex", "blocks") if device.type == "cuda" else ("blocks",)


def attend_pack(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **call: Any
) -> tuple[Tensor, None]:
    """The attention function that transformers calls in every layer: (1, heads, T, D) in, (1, T, heads, D) out."""
    plan: AttentionPlan | None = call.get("plaudit_plan")
    if plan is None or mask is not None or query.shape[0] != 1:
        raise InternalError("attention was called without a pack; score through RewardModel.forward")
    if call.get("s_aux") is not None:
        raise InternalError("attention sinks are not computed on trees")
    asked = AttentionCall(
        scaling=call.get("scaling") or query.shape[-1] ** -0.5,
        window=call.get("sliding_window"),
        softcap=call.get("softcap"),
        dropout=call.get("dropout") or 0.0,
    )
    return plan.attend(query[0], key[0], value[0], asked)[None], None


# No mask function goes with it: transformers then builds no mask. With one it would first look for packed sequences in
# the positions, and on a GPU that waits for everything that is queued.
AttentionInterface.register(ATTENTION, attend_pack)
