"""Time derivatives of frames, in the two definitions in use; both treat each utterance's edges by its own length."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mockingjay.core.types import Frames


def polynomial_deltas(frames: Frames, orders: int, width: int) -> Frames:
    """Append derivatives of polynomials fitted to `width` frames (Savitzky and Golay 1964), as librosa does by default.

    Order k fits a polynomial of degree k. Within half a width of an edge, the derivative of the outermost fit holds. Needs
    utterances of `width` frames or more.
    """
    half = width // 2
    powers = np.arange(-half, half + 1)[:, None] ** np.arange(orders + 1)
    parts = [frames.values]
    for order in range(1, orders + 1):
        kernel = math.factorial(order) * np.linalg.pinv(powers[:, : order + 1])[order]
        inner = _correlate(frames.values, kernel)
        parts.append(_take(inner, frames, -half, 0, half))
    return _append(frames, parts)


def regression_deltas(frames: Frames, orders: int, width: int) -> Frames:
    """Append regression coefficients over `width` frames, order 2 being the regression of order 1, as Kaldi does.

    Beyond an edge, the outermost frame is repeated.
    """
    half = width // 2
    steps = np.arange(-half, half + 1)
    first = steps / np.square(steps).sum()
    kernel, parts = np.ones(1), [frames.values]
    for order in range(1, orders + 1):
        kernel = np.convolve(kernel, first)
        parts.append(_correlate(_take(frames.values, frames, -order * half, order * half, 0), kernel))
    return _append(frames, parts)


def _append(frames: Frames, parts: list[Tensor]) -> Frames:
    return Frames(torch.cat(parts, 2).masked_fill_(~frames.valid[..., None], 0.0), frames.lengths)


def _take(
    values: Float[Tensor, "batch steps dim"], frames: Frames, start: int, more: int, lost: int
) -> Float[Tensor, "batch taken dim"]:
    """Take steps `start` to time + `more` of each utterance, those beyond its edges being its outermost ones.

    Args:
        values: What to take from.
        frames: Their lengths, before `lost` steps were lost on either side.
        start: First step, relative to `values`.
        more: Steps taken beyond the frames' own time.
        lost: Steps by which `values` is shorter at either edge.
    """
    steps = torch.arange(start, frames.values.shape[1] + (more or start), device=values.device)
    last = (frames.lengths - 1 - 2 * lost).clamp_min(0)
    rows = torch.arange(len(values), device=values.device)[:, None] * values.shape[1]
    index = rows + torch.minimum(steps.clamp_min(0), last[:, None])
    return values.flatten(0, 1).index_select(0, index.flatten()).unflatten(0, index.shape)


def _correlate(values: Float[Tensor, "batch time dim"], kernel: np.ndarray) -> Float[Tensor, "batch inner dim"]:
    """Correlate along time with an odd or even kernel of zero sum, as differences, so that a constant gives exactly zero."""
    half = len(kernel) // 2
    inner = values.shape[1] - 2 * half
    middle = values[:, half : half + inner]
    total = torch.zeros_like(middle)
    for step in range(1, half + 1):
        later, earlier = values[:, half + step : half + step + inner], values[:, half - step : half - step + inner]
        odd = kernel[half + step] * kernel[half - step] < 0
        change = later - earlier if odd else (later - middle) + (earlier - middle)
        total = torch.add(total, change, alpha=float(kernel[half + step]))
    return total
