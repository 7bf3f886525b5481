"""Alter frames along the other two axes of TERA: hide bands of channels for a whole utterance, add noise to magnitudes.

Everything is drawn by (seed, epoch, utterance), as spans are. Differs from the released code: the last channel can be
hidden too, and noise is drawn per utterance and added before anything is hidden, so that what is hidden is zero.
"""

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Frames


class Band(config.Config):
    """Which channels are hidden for a whole utterance; the default is TERA's (arXiv 2007.06028; code)."""

    share: float = Field(default=0.2, gt=0, lt=1)
    """Widest band as a share of the channels: 8 of 40 fMLLR, 16 of 80 mel; its width is drawn from 0 to that."""


class Noise(config.Config):
    """Which utterances become noisy and how; defaults are TERA's (arXiv 2007.06028; code)."""

    probability: float = Field(default=0.15, gt=0, le=1)
    """Probability that an utterance is altered."""
    deviation: float = Field(default=0.2, gt=0)
    """Standard deviation of the Gaussian noise added to every cell, in the features' unit."""


def choose_bands(
    extents: Int[Tensor, " batch"],
    size: int,
    count: int,
    widths: tuple[int, int],
    draw: Draw,
    ids: tuple[str, ...],
    purpose: str,
) -> Bool[Tensor, "batch size"]:
    """Choose bands of one axis per utterance, each uniform in width and then in place; they may overlap.

    Args:
        extents: Channels or frames each utterance has; at least one always stays outside its bands.
        size: Channels or frames of the batch.
        count: Bands per utterance.
        widths: Least and most width of a band; a band of width 0 is none.
        draw: Addressed randomness.
        ids: The utterances.
        purpose: Part of the address, one for each use.
    """
    extents = extents.cpu()[:, None]
    least, most = widths
    uniform = draw.uniform(ids, purpose, 2 * count)
    width = least + (uniform[:, ::2] * (most - least + 1)).long()
    width = width.minimum((extents - 1).div(count, rounding_mode="floor").clamp(min=0))
    start = (uniform[:, 1::2] * (extents - width + 1)).long()
    place = torch.arange(size)
    return ((place >= start[..., None]) & (place < (start + width)[..., None])).any(1)


def hide_channels(frames: Frames, channels: Bool[Tensor, "batch dim"]) -> Frames:
    """Zero channels in all frames of their utterance."""
    return Frames(frames.values.masked_fill(channels[:, None, :], 0.0), frames.lengths)


def add_noise(frames: Frames, noise: Noise, draw: Draw, ids: tuple[str, ...]) -> Frames:
    """Add independent Gaussian noise to every cell of the utterances that are drawn; padding stays as it is."""
    _, time, dim = frames.values.shape
    noisy = (draw.uniform(ids, "noisy", 1)[:, 0] < noise.probability).nonzero()[:, 0]
    if not len(noisy):
        return frames
    # Frame by frame, so that a longer batch begins with the same noise; half a step off zero, where the inverse is −∞.
    uniform = draw.uniform([ids[row] for row in noisy.tolist()], "noise", time * dim).double() + 2.0**-25
    normal: Float[Tensor, "noisy time dim"] = torch.special.ndtri(uniform).unflatten(1, (time, dim))
    device, dtype = frames.values.device, frames.values.dtype
    noisy = noisy.to(device, non_blocking=True)
    added = (noise.deviation * normal).to(dtype).to(device, non_blocking=True)
    values = frames.values.index_add(0, noisy, added * frames.valid[noisy][:, :, None])
    return Frames(values, frames.lengths)
