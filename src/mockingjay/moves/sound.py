"""Frames → samples: what a spectrogram sounds like, as far as it says.

Normalisation is undone with the utterance's own mean and deviation, then logarithms and mel bands; phases come from
Griffin and Lim's rounds. The loudness is the utterance's own.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.signal import lfilter
from torch import Tensor

from mockingjay.core.types import Waves
from mockingjay.encoders.frontends import Frontend, Linear, LogMel, Stacked
from mockingjay.encoders.frontends.normalise import statistics
from mockingjay.moves.griffin_lim import ShortTime, griffin_lim

ROUNDS = 32  # of Griffin and Lim


def mel_magnitude(frontend: LogMel, mels: Float[Tensor, "*batch mels"]) -> Float[Tensor, "*batch bins"]:
    """Undo logarithm and mel bands: the least squares that a bank of filters leaves open, negative power as silence."""
    config = frontend.config
    power = ((mels.exp() - config.floor).clamp(min=0) @ torch.linalg.pinv(frontend.filters)).clamp(min=0)
    return power if config.power == 1 else power.sqrt()


@torch.no_grad()
def sound(
    frontend: Frontend, frames: Float[Tensor, "time dim"], wave: Float[Tensor, " samples"], seed: int = 0
) -> Float[Tensor, " samples"] | None:
    """Make an utterance's frames sound, as long as the utterance; None where the frontend's frames do not say enough.

    Args:
        frontend: Log-mel or linear, perhaps stacked; what its frames are.
        frames: As normalised by it, one frame a step.
        wave: The utterance, for what normalisation took away.
        seed: Of the phases that are begun with.
    """
    inner = frontend.inner if isinstance(frontend, Stacked) else frontend
    if not isinstance(inner, LogMel | Linear) or not inner.config.centre or frames.shape[1] != inner.dim:
        return None
    mean, std = _taken(inner, wave)
    values = frames * std + mean
    if isinstance(inner, LogMel):
        magnitude = mel_magnitude(inner, values[:, : inner.config.mels])
    elif inner.config.scale == "decibels":
        magnitude = 10 ** ((values.clamp(0, 1) * 100 - 80) / 20)
    else:
        magnitude = (values.exp() - inner.config.floor).clamp(min=0).sqrt()
    config = inner.config
    samples = min(len(wave), len(magnitude) * config.hop - 1)  # as many as have so many frames
    generator = torch.Generator().manual_seed(seed)
    phase = torch.rand(magnitude.shape, generator=generator).to(magnitude) * (2 * torch.pi)
    transform = ShortTime(config.window, config.hop, config.fft)
    signal = griffin_lim(magnitude, phase, transform, samples, ROUNDS)
    if config.preemphasis:
        signal = torch.from_numpy(lfilter([1.0], [1.0, -config.preemphasis], signal.cpu().numpy())).to(signal)
    loudness = wave.square().mean().sqrt() / signal.square().mean().sqrt().clamp(min=1e-12)
    return F.pad(signal * loudness, (0, len(wave) - samples))


def _taken(frontend: LogMel | Linear, wave: Float[Tensor, " samples"]) -> tuple[Tensor, Tensor]:
    """Find the mean and deviation that normalisation takes out of an utterance."""
    normalise = frontend.normalise
    if normalise.by == "global":
        return normalise.mean, normalise.std
    nothing = torch.zeros(frontend.dim, device=wave.device), torch.ones(frontend.dim, device=wave.device)
    if normalise.by == "none":
        return nothing
    with normalise.given(*nothing):
        return statistics([frontend(Waves.pad([wave]))])
