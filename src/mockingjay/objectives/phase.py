"""Phase prediction: from what is loud, say how it turns.

F. de Chaumont Quitry, M. Tagliasacchi, D. Roblek, "Learning audio representations via phase prediction", 2019,
arXiv 1910.11910.

A small encoder sees a slice of the magnitudes of a short-time Fourier transform, and a decoder that mirrors it must say
the instantaneous frequency in every cell: by how much the phase grows from one frame to the next, beyond what a sine at
the bin's centre would do. Angles have no order, so the answer is a point on the unit circle and its error 1 − cos; a
bin without sound has a random phase and counts the less. Added up, the answers give Griffin and Lim's rounds a start.

Differs from the paper: only its abstract was at hand; transform, network, loss and weights are ours. Uniformly random
phases score 1 exactly.
"""

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Frames, Loss, Waves
from mockingjay.encoders.contexts import Slices
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends import Linear
from mockingjay.moves.decode.slices import SliceDecoder
from mockingjay.moves.griffin_lim import ShortTime, griffin_lim
from mockingjay.moves.slices import cut, first
from mockingjay.objectives.objective import Objective


class Phase(Objective):
    """Say the instantaneous frequency in every cell of a magnitude spectrogram."""

    class Config(config.Config):
        """All of it is ours."""

        kind: Literal["phase"] = "phase"
        encoder: Encoder.Config = Encoder.Config(
            # A quarter of the window a hop, so that phases of neighbouring frames have something to do with each other.
            frontend=Linear.Config(window=512, fft=512, hop=128, scale="log", preemphasis=0.0),
            context=Slices.Config(),
        )
        """What is kept after training: linear-scale spectra, then a context of slices."""
        emphasis: float = Field(default=0.5, ge=0)
        """Power of the magnitude that weighs a cell; 0 weighs silence like speech."""
        iterations: int = Field(default=2, ge=0)
        """Rounds of Griffin and Lim from the predicted phase when a reconstruction is asked for (the paper's demo)."""

        @model_validator(mode="after")
        def _possible(self) -> "Phase.Config":
            kinds = (self.encoder.frontend.kind, self.encoder.context.kind)
            if kinds != ("linear", "slices"):
                raise ValueError(f"encoder is made of {' and '.join(kinds)}, expected linear and slices")
            if isinstance(self.encoder.frontend, Linear.Config) and not self.encoder.frontend.centre:
                raise ValueError("encoder.frontend.centre is false, expected centred frames")
            return self

    usual: Float[Tensor, "bins 2"]  # each bin's mean direction over the corpus

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        frontend, shape = config.encoder.frontend, config.encoder.context
        assert isinstance(frontend, Linear.Config) and isinstance(shape, Slices.Config), "the config checks this"
        self.width, self.bins = shape.width, self.encoder.frontend.dim
        self.transform = ShortTime(frontend.window, frontend.hop, frontend.fft)
        self.head = SliceDecoder(shape, shape.dim, self.bins, 2)
        self.register_buffer("usual", torch.tensor([[1.0, 0.0]]).repeat(self.bins, 1))

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Fit the frontend, and learn each bin's mean direction for comparison."""
        self.encoder.frontend.fit(batch.waves for batch in batches)
        total = torch.zeros_like(self.usual)
        for batch in batches:
            direction, loudness = self._turn(self.transform.analyse(batch.waves))
            total += (direction * loudness[..., None]).sum((0, 1))
        self.usual.copy_(F.normalize(total, dim=-1))

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        ids = tuple(utterance.id for utterance in batch.utterances)
        with torch.no_grad():
            frames = self.encoder.frontend(batch.waves)
            direction, loudness = self._turn(self.transform.analyse(batch.waves))
            everything = torch.cat([frames.values, direction.flatten(2), loudness], 2)
            starts = first(frames.lengths, self.width, draw, ids)
            slices, inside = (part[:, 0] for part in cut(everything, frames.lengths, starts, self.width))
            read, direction, loudness = slices.split([self.bins, 2 * self.bins, self.bins], 2)
            direction = direction.unflatten(2, (self.bins, 2))
            inside[:, 0] = False  # what came before the slice is not seen
            scored = inside[:, :, None].expand_as(loudness)
            weight = shares(loudness * scored) * scored.sum((1, 2), keepdim=True)
        count = scored.sum().float()
        trivial = {} if self.training else self._trivial(direction, weight)
        return Loss((circular_error(self._say(read), direction) * weight).sum(), count, trivial)

    def picture(self, batch: Batch, draw: Draw) -> None:
        """No spectrogram is rebuilt."""

    @torch.no_grad()
    def reconstruct(self, batch: Batch, draw: Draw) -> Waves:
        """Make sound of the magnitudes and the predicted phases."""
        spectra = self.transform.analyse(batch.waves)
        told, signals = self.frequencies(batch.waves), []
        for row, (time, samples) in enumerate(zip(spectra.lengths.tolist(), batch.waves.lengths.tolist())):
            magnitude = torch.complex(*spectra.values[row, :time].chunk(2, 1)).abs()
            phase = self.transform.phases(told[row, :time])
            signals.append(griffin_lim(magnitude, phase, self.transform, samples, self.config.iterations))
        return Waves.pad(signals)

    @torch.no_grad()
    def frequencies(self, waves: Waves) -> Float[Tensor, "batch time bins"]:
        """Predict the instantaneous frequency of whole utterances, in radians a hop beyond each bin's centre."""
        frames = self.encoder.frontend(waves)
        batch, time, _ = frames.values.shape
        starts = torch.arange(0, max(time - 1, 1), self.width - 1, device=frames.lengths.device)
        slices, _ = cut(frames.values, frames.lengths, starts.expand(batch, -1), self.width)
        said = self._say(slices.flatten(0, 1))[:, 1:]  # of its first frame a slice knows nothing
        angles = torch.atan2(said[..., 1], said[..., 0]).unflatten(0, (batch, -1)).flatten(1, 2)
        return F.pad(angles, (0, 0, 1, 0))[:, :time]

    def _say(self, read: Float[Tensor, "slices width bins"]) -> Float[Tensor, "slices width bins 2"]:
        """Answer with a point of the unit circle for every cell."""
        context = self.encoder.context
        assert isinstance(context, Slices), "the config checks this"
        used = read.new_ones(len(read), dtype=torch.bool)
        return F.normalize(self.head(context.embed(read, used), used).permute(0, 2, 3, 1).float(), dim=-1)

    def _turn(self, spectra: Frames) -> tuple[Float[Tensor, "batch time bins 2"], Float[Tensor, "batch time bins"]]:
        """Measure each cell's instantaneous frequency, as a point of the unit circle, and how much it counts."""
        real, imaginary = spectra.values.chunk(2, 2)
        values = torch.complex(real, imaginary)
        back = self.transform.advance(torch.arange(self.bins, device=values.device))
        turned = values[:, 1:] * values[:, :-1].conj() * torch.polar(torch.ones_like(back), -back)
        turned = F.pad(torch.view_as_real(turned), (0, 0, 0, 0, 1, 0))
        # The geometric mean of two frames' magnitudes: where either is silent the difference is random.
        loudness = torch.linalg.vector_norm(turned, dim=-1) ** (self.config.emphasis / 2)
        loudness[:, 0] = 0.0
        return F.normalize(turned, dim=-1, eps=1e-20), loudness

    def _trivial(
        self, direction: Float[Tensor, "batch width bins 2"], weight: Float[Tensor, "batch width bins"]
    ) -> dict[str, Float[Tensor, ""]]:
        """Score the dumb predictors on the same cells: any angle, the bin's centre, the bin's mean over the corpus."""
        centre = torch.tensor([1.0, 0.0], device=weight.device)
        sums = {"chance": weight.sum()}
        for name, guess in {"bin centre": centre, "bin mean": self.usual}.items():
            sums[name] = (circular_error(guess.expand_as(direction), direction) * weight).sum()
        return sums


def circular_error(said: Float[Tensor, "*cells 2"], direction: Float[Tensor, "*cells 2"]) -> Float[Tensor, "*cells"]:
    """Score points of the unit circle: 1 − cos of the angle between them, from 0 to 2."""
    return 1 - (said * direction).sum(-1)


def shares(loudness: Float[Tensor, "batch width bins"]) -> Float[Tensor, "batch width bins"]:
    """Divide weights by their sum over each slice; where nothing sounds nothing counts."""
    return loudness / loudness.sum((1, 2), keepdim=True).clamp_min(1e-20)
