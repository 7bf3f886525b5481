"""What can stand between features and a countermeasure: nothing, a filter, Mockingjay.

H. Wu, A. T. Liu, H.-y. Lee, "Defense for Black-box Attacks on Anti-spoofing Models by Self-Supervised Learning",
Interspeech 2020, arXiv 2006.03214: the frozen network's states are read instead of the features. The same authors
later let it rebuild the features instead (arXiv 2102.07047). Filters and adversarial training are of arXiv 2003.03065.

All are treated alike: behind each, a countermeasure of its own is trained. Three more are controls, without which any
defence looks better than it is: the undefended countermeasure trained once more from other weights, which an attack
made on the first does not know either; the network untrained; and attackers that know the defence (study.py).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mockingjay.core.draw import Draw
from mockingjay.core.representation import Representation
from mockingjay.core.types import Frames, Waves
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.windows import read
from mockingjay.moves.hide import Spans, hide

View = Callable[[Tensor, Draw], Tensor]  # frames [batch, time, dim] → what the countermeasure reads

ROUNDS = 3  # in which other places are hidden (ours)
NONE, AGAIN, HARDENED = "no defence", "trained again", "adversarial training"


@dataclass(frozen=True, slots=True)
class Defence:
    """What stands in front of a countermeasure.

    Attributes:
        name: In tables.
        view: What the countermeasure reads of features.
        training: Of the countermeasure: plainly, plainly from other weights, or on attacked examples.
        random: Whether the view depends on what is drawn.
        layers: Of a network whose states are read: the frames that it reads, then its layers.
    """

    name: str
    view: View
    training: Literal["plain", "again", "hardened"] = "plain"
    random: bool = False
    layers: Callable[[Tensor], list[Tensor]] | None = None


class Rebuilding(nn.Module):
    """Hides spans of frames as in pre-training, always by zeros, and puts the network's answers in their place."""

    def __init__(self, encoder: Encoder, head: nn.Module, spans: Spans) -> None:
        super().__init__()
        self.encoder, self.head, self.spans = encoder, head, spans.zeroed

    def forward(self, frames: Frames, draw: Draw) -> Frames:
        """Hide and rebuild once."""
        hidden, chosen = hide(frames, self.spans, draw, tuple(map(str, range(len(frames.lengths)))))
        answers = self.head(read(self.encoder.context, hidden, self.encoder.config.window).last)
        return Frames(torch.where(chosen[:, :, None], answers, frames.values), frames.lengths)


def undefended(name: str = NONE) -> Defence:
    """Let features through as they are."""
    return Defence(name, _as_it_is)


def simple_defences() -> tuple[Defence, ...]:
    """List what needs no network: nothing, nothing trained again, adversarial training, filters of 3 × 3 cells."""
    return (
        undefended(),
        Defence(AGAIN, _as_it_is, "again"),
        Defence(HARDENED, _as_it_is, "hardened"),
        Defence("mean filter", lambda frames, draw: convolve(frames, torch.full((3,), 1 / 3))),
        Defence("median filter", lambda frames, draw: median(frames)),
        Defence("Gaussian filter", lambda frames, draw: convolve(frames, gaussian())),
    )


def states(name: str, encoder: Encoder, factor: int) -> Defence:
    """Read a frozen encoder's last layer instead of the features.

    Args:
        name: Of the encoder.
        encoder: In evaluation mode.
        factor: Frames side by side in what its context reads.
    """

    def layers(frames: Float[Tensor, "batch time dim"]) -> list[Tensor]:
        whole = stack(frames, factor)
        with _differentiable(encoder):
            return [whole.values, *read(encoder.context, whole, encoder.config.window).layers]

    return Defence(name, lambda frames, draw: layers(frames)[-1], layers=layers)


def hears(name: str, representation: Representation) -> Defence:
    """Read a frozen representation's last layer, where it hears samples: [batch, samples, 1] instead of features.

    Args:
        name: Of the representation.
        representation: In evaluation mode. Below its layers stand the samples, as many of them a frame as it has a hop.
    """

    def layers(samples: Float[Tensor, "batch samples 1"]) -> list[Tensor]:
        heard = samples[:, :, 0]
        lengths = torch.full((len(heard),), heard.shape[1], device=heard.device)
        below = heard.unfold(1, representation.hop, representation.hop)
        with _differentiable(representation):
            return [below, *representation(Waves(heard, lengths)).layers]

    return Defence(name, lambda samples, draw: layers(samples)[-1], layers=layers)


def behind(features: Callable[[Tensor], Tensor], defence: Defence) -> Defence:
    """Put features in front of a defence, so that it reads [batch, samples, 1] as `hears` does."""
    return replace(defence, view=lambda samples, draw: defence.view(features(samples[:, :, 0]), draw))


def rebuilt(name: str, rebuild: Rebuilding, factor: int, rounds: int = ROUNDS) -> Defence:
    """Hide some of the features and rebuild them from the others, again and again elsewhere.

    Args:
        name: Of the network.
        rebuild: Hides and rebuilds once, in evaluation mode.
        factor: Frames side by side in what the network reads.
        rounds: How often.
    """

    def view(frames: Float[Tensor, "batch time dim"], draw: Draw) -> Float[Tensor, "batch time dim"]:
        whole = stack(frames, factor)
        for number in range(rounds):
            whole = rebuild(whole, Draw(draw.seed, draw.epoch * rounds + number))
        values = whole.values.unflatten(2, (factor, -1)).flatten(1, 2)
        return torch.cat([values, frames[:, values.shape[1] :]], 1)

    return Defence(f"{name}, rebuilt", view, random=True)


def stack(frames: Float[Tensor, "batch time dim"], factor: int) -> Frames:
    """Put frames side by side, as the network's frontend does; what does not fill a step is dropped."""
    steps = frames.shape[1] // factor
    values = frames[:, : steps * factor].unflatten(1, (steps, factor)).flatten(2)
    return Frames(values, torch.full((len(frames),), steps, device=frames.device))


def gaussian(deviation: float = 1.0) -> Float[Tensor, " taps"]:
    """Make three taps of a Gaussian; the deviation is in cells (ours)."""
    taps = (-0.5 * (torch.arange(-1.0, 2.0) / deviation) ** 2).exp()
    return taps / taps.sum()


def convolve(frames: Float[Tensor, "batch time dim"], taps: Float[Tensor, " taps"]) -> Float[Tensor, "batch time dim"]:
    """Smooth along time and along the values of a frame; edges repeat."""
    kernel = torch.outer(taps, taps)[None, None].to(frames.device, frames.dtype)
    width = len(taps) // 2
    return F.conv2d(F.pad(frames[:, None], (width,) * 4, mode="replicate"), kernel)[:, 0]


def median(frames: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
    """Put the median of its 3 × 3 cells into each; edges repeat."""
    around = F.pad(frames[:, None], (1, 1, 1, 1), mode="replicate")[:, 0].unfold(1, 3, 1).unfold(2, 3, 1)
    return around.flatten(3).median(-1).values


def _differentiable(network: nn.Module) -> AbstractContextManager[None]:
    """Keep recurrent layers from cuDNN, whose own give no gradient in evaluation mode."""
    recurrent = any(isinstance(each, nn.RNNBase) for each in network.modules())
    return torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()


def _as_it_is(frames: Float[Tensor, "batch time dim"], draw: Draw) -> Float[Tensor, "batch time dim"]:
    return frames
