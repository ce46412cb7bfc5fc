"""Plain references of the kernels that CUDA back ends call, written from their documentation; slow, on any device."""

from __future__ import annotations

import math
from itertools import pairwise

import torch


def reference_varlen(
    query,
    key,
    value,
    cu_seq_q,
    cu_seq_k,
    max_q,
    max_k,
    *,
    return_aux=None,
    scale=None,
    window_size=(-1, -1),
    enable_gqa=False,
    seqused_k=None,
    block_table=None,
    num_splits=None,
):
    """torch.nn.attention.varlen.varlen_attn as documented, one row of the batch at a time.

    Query i of a row stands beside key i + (keys - queries), so the last query is beside the last key. A window (left,
    right) is how many keys are seen on each side of that place; -1 is all of them.
    """
    assert return_aux is seqused_k is block_table is num_splits is None
    for x in (query, key, value):
        assert x.is_contiguous() and x.ndim == 3
    for cu, rows, longest in ((cu_seq_q, query, max_q), (cu_seq_k, key, max_k)):
        assert cu.dtype == torch.int32 and cu.is_contiguous() and type(longest) is int
        assert (int(cu[0]), int(cu[-1]), int(cu.diff().max())) == (0, rows.shape[0], longest)
        assert int(cu.diff().min()) > 0
    assert len(cu_seq_q) == len(cu_seq_k)
    heads, kv = query.shape[1], key.shape[1]
    if not enable_gqa and heads != kv:
        raise ValueError("Expect query and key/value to have the same number of heads")
    if enable_gqa and heads % kv:
        raise ValueError("Expect number of query heads to be a multiple of kv heads for GQA")
    scale = query.shape[2] ** -0.5 if scale is None else scale
    left, right = (math.inf if n < 0 else n for n in window_size)
    outs = []
    for (a, b), (c, d) in zip(pairwise(cu_seq_q.tolist()), pairwise(cu_seq_k.tolist()), strict=True):
        beside = torch.arange(b - a, device=query.device)[:, None] + (d - c) - (b - a)
        ahead = torch.arange(d - c, device=query.device)[None] - beside
        keys, values = (x[c:d].float().repeat_interleave(heads // kv, 1) for x in (key, value))
        logits = torch.einsum("qhd,khd->hqk", query[a:b].float(), keys) * scale
        logits = logits.masked_fill((ahead > right) | (-ahead > left), -torch.inf)
        outs.append(torch.einsum("hqk,khd->qhd", logits.softmax(-1), values).to(query.dtype))
    return torch.cat(outs)


def older_varlen(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)
):
    """As in torch 2.11, which groups heads without a flag for it."""
    lengths = (cu_seq_q, cu_seq_k, max_q, max_k)
    gqa = query.shape[1] != key.shape[1]
    return reference_varlen(query, key, value, *lengths, scale=scale, window_size=window_size, enable_gqa=gqa)


def reference_flex(q, k, v, *, score_mod, block_mask, scale, enable_gqa):
    """FlexAttention as it is documented: every query with every key, both functions called on each pair."""
    _, heads, size, _ = q.shape
    assert enable_gqa == (k.shape[1] != heads) and block_mask.seq_lengths == (size, size)
    dtype = q.dtype
    q, k, v = (x.float().repeat_interleave(heads // x.shape[1], dim=1) for x in (q, k, v))
    ranges = (torch.arange(n, device=q.device) for n in (heads, size, size))
    h, i, j = torch.meshgrid(*ranges, indexing="ij")
    scores = q @ k.transpose(-1, -2) * scale
    scores = scores if score_mod is None else score_mod(scores, 0, h, i, j)
    return (scores.masked_fill(~block_mask.mask_mod(0, h, i, j), -torch.inf).softmax(-1) @ v).to(dtype)
