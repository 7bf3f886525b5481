"""How far two stretches of frames are from each other: dynamic time warping of the angles between their frames.

As zrc_abx2 has it: the angle between two frames is arccos(cosine) / π, a path goes down, right or both at a time, and
what a path costs is divided by its length. Many pairs are warped at once, one anti-diagonal after the other.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

_FAINT, _STRONG = 1e-6, 1e7  # a last coordinate, in which frames that are zero oppose all others


def directions(frames: Float[Tensor, "frames dim"]) -> Float[Tensor, "frames _"]:
    """Scale frames to unit length; a frame of zeros comes to lie opposite to all others, and on its like."""
    frames = frames.float()
    zero = ~frames.any(1, keepdim=True)
    last = torch.where(zero, -_STRONG, _FAINT)
    return torch.cat([F.normalize(frames, dim=1), last], 1)


def angles(rows: Float[Tensor, "rows dim"], columns: Float[Tensor, "columns dim"]) -> Float[Tensor, "rows columns"]:
    """Measure the angles between all pairs of `directions`, as shares of a half turn."""
    return (rows @ columns.T).clamp_(-1, 1).acos_().div_(math.pi)


def warp(
    costs: Float[Tensor, "rows columns pairs"], rows: Int[Tensor, " pairs"], columns: Int[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    """Find the mean cost along the cheapest path from the first cell to the last, of each pair.

    The path is followed from its end: of equally cheap cells before, the diagonal one is taken, then the left one.

    Args:
        costs: Of all cells, padded with anything finite.
        rows: How many there are of each pair.
        columns: Likewise.
    """
    height, width, count = costs.shape
    # Shifting row i by i cells puts anti-diagonals into columns.
    padded = F.pad(costs, (0, 0, 0, height), value=math.inf)
    skewed = padded.flatten(0, 1)[: height * (width + height - 1)].unflatten(0, (height, width + height - 1))
    nothing = costs.new_full((height + 1, count), math.inf)
    lengths = torch.zeros_like(nothing)  # of the path to each cell of the anti-diagonal
    total, before = nothing.clone(), (nothing.clone(), lengths)
    before[0][0] = 0.0  # a path begins before the first cell
    length, ends = lengths, rows + columns - 2
    found, last = costs.new_zeros(count), (rows - 1)[None]
    for number in range(width + height - 1):
        diagonal, left, above = before[0][:-1], total[1:], total[:-1]
        straight = torch.minimum(left, above)
        steps = torch.where(left <= above, length[1:], length[:-1])
        steps = torch.where(diagonal <= straight, before[1][:-1], steps) + 1
        now = skewed[:, number] + torch.minimum(diagonal, straight)
        found = torch.where(ends == number, (now.gather(0, last) / steps.gather(0, last))[0], found)
        before = total, length
        total, length = F.pad(now, (0, 0, 1, 0), value=math.inf), F.pad(steps, (0, 0, 1, 0))
    return found
