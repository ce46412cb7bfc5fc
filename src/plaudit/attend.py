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

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface

from plaudit.errors import InternalError
from plaudit.pack import Pack
from plaudit.tree import Tree

ATTENTION = "plaudit"
"""The name under which transformers knows our attention function."""

QUERY_ROWS = 192
"""Queries a block: enough to keep the matrix products busy, few enough that their logits stay in cache."""

QUERY_STEP, KEY_STEP = 16, 32
"""Block shapes are rounded up to these: softmax is half as fast on odd widths, and every new shape is compiled once."""

ALIGNED = "aligned"
"""The back end under which every shape is a function of the completion alone."""

ALIGNMENT = 64
"""Positions a block of the aligned back end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionCall:
    """What a layer asks for beside q, k, v: scale, window (None is all), softcap (None is none), dropout."""

    scaling: float
    window: int | None = None
    softcap: float | None = None
    dropout: float = 0.0


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


@dataclass(frozen=True, slots=True)
class _Segment:
    """A segment as attention needs it: its tokens, its depth, and the runs of tokens before it on its path."""

    start: int
    stop: int
    offset: int
    runs: list[tuple[int, int]]


def _segments(tree: Tree) -> list[_Segment]:
    starts, lengths, offsets = tree.starts_S.tolist(), tree.lengths_S.tolist(), tree.offsets_S.tolist()
    return [
        _Segment(a, a + n, o, tree.path(s)) for s, (a, n, o) in enumerate(zip(starts, lengths, offsets, strict=True))
    ]


@dataclass(slots=True)
class _Staircase:
    """One strip of mask whose slices are the causal (and windowed) masks of every block shape, as bias rows."""

    width: int
    bias: Tensor

    def cut(self, offset: int, queries: int, keys: int) -> Tensor:
        """Bias for query rows whose first query sees `offset` keys before itself, over `keys` keys."""
        rows = queries * self.bias.shape[1]
        return self.bias[:queries, :, self.width - offset : self.width - offset + keys].reshape(rows, keys)


_Kind = tuple[torch.dtype, torch.device]


@lru_cache(maxsize=64)
def _staircase(queries: int, width: int, per: int, window: int | None, like: _Kind) -> _Staircase:
    """Row i of the strip sees columns up to width + i, and with a window only the last `window` of those."""
    dtype, device = like
    ahead = torch.arange(width + queries, device=device)[None] - torch.arange(queries, device=device)[:, None] - width
    hidden = ahead > 0 if window is None else (ahead > 0) | (ahead <= -window)
    strip = torch.zeros(queries, width + queries, dtype=dtype, device=device).masked_fill_(hidden, -torch.inf)
    return _Staircase(width, strip[:, None].expand(-1, per, -1))


def _round_up(n: int, to: int) -> int:
    return -(-n // to) * to


class BlockPlan:
    """Plain matrix products: a block of a segment's queries against the keys of its path, on any device."""

    def __init__(self, pack: Pack, device: torch.device) -> None:
        self.segments = _segments(pack.tree)
        self.size, self.num_unique = pack.size, pack.num_unique
        self.width = _round_up(max(s.offset + s.stop - s.start for s in self.segments), 512)
        self._biases: dict[Any, dict[tuple[int, int, int], Tensor]] = {}
        self._scratch: Tensor | None = None

    def attend(self, q_HTD: Tensor, k_NTD: Tensor, v_NTD: Tensor, call: AttentionCall) -> Tensor:
        """Attention output as (T, H, D)."""
        (heads, size, width), kv = q_HTD.shape, k_NTD.shape[0]
        per = heads // kv
        rows = q_HTD.view(kv, per, size, width).transpose(1, 2).reshape(kv, size * per, width)
        graph = torch.is_grad_enabled() and (rows.requires_grad or k_NTD.requires_grad or v_NTD.requires_grad)
        blocks = self._with_graph if graph or call.softcap or call.dropout else self._in_place
        out = blocks(rows, k_NTD, v_NTD, call)
        return out.view(kv, size, per, width).transpose(0, 1).reshape(size, heads, width)

    def _blocks(self, segment: _Segment, window: int | None) -> Iterator[tuple[int, int, int, int]]:
        """(first query, last query, first key, last key) in positions along the path."""
        depth = segment.offset + segment.stop - segment.start
        for first in range(segment.offset, depth, QUERY_ROWS):
            last = min(first + QUERY_ROWS, depth)
            yield first, last, 0 if window is None else max(0, first - window + 1), last

    def _bias(self, block: tuple[int, int, int, int], per: int, call: AttentionCall, like: Tensor) -> Tensor:
        first, last, low, high = block
        key = (first - low, last - first, high - low)
        known = self._biases.setdefault((per, call.window, like.dtype), {})
        if key not in known:
            width = self.width if call.window is None else min(self.width, _round_up(call.window, 64))
            strip = _staircase(QUERY_ROWS + KEY_STEP, width + KEY_STEP, per, call.window, (like.dtype, like.device))
            known[key] = strip.cut(first - low, last - first, high - low)
        return known[key]

    def _in_place(self, rows: Tensor, k: Tensor, v: Tensor, call: AttentionCall) -> Tensor:
        """No graph: every product is written where it belongs, logits into one scratch that stays in cache.

        Shapes are rounded up, so that the matrix library meets few of them: keys are padded with zeros that no query
        sees, and a segment's last queries take rows of the next one along, which are written again when its turn comes.
        """
        kv, _, width = rows.shape
        per = rows.shape[1] // self.size
        out, zeros = torch.empty_like(rows), k.new_zeros(kv, KEY_STEP, width)
        for s in self.segments:
            depth = s.offset + s.stop - s.start
            padding = zeros[:, : _round_up(depth, KEY_STEP) - depth]
            keys, values = (
                torch.cat([*(x[:, a:b] for a, b in s.runs), x[:, s.start : s.stop], padding], 1) for x in (k, v)
            )
            for first, last, low, _ in self._blocks(s, call.window):
                at = s.start + first - s.offset
                queries = min(_round_up(last - first, QUERY_STEP), self.size - at)
                low, high = low // KEY_STEP * KEY_STEP, _round_up(last, KEY_STEP)
                masked = first if call.window is None else low  # without a window, keys before the block are all seen
                logits = self._room(kv * queries * per * (high - low), rows).view(kv, queries * per, high - low)
                chosen = slice(at * per, (at + queries) * per)
                torch.baddbmm(
                    zeros[:1, :1, :1], rows[:, chosen], keys[:, low:high].mT, beta=0, alpha=call.scaling, out=logits
                )
                logits[:, :, masked - low :].add_(self._bias((first, first + queries, masked, high), per, call, rows))
                torch.softmax(logits, -1, out=logits)
                torch.bmm(logits, values[:, low:high], out=out[:, chosen])
        out[:, self.num_unique * per :] = 0
        return out

    def _room(self, numel: int, like: Tensor) -> Tensor:
        if self._scratch is None or self._scratch.numel() < numel or self._scratch.dtype != like.dtype:
            self._scratch = like.new_empty(numel)
        return self._scratch[:numel]

    def _with_graph(self, rows: Tensor, k: Tensor, v: Tensor, call: AttentionCall) -> Tensor:
        """The same blocks as a graph; one split an operand, whose backward is one cat, not a zero filled a slice."""
        per = rows.shape[1] // k.shape[1]
        cuts = sorted(
            {0, self.size, *(x for s in self.segments for x in (s.start, s.stop, *(y for r in s.runs for y in r)))}
        )
        lengths = [b - a for a, b in pairwise(cuts)]
        piece_at = {a: n for n, a in enumerate(cuts)}
        keys, values = k.split(lengths, 1), v.split(lengths, 1)
        todo = [(s, block) for s in self.segments for block in self._blocks(s, call.window)]
        sizes = [(block[1] - block[0]) * per for _, block in todo]
        padding = (self.size - self.num_unique) * per
        queries = rows.split([*sizes, padding], 1)
        outs, path, at = [], (k, v), None
        for (s, block), q in zip(todo, queries, strict=False):
            if at is not s:
                at, runs = s, [*s.runs, (s.start, s.stop)]
                numbers = [n for a, b in runs for n in range(piece_at[a], piece_at[b])]
                path = (torch.cat([keys[n] for n in numbers], 1), torch.cat([values[n] for n in numbers], 1))
            low, high = block[2:]
            logits = torch.bmm(q, path[0][:, low:high].transpose(1, 2)) * call.scaling
            if call.softcap:
                logits = torch.tanh(logits / call.softcap) * call.softcap
            weights = (logits + self._bias(block, per, call, rows)).softmax(-1, dtype=torch.float32).to(q.dtype)
            outs.append(F.dropout(weights, call.dropout) @ path[1][:, low:high])
        return torch.cat([*outs, torch.zeros_like(queries[-1])], 1)


