"""Time derivatives of frames, in the two definitions in use; both treat each utterance's edges by its own length."""

import math
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import AfterValidator, Field
from torch import Tensor

from mockingjay.core.types import Frames


def _odd(width: int) -> int:
    if width % 2 == 0:
        raise ValueError("even, expected an odd number of frames")
    return width


DeltaWidth = Annotated[int, Field(ge=3, le=999), AfterValidator(_odd)]  # frames


def polynomial_deltas(frames: Frames, orders: int, width: int) -> Frames:
    """Append derivatives of polynomials fitted to `width` frames (Savitzky and Golay 1964), as librosa does by default.

    Order k fits a polynomial of degree k. Within half a width of an edge, the derivative of the outermost fit holds.
    Needs utterances of `width` frames or more.
    """
    half = width // 2
    steps = torch.arange(frames.values.shape[1], device=frames.values.device) - half
    powers = np.arange(-half, half + 1)[:, None] ** np.arange(orders + 1)
    parts = [frames.values]
    for order in range(1, orders + 1):
        kernel = math.factorial(order) * np.linalg.pinv(powers[:, : order + 1])[order]
        parts.append(_take(_correlate(frames.values, kernel), frames.lengths - 2 * half, steps))
    return _append(frames, parts)


def regression_deltas(frames: Frames, orders: int, width: int) -> Frames:
    """Append regression coefficients over `width` frames, order 2 being the regression of order 1, as Kaldi does.

    Beyond an edge, the outermost frame is repeated.
    """
    half, time = width // 2, frames.values.shape[1]
    first = np.arange(-half, half + 1) / (2 * np.square(np.arange(half + 1)).sum())
    kernel, parts = np.ones(1), [frames.values]
    for order in range(1, orders + 1):
        kernel = np.convolve(kernel, first)
        steps = torch.arange(-order * half, time + order * half, device=frames.values.device)
        parts.append(_correlate(_take(frames.values, frames.lengths, steps), kernel))
    return _append(frames, parts)


def _append(frames: Frames, parts: list[Tensor]) -> Frames:
    return Frames(torch.cat(parts, 2).mul_(frames.valid[..., None].to(frames.values.dtype)), frames.lengths)


def _take(
    values: Float[Tensor, "batch time dim"], lengths: Int[Tensor, " batch"], steps: Int[Tensor, " taken"]
) -> Float[Tensor, "batch taken dim"]:
    """Take steps of each utterance, those beyond its edges being its outermost ones."""
    rows = torch.arange(len(values), device=values.device)[:, None] * values.shape[1]
    index = rows + torch.minimum(steps, lengths[:, None] - 1).clamp_min(0)
    return values.flatten(0, 1).index_select(0, index.flatten()).unflatten(0, index.shape)


def _correlate(
    values: Float[Tensor, "batch time dim"], kernel: Float[np.ndarray, " width"]
) -> Float[Tensor, "batch inner dim"]:
    """Correlate along time with an odd or even kernel of zero sum; in differences, so that a constant gives zero."""
    half = len(kernel) // 2
    inner = values.shape[1] - 2 * half
    middle = values[:, half : half + inner]
    total = torch.zeros_like(middle)
    odd = kernel @ kernel[::-1] < 0
    for step in range(1, half + 1):
        later, earlier = values[:, half + step : half + step + inner], values[:, half - step : half - step + inner]
        change = later - earlier if odd else (later - middle) + (earlier - middle)
        total.add_(change, alpha=float(kernel[half + step]))
    return total
