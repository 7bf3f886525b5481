"""Slices: stretches of one width cut out of every utterance of a batch at once, where a draw says.

What a slice has beyond its utterance is zero and marked, so that utterances of any length can be cut alike.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mockingjay.core.draw import Draw


def cut(
    values: Float[Tensor, "batch time dim"],
    lengths: Int[Tensor, " batch"],
    starts: Int[Tensor, "batch slices"],
    width: int,
) -> tuple[Float[Tensor, "batch slices width dim"], Bool[Tensor, "batch slices width"]]:
    """Cut slices that start at the given steps, which may lie outside.

    Returns:
        The slices, and where they lie inside their utterance.
    """
    batch, time, _ = values.shape
    places = starts[:, :, None] + torch.arange(width, device=values.device)
    inside = (places >= 0) & (places < lengths[:, None, None])
    rows = time * torch.arange(batch, device=values.device)[:, None, None]
    index = rows + places.clamp(0, time - 1)
    slices = values.flatten(0, 1).index_select(0, index.flatten()).unflatten(0, index.shape)
    return slices * inside[..., None], inside


def first(lengths: Int[Tensor, " batch"], span: int, draw: Draw, ids: tuple[str, ...]) -> Int[Tensor, "batch 1"]:
    """Draw where a stretch of `span` steps begins, evenly over all places it fits; 0 where it does not."""
    where = draw.uniform(ids, "slices", 1).to(lengths.device, non_blocking=True)
    return (where * (lengths - span + 1).clamp(min=1)[:, None]).long()


def even(count: int, width: int, gap: int, device: torch.device) -> Int[Tensor, " slices"]:
    """Say where slices of one width start that follow each other with a gap between."""
    return torch.arange(count, device=device) * (width + gap)
