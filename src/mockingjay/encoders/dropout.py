"""Dropout at a price a CPU can pay: four draws from one random word, and attention that never keeps its probabilities.

On a CPU torch draws 9 ns for every element, and attention with dropout leaves the fused kernel: together more than half
of a published BASE step. Here a 64-bit word of the same global generator decides four elements, so the share is rounded
to 1/65536 and the scale follows the rounded one; and the attention below works through blocks that stay in the cache,
keeps the mask and the row sums, and computes the probabilities again in backward. Elsewhere torch's own are as good.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

_LEVELS = 65_536  # of a 16-bit draw
_ROWS = 256  # queries of a block
_SCORES = 2**18  # scores of a block: 1 MiB of float32


def dropout(values: Float[Tensor, "*shape"], share: float, training: bool) -> Float[Tensor, "*shape"]:
    """Zero a share of the elements and scale the others up, as `torch.nn.functional.dropout`."""
    if not training or not share:
        return values
    if not _slow(values):
        return F.dropout(values, share)
    rounded = _rounded(share)
    return values * _kept(values.shape, rounded).to(values.dtype).div_(1 - rounded)


def attention(
    query: Float[Tensor, "batch heads time part"],
    key: Float[Tensor, "batch heads time part"],
    value: Float[Tensor, "batch heads time part"],
    allowed: Bool[Tensor, "..."] | Float[Tensor, "..."] | None,
    share: float,
) -> Float[Tensor, "batch heads time part"]:
    """Scaled dot-product attention with dropout of a share of its probabilities.

    Args:
        query: What asks.
        key: What is asked.
        value: What is mixed.
        allowed: Which keys each query may see, or what is added to the scores; broadcasts to batch, heads, time, time.
        share: Of the probabilities that are dropped, 0–1.
    """
    if not share or not _slow(query) or (allowed is not None and allowed.dtype != torch.bool):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=share)
    batch, heads, time, _ = query.shape
    if allowed is not None:
        allowed = allowed.expand(batch, heads, time, time).flatten(0, 1)
    flat = [each.flatten(0, 1) for each in (query, key, value)]
    return _Attention.apply(*flat, allowed, _rounded(share)).view(query.shape)


def _slow(values: Tensor) -> bool:
    return values.device.type == "cpu" and values.dtype == torch.float32


def _rounded(share: float) -> float:
    return round(share * _LEVELS) / _LEVELS


def _kept(shape: Sequence[int], share: float) -> Bool[Tensor, "..."]:
    elements = math.prod(shape)
    words = torch.empty((elements + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    draws = words.view(torch.int16)[:elements].view(shape)
    return draws >= round(share * _LEVELS) - _LEVELS // 2


def _blocks(rows: int, time: int) -> Iterator[tuple[slice, slice]]:
    """Cut `rows` heads of `time` queries into blocks of about `_SCORES` scores."""
    queries = min(time, _ROWS)
    group = max(1, _SCORES // (queries * time))
    for row in range(0, rows, group):
        for first in range(0, time, queries):
            yield slice(row, row + group), slice(first, first + queries)


class _Attention(torch.autograd.Function):
    """Attention over flat (batch × heads) rows; backward after Dao et al. 2022 (FlashAttention), section 3.1."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None, share: float) -> Tensor:
        rows, time, part = query.shape
        kept = _kept((rows, time, time), share)
        out, sums = torch.empty_like(query), query.new_empty(rows, time, 1)
        scaled = (key * part**-0.5).transpose(1, 2)
        for at in _blocks(rows, time):
            scores = query[at] @ scaled[at[0]]
            if allowed is not None:
                scores.masked_fill_(~allowed[at], -torch.inf)
            greatest = scores.amax(-1, keepdim=True)
            total = scores.sub_(greatest).exp_().sum(-1, keepdim=True)
            out[at] = (scores.mul_(kept[at]) @ value[at[0]]).div_(total * (1 - share))
            sums[at] = total.log_().add_(greatest)
        ctx.save_for_backward(query, key, value, allowed, out, sums, kept)
        ctx.share = share
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, allowed, out, sums, kept = ctx.saved_tensors
        rows, time, part = query.shape
        above = gradients[0]
        shared = above / (1 - ctx.share)
        to_query, to_key, to_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        scaled, crossed = (key * part**-0.5).transpose(1, 2), value.transpose(1, 2)
        through = (above * out).sum(-1, keepdim=True)
        for at in _blocks(rows, time):
            row = at[0]
            chances = torch.baddbmm(sums[at], query[at], scaled[row], beta=-1)
            if allowed is not None:
                chances.masked_fill_(~allowed[at], -torch.inf)
            chances.exp_()
            to_value[row].baddbmm_((chances * kept[at]).transpose(1, 2), shared[at])
            slopes = (shared[at] @ crossed[row]).mul_(kept[at]).sub_(through[at]).mul_(chances)
            to_query[at] = (slopes @ key[row]).mul_(part**-0.5)
            to_key[row].baddbmm_(slopes.transpose(1, 2), query[at], alpha=part**-0.5)
        return to_query, to_key, to_value, None, None
