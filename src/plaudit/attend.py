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

import inspect
import sys
from collections.abc import Callable
from functools import lru_cache
from subprocess import SubprocessError
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface

from plaudit.blocks import ALIGNED, AlignedPlan, AttentionCall, BlockPlan, Segment, list_segments
from plaudit.errors import InternalError, PlauditError
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
    """FlashAttention over ragged rows: a segment's queries against keys gathered along its path.

    A path's positions run from 0 without a gap, so its keys stand in order of position, the last one beside the last
    query. That is the alignment (lower right) that the kernel's causal mask and windows assume.
    """

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
            k, v = _GatherKeys.apply(k, self.index), _GatherKeys.apply(v, self.index)
        window = (-1, 0) if call.window is None else (call.window - 1, 0)
        lengths = (self.cu_q, self.cu_k, self.max_q, self.max_k)
        # torch 2.11 groups heads without being asked and does not know the word; later versions insist on it.
        grouped: dict[str, Any] = {"enable_gqa": q.shape[1] != k.shape[1]} if _has_gqa_flag(varlen_attn) else {}
        out = varlen_attn(q, k, v, *lengths, scale=call.scaling, window_size=window, **grouped)
        assert isinstance(out, Tensor)
        return out


@lru_cache(maxsize=4)
def _has_gqa_flag(function: Callable[..., Any]) -> bool:
    return "enable_gqa" in inspect.signature(function).parameters


class _GatherKeys(torch.autograd.Function):
    """Rows of x by index. A row that many paths share gets its gradient summed in fp32.

    `index_select` would sum it in the dtype of x: in bf16 a prompt under 64 completions keeps 8 bits of 64 addends.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        """The rows."""
        ctx.save_for_backward(index)
        ctx.rows, ctx.dtype = x.shape[0], x.dtype
        return x.index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Each row's sum."""
        [index] = ctx.saved_tensors
        total = torch.zeros(ctx.rows, *grad.shape[1:], dtype=torch.float32, device=grad.device)
        return total.index_add_(0, index, grad.float()).to(ctx.dtype), None


FLEX_BLOCK = 128
"""Queries and keys a block of FlexAttention's block mask."""


def seen_until(tree: Tree) -> np.ndarray[Any, np.dtype[np.int32]]:
    """For each token, the first later token that does not see it any more.

    Segments are sorted, so those below a token follow it without a gap: query i sees key j where j <= i < the value at
    j. One comparison a pair instead of a table of all pairs of segments.
    """
    until_T = np.full(tree.num_tokens, tree.num_tokens, np.int32)
    path = np.empty(0, np.int64)
    for start, length, offset in zip(tree.starts_S, tree.lengths_S, tree.offsets_S, strict=True):
        until_T[path[offset:]] = start  # the path that the segment leaves here is closed
        path = np.concatenate([path[:offset], np.arange(start, start + length)])
    return until_T


class FlexPlan:
    """FlexAttention with block masks built once a pack, from where each token's subtree ends.

    `create_block_mask` is not used: it evaluates the mask for every pair of tokens, at 131,072 tokens 17 GB a tensor.
    """

    def __init__(self, pack: Pack, device: torch.device) -> None:
        tree, padding = pack.tree, pack.size - pack.num_unique
        until_T = np.concatenate([seen_until(tree), np.full(padding, pack.size, np.int32)])  # padding sees itself
        position_T = np.concatenate([tree.positions_T(), np.arange(padding, dtype=np.int32)])
        self.size = pack.size
        self.until_T, self.position_T = (to_device(x, device) for x in (until_T, position_T))
        self._masks: dict[int | None, Any] = {}

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
            block_mask=self.mask(call.window),
            scale=call.scaling,
            enable_gqa=q_HTD.shape[0] != k_NTD.shape[0],
        )
        return out[0].transpose(0, 1)

    def mask(self, window: int | None) -> Any:
        """The block mask of a window (None is all), made when a layer first asks for it."""
        from torch.nn.attention.flex_attention import BlockMask

        if window not in self._masks:
            until_T, position_T = self.until_T, self.position_T

            def sees(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
                seen = (j <= i) & (i < until_T[j])
                return seen if window is None else seen & (position_T[i] - position_T[j] < window)

            some, full = self._blocks(window)
            self._masks[window] = BlockMask.from_kv_blocks(
                *_list_blocks(some & ~full),
                *_list_blocks(full),
                BLOCK_SIZE=FLEX_BLOCK,
                mask_mod=sees,
                seq_lengths=(self.size, self.size),
            )
        return self._masks[window]

    def _blocks(self, window: int | None) -> tuple[Tensor, Tensor]:
        """(query blocks, key blocks) where any pair may be seen, and where every pair is."""
        count = -(-self.size // FLEX_BLOCK)
        rest = count * FLEX_BLOCK - self.size

        def by_block(x_T: Tensor, beyond: int) -> Tensor:
            return torch.nn.functional.pad(x_T, (0, rest), value=beyond).view(count, FLEX_BLOCK)

        # What lies beyond the pack is seen by nobody, so the last block is never full.
        until = by_block(self.until_T, 0)
        first = torch.arange(count, device=until.device, dtype=until.dtype) * FLEX_BLOCK
        below, own = first[:, None] > first[None], first[:, None] == first[None]
        some = (below & (until.amax(1)[None] > first[:, None])) | own
        full = below & (until.amin(1)[None] >= first[:, None] + FLEX_BLOCK)
        if window is not None:
            low, high = by_block(self.position_T, 1 << 30).amin(1), by_block(self.position_T, -1).amax(1)
            some &= low[:, None] - high[None] < window
            full &= high[:, None] - low[None] < window
        return some, full


def _list_blocks(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks each row chooses, and which, as FlexAttention wants them: one batch, one head, int32."""
    order = chosen.int().argsort(dim=1, descending=True, stable=True)
    return chosen.sum(1, dtype=torch.int32)[None, None], order.int()[None, None].contiguous()


FLEX_VARIANTS = 64
"""Compiled variants a process may hold: windows, softcaps, dtypes, with and without gradients, of several models."""


@lru_cache(maxsize=1)
def _compiled_flex() -> Callable[..., Tensor]:
    import torch._dynamo
    from torch.nn.attention.flex_attention import flex_attention

    # At its limit (8) the compiler runs a function uncompiled, and FlexAttention then makes all T x T scores. With
    # fullgraph it raises instead, which is seen.
    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, FLEX_VARIANTS)
    return torch.compile(flex_attention, dynamic=True, fullgraph=True)  # type: ignore[no-any-return, unused-ignore]


WITHOUT_DROPOUT = ("varlen", "flex")
"""Back ends that cannot train with dropout."""

BACKENDS: dict[str, Callable[[Pack, torch.device], AttentionPlan]] = {
    "varlen": VarlenPlan,
    "flex": FlexPlan,
    "blocks": BlockPlan,
    ALIGNED: AlignedPlan,
}


def kernel_errors() -> tuple[type[Exception], ...]:
    """What a back end that does not work here may raise, also where its kernel cannot be compiled (no C compiler)."""
    triton: Any = sys.modules.get("triton.errors")  # imported by the compiler alone, if at all
    compiling = (AssertionError, OSError, SubprocessError, *((triton.TritonError,) if triton else ()))
    return (RuntimeError, ValueError, TypeError, KeyError, ImportError, PlauditError, *compiling)


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
