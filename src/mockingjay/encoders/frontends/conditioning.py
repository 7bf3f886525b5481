"""What is done to samples before they are framed."""

import torch

from mockingjay.core.types import Waves, valid_steps

_FAINTEST = 1e-8  # amplitude, −160 dBFS, below any converter's noise: fainter waves are not raised to the level


def to_level(waves: Waves, level: float) -> Waves:
    """Scale each utterance to one root mean square, in dB relative to full scale (amplitude 1)."""
    samples = torch.where(valid_steps(waves.lengths, waves.samples.shape[1]), waves.samples, 0.0)
    amplitude = torch.linalg.vector_norm(samples, dim=1) / waves.lengths.sqrt()
    return Waves(samples * (10 ** (level / 20) / amplitude.clamp_min(_FAINTEST))[:, None], waves.lengths)


def preemphasise(waves: Waves, coefficient: float) -> Waves:
    """Subtract a share of the sample before from each but the first."""
    samples = waves.samples
    later = torch.sub(samples[:, 1:], samples[:, :-1], alpha=coefficient)
    return Waves(torch.cat([samples[:, :1], later], 1), waves.lengths)