class AlignedPlan:
    """Blocks cut at multiples of 64 positions, each with all keys from position 0.

    Every shape, and every place inside it, is a function of the position alone, so a token's output has one bit pattern
    whatever lies beside it.
    """

    def __init__(self, pack: Pack, device: torch.device) -> None:
        self.segments = _segments(pack.tree)
        self.num_unique = pack.num_unique

    def attend(self, q_HTD: Tensor, k_NTD: Tensor, v_NTD: Tensor, call: AttentionCall) -> Tensor:
        """Attention output as (T, H, D)."""
        (heads, size, width), kv = q_HTD.shape, k_NTD.shape[0]
        per = heads // kv
        rows = q_HTD.view(kv, per, size, width).transpose(1, 2)
        out = torch.zeros_like(rows, memory_format=torch.contiguous_format)
        for s in self.segments:
            depth = s.offset + s.stop - s.start
            padded = _round_up(depth, ALIGNMENT)
            runs = [*s.runs, (s.start, s.stop)]
            keys, values = (
                F.pad(torch.cat([x[:, a:b] for a, b in runs], 1), (0, 0, 0, padded - depth)) for x in (k_NTD, v_NTD)
            )
            for first in range(s.offset // ALIGNMENT * ALIGNMENT, depth, ALIGNMENT):
                a, b, last = max(first, s.offset), min(first + ALIGNMENT, depth), first + ALIGNMENT
                block = rows.new_zeros(kv, ALIGNMENT, per, width)
                block[:, a - first : b - first] = rows[:, s.start + a - s.offset : s.start + b - s.offset]
                bias = _staircase(ALIGNMENT, padded, per, call.window, (rows.dtype, rows.device)).cut(
                    first, ALIGNMENT, last
                )
                logits = (
                    block.view(kv, ALIGNMENT * per, width) @ keys[:, :last].transpose(1, 2).contiguous() * call.scaling
                )
                if call.softcap:
                    logits = torch.tanh(logits / call.softcap) * call.softcap
                weights = (logits + bias).softmax(-1, dtype=torch.float32).to(rows.dtype)
                answer = (weights @ values[:, :last].contiguous()).view(kv, ALIGNMENT, per, width)
                out[:, s.start + a - s.offset : s.start + b - s.offset] = answer[:, a - first : b - first]
        return out.transpose(0, 1).reshape(size, heads, width)


class VarlenPlan:
    """FlashAttention over ragged rows: a segment's queries against keys gathered along its path."""

    def __init__(self, pack: Pack, device: torch.device) -> None:
        segments = _segments(pack.tree)
        if pack.size > pack.num_unique:  # padding sees itself
            segments.append(_Segment(pack.num_unique, pack.size, 0, []))
        runs = [[*s.runs, (s.start, s.stop)] for s in segments]
        index = np.concatenate([np.arange(a, b) for path in runs for a, b in path])
        q_lengths = [s.stop - s.start for s in segments]
        k_lengths = [sum(b - a for a, b in path) for path in runs]
        self.is_shared = any(s.runs for s in segments)
        self.index = torch.from_numpy(index).to(device)
        self.cu_q, self.cu_k = (
            torch.tensor([0, *np.cumsum(x)], dtype=torch.int32, device=device) for x in (q_lengths, k_lengths)
        )
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
        owner_t, position_t, reach_t = (torch.from_numpy(x.astype(np.int32)).to(self.device) for x in arrays)
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


AttentionInterface.register(ATTENTION, attend_pack)
AttentionMaskInterface.register(ATTENTION, lambda *args, **kwargs: None)
