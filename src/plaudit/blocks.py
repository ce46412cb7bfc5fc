"""Attention by plain matrix products, a block of a segment's queries at a time, on any device.

Under `attend`, in the third room of the waist. Two plans live here: `BlockPlan`, the default on a CPU, whose shapes are
chosen for speed, and `AlignedPlan`, whose shapes are a function of the position alone. Logits exist for one block at a
time, in scratch that stays in cache: backward computes them again, so nothing of their size is kept. Invariant: every
query sees the keys of its path up to itself, and nothing else.
Letters as in `attend`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from plaudit.pack import Pack
from plaudit.tree import Tree

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


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment as attention needs it: its tokens, its depth, and the runs of tokens before it on its path."""

    start: int
    stop: int
    offset: int
    runs: list[tuple[int, int]]


def list_segments(tree: Tree) -> list[Segment]:
    """The segments of a tree, parents before children."""
    starts, lengths, offsets = tree.starts_S.tolist(), tree.lengths_S.tolist(), tree.offsets_S.tolist()
    return [
        Segment(a, a + n, o, tree.path(s)) for s, (a, n, o) in enumerate(zip(starts, lengths, offsets, strict=True))
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


@dataclass(frozen=True, slots=True)
class _Block:
    """Some queries of a segment: the depth of the first, their tokens, how many are its own, and the keys they see."""

    first: int
    start: int
    stop: int
    num_own: int
    low: int
    high: int


class BlockPlan:
    """Plain matrix products: a block of a segment's queries against the keys of its path, on any device."""

    def __init__(self, pack: Pack, device: torch.device) -> None:
        self.segments = list_segments(pack.tree)
        self.size, self.num_unique = pack.size, pack.num_unique
        self.width = _round_up(max(s.offset + s.stop - s.start for s in self.segments), 512)
        self._biases: dict[Any, dict[tuple[int, int, int], Tensor]] = {}
        self._scratch: Tensor | None = None

    def attend(self, q_HTD: Tensor, k_NTD: Tensor, v_NTD: Tensor, call: AttentionCall) -> Tensor:
        """Attention output as (T, H, D)."""
        (heads, size, width), kv = q_HTD.shape, k_NTD.shape[0]
        per = heads // kv
        rows = q_HTD.view(kv, per, size, width).transpose(1, 2).reshape(kv, size * per, width)
        if call.softcap or call.dropout:
            out = self._with_graph(rows, k_NTD, v_NTD, call)
        elif torch.is_grad_enabled() and (rows.requires_grad or k_NTD.requires_grad or v_NTD.requires_grad):
            out = _BlockAttention.apply(rows, k_NTD, v_NTD, self, call)
        else:
            out = self.attend_rows(rows, k_NTD, v_NTD, call)
        return out.view(kv, size, per, width).transpose(0, 1).reshape(size, heads, width)

    def _blocks(self, segment: Segment, window: int | None) -> Iterator[tuple[int, int, int, int]]:
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

    def attend_rows(self, rows: Tensor, k: Tensor, v: Tensor, call: AttentionCall) -> Tensor:
        """Without a graph: every product is written where it belongs, logits into one scratch that stays in cache.

        Shapes are rounded up, so that the matrix library meets few of them: keys are padded with zeros that no query
        sees, and a segment's last queries take rows of the next one along, which are written again when its turn comes.
        """
        kv, _, width = rows.shape
        per = rows.shape[1] // self.size
        out, zeros = torch.empty_like(rows), k.new_zeros(kv, KEY_STEP, width)
        for s in self.segments:
            keys, values = (_along(s, x, zeros) for x in (k, v))
            for block in self._rounded(s, call.window):
                chosen = slice(block.start * per, block.stop * per)
                [weights] = self._rooms(1, kv, block, per, rows)
                self._weigh(weights, rows[:, chosen], keys, block, call)
                torch.bmm(weights, values[:, block.low : block.high], out=out[:, chosen])
        out[:, self.num_unique * per :] = 0
        return out

    def differentiate(
        self, kept: tuple[Tensor, Tensor, Tensor, Tensor], grad: Tensor, call: AttentionCall
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of rows, k and v, from `kept` (rows, k, v, out): the weights are computed again, block by block.

        What a key gets from many segments is summed in fp32.
        """
        rows, k, v, out = kept
        kv, _, width = rows.shape
        per = rows.shape[1] // self.size
        grad = grad.contiguous()
        drop_HT1 = (grad * out).sum(-1, keepdim=True, dtype=torch.float32).to(rows.dtype)
        zeros = k.new_zeros(kv, KEY_STEP, width)
        grad_rows = torch.empty_like(rows)
        grad_k, grad_v = (torch.zeros(x.shape, dtype=torch.float32, device=x.device) for x in (k, v))
        for s in self.segments:
            keys, values = (_along(s, x, zeros) for x in (k, v))
            path_k, path_v = torch.zeros_like(keys), torch.zeros_like(values)
            for block in self._rounded(s, call.window):
                chosen = slice(block.start * per, block.stop * per)
                seen = slice(block.low, block.high)
                weights, slopes = self._rooms(2, kv, block, per, rows)
                self._weigh(weights, rows[:, chosen], keys, block, call)
                weights[:, block.num_own * per :] = 0  # rows of the next segment along
                path_v[:, seen].baddbmm_(weights.mT, grad[:, chosen])
                torch.bmm(grad[:, chosen], values[:, seen].mT, out=slopes)
                slopes.sub_(drop_HT1[:, chosen]).mul_(weights)
                torch.baddbmm(
                    zeros[:1, :1, :1], slopes, keys[:, seen], beta=0, alpha=call.scaling, out=grad_rows[:, chosen]
                )
                path_k[:, seen].baddbmm_(slopes.mT, rows[:, chosen], alpha=call.scaling)
            at = 0
            for a, b in [*s.runs, (s.start, s.stop)]:
                grad_k[:, a:b] += path_k[:, at : at + b - a]
                grad_v[:, a:b] += path_v[:, at : at + b - a]
                at += b - a
        grad_rows[:, self.num_unique * per :] = 0
        return grad_rows, grad_k.to(k.dtype), grad_v.to(v.dtype)

    def _rounded(self, segment: Segment, window: int | None) -> Iterator[_Block]:
        """The segment's blocks, their shapes rounded up."""
        for first, last, low, _ in self._blocks(segment, window):
            at = segment.start + first - segment.offset
            queries = min(_round_up(last - first, QUERY_STEP), self.size - at)
            low, high = low // KEY_STEP * KEY_STEP, _round_up(last, KEY_STEP)
            yield _Block(first, at, at + queries, last - first, low, high)

    def _weigh(self, weights: Tensor, rows: Tensor, keys: Tensor, block: _Block, call: AttentionCall) -> None:
        """Fill `weights` with the softmax of one block."""
        per = rows.shape[1] // (block.stop - block.start)
        masked = block.first if call.window is None else block.low  # else keys before the block are all seen
        bias = self._bias((block.first, block.first + block.stop - block.start, masked, block.high), per, call, rows)
        empty = weights[:1, :1, :1]
        torch.baddbmm(empty, rows, keys[:, block.low : block.high].mT, beta=0, alpha=call.scaling, out=weights)
        weights[:, :, masked - block.low :].add_(bias)
        torch.softmax(weights, -1, out=weights)

    def _rooms(self, count: int, kv: int, block: _Block, per: int, like: Tensor) -> list[Tensor]:
        """Scratch for a block's logits, `count` times."""
        shape = (kv, (block.stop - block.start) * per, block.high - block.low)
        numel = shape[0] * shape[1] * shape[2]
        return [self._room(count * numel, like)[n * numel : (n + 1) * numel].view(shape) for n in range(count)]

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


class _BlockAttention(torch.autograd.Function):
    """Blocks with a graph: rows, k, v and the output are kept, nothing of the size of logits."""

    @staticmethod
    def forward(ctx: Any, *operands: Any) -> Tensor:
        """What `BlockPlan.attend_rows` gives; the operands are rows, k, v, the plan and the call."""
        rows, k, v, plan, call = operands
        out: Tensor = plan.attend_rows(rows, k, v, call)
        ctx.save_for_backward(rows, k, v, out)
        ctx.plan, ctx.call = plan, call
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """What `BlockPlan.differentiate` gives."""
        return *ctx.plan.differentiate(ctx.saved_tensors, grad, ctx.call), None, None


def _along(segment: Segment, x: Tensor, zeros: Tensor) -> Tensor:
    """Keys or values along a segment's path, padded with zeros that no query sees."""
    depth = segment.offset + segment.stop - segment.start
    padding = zeros[:, : _round_up(depth, KEY_STEP) - depth]
    return torch.cat([*(x[:, a:b] for a, b in segment.runs), x[:, segment.start : segment.stop], padding], 1)


class AlignedPlan:
    """Blocks cut at multiples of 64 positions, each with all keys from position 0.

    Every shape, and every place inside it, is a function of the position alone, so a token's output has one bit pattern
    whatever lies beside it.
    """

    def __init__(self, pack: Pack, device: torch.device) -> None:
        self.segments = list_segments(pack.tree)
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
