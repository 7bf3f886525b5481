"""What is done to samples before they are framed."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mockingjay.core.types import Waves, valid_steps

_FAINTEST = 1e-8  # amplitude, −160 dBFS, below any converter's noise: fainter waves are not raised to the level


class Level(nn.Module):
    """Scales each utterance to one root mean square, in dB relative to full scale (amplitude 1); None leaves it be."""

    def __init__(self, level: float | None):
        super().__init__()
        self.level = level
        # Of a recording that is read in stretches, set by `heard` for as long as it is open.
        self.amplitude: Tensor | None = None

    def forward(self, waves: Waves) -> Waves:
        """Scale a batch."""
        if self.level is None:
            return waves
        samples = torch.where(valid_steps(waves.lengths, waves.samples.shape[1]), waves.samples, 0.0)
        amplitude = self.amplitude
        if amplitude is None:
            amplitude = torch.linalg.vector_norm(samples, dim=1) / waves.lengths.sqrt()
        return Waves(samples * (10 ** (self.level / 20) / amplitude.clamp_min(_FAINTEST))[..., None], waves.lengths)

    @contextmanager
    def heard(self, stretches: Iterable[Float[Tensor, " _"]]) -> Iterator[None]:
        """Take the root mean square of a whole recording, and scale by it whatever comes while this is open."""
        squares, count = [], 0
        for samples in stretches:
            squares.append(samples.double().square().sum())
            count += len(samples)
        self.amplitude = (torch.stack(squares).sum() / count).sqrt().float()
        try:
            yield
        finally:
            self.amplitude = None


def preemphasise(waves: Waves, coefficient: float) -> Waves:
    """Subtract a share of the sample before from each but the first."""
    samples = waves.samples
    later = torch.sub(samples[:, 1:], samples[:, :-1], alpha=coefficient)
    return Waves(torch.cat([samples[:, :1], later], 1), waves.lengths)
