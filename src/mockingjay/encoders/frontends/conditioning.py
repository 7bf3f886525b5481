"""What is done to samples before they are framed."""

import torch
from jaxtyping import Float
from torch import Tensor

from mockingjay.core.types import Waves, valid_steps

_FAINTEST = 1e-8  # amplitude, −160 dBFS, below any converter's noise: fainter waves are not raised to the level


def to_level(waves: Waves, level: float) -> Waves:
    """Scale each utterance to one root mean square, in dB relative to full scale (amplitude 1)."""
    samples = waves.samples.masked_fill(~valid_steps(waves.lengths, waves.samples.shape[1]), 0.0)
    power = samples.square().sum(1, keepdim=True) / waves.lengths[:, None]
    return Waves(samples * (10 ** (level / 20) * power.clamp_min(_FAINTEST**2).rsqrt()), waves.lengths)


def preemphasise(samples: Float[Tensor, "batch samples"], coefficient: float) -> Float[Tensor, "batch samples"]:
    """Subtract a share of the sample before from each but the first."""
    return torch.cat([samples[:, :1], torch.sub(samples[:, 1:], samples[:, :-1], alpha=coefficient)], 1)
