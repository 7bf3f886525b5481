"""Restrain a learned frontend whose frames are targets too: what it learns is scaled down, and loud frames cost.

Baevski et al. 2020 (wav2vec 2.0, arXiv 2006.11477, section 4.2) found both to steady the training of BASE.
"""

from jaxtyping import Float
from torch import Tensor

from mockingjay.core.types import Frames


def scale_gradient(frames: Frames, by: float) -> Frames:
    """Leave frames as they are and multiply the gradient that reaches whatever made them."""
    values = frames.values
    return Frames(values * by + values.detach() * (1 - by), frames.lengths)


def loudness(frames: Frames, counts: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Sum up utterances' mean squared values, each as often as it has scored steps."""
    squares = frames.values.float().square().mean(-1) * frames.valid
    return (squares.sum(1) / frames.lengths.clamp(min=1) * counts).sum()
