"""Mean and variance normalisation per dimension, over valid frames only.

Standard deviations are the population's and never below 1e-5 of the features' scale: digital silence gives zeros, where
dividing rounding errors by a smaller floor gives thousands.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mockingjay.core.errors import ConfigError, DataError
from mockingjay.core.types import Frames
from mockingjay.encoders.frontends.frontend import Leak

Normalisation = Literal["none", "utterance", "global"]

_FLOOR = 1e-5  # share of 1 + |mean|


def leaks(by: Normalisation, level: float | None = None) -> Leak:
    """Say what frames know beyond their window, as `Frontend.leaks`, of how they and their waves are normalised."""
    return "future" if by == "utterance" or level is not None else "nothing"


class Normalise(nn.Module):
    """Subtracts means and divides by standard deviations: of each utterance, or of a corpus seen once by `fit`."""

    mean: Float[Tensor, " dim"]
    std: Float[Tensor, " dim"]  # zero until fitted

    def __init__(self, by: Normalisation, dim: int):
        super().__init__()
        self.by = by
        if by == "global":
            self.register_buffer("mean", torch.zeros(dim))
            self.register_buffer("std", torch.zeros(dim))
        self._fitted = False  # spares reading the buffers twice, which on an accelerator waits for it
        # Mean and deviation of a recording that is read in stretches, set by `given` for as long as it is open.
        self.whole: tuple[Tensor, Tensor] | None = None

    def forward(self, frames: Frames) -> Frames:
        """Normalise a batch; the values on padding stay zero.

        Raises:
            ConfigError: Global statistics were neither fitted nor loaded.
        """
        if self.by == "none":
            return frames
        if self.whole is not None:
            mean, std = (each.to(frames.values.device) for each in self.whole)
            return _standardise(frames, mean, std)
        if self.by == "utterance":
            return _by_utterance(frames)
        self._fitted = self._fitted or bool(self.std.any())
        if not self._fitted:
            raise ConfigError(
                "frontend.normalise: 'global' without statistics, expected a fit to the corpus or saved ones; "
                "call fit(waves) once before the first use, or set it to 'utterance'"
            )
        return _standardise(frames, self.mean, self.std)

    @torch.no_grad()
    def fit(self, batches: Iterable[Frames]) -> None:
        """Take a corpus's statistics in one pass; nothing to do unless normalisation is global.

        Raises:
            DataError: There is no frame.
        """
        if self.by == "global":
            mean, std = statistics(batches)
            self.mean.copy_(mean)
            self.std.copy_(std)

    @contextmanager
    def given(self, mean: Float[Tensor, " dim"], std: Float[Tensor, " dim"]) -> Iterator[None]:
        """Normalise by these while this is open, whatever the utterance; zeros and ones show the frames as they are."""
        self.whole = (mean, std)
        try:
            yield
        finally:
            self.whole = None


def statistics(batches: Iterable[Frames]) -> tuple[Float[Tensor, " dim"], Float[Tensor, " dim"]]:
    """Take mean and floored standard deviation over all valid frames in one pass, in double precision.

    Raises:
        DataError: There is no frame.
    """
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())  # squares: summed squared deviations from the mean
    for frames in batches:
        values = frames.values[frames.valid].double()
        if not len(values):
            continue
        own = values.mean(0)
        if not count:
            mean = squares = torch.zeros_like(own)
        total = count + len(values)
        squares = squares + (values - own).square().sum(0) + (own - mean).square() * count * len(values) / total
        mean = mean + (own - mean) * len(values) / total
        count = total
    if not count:
        raise DataError("global normalisation: no frame in the corpus, expected at least one; check its manifest")
    return mean.float(), torch.maximum((squares / count).sqrt(), _FLOOR * (1 + mean.abs())).float()


def _standardise(frames: Frames, mean: Float[Tensor, " dim"], std: Float[Tensor, " dim"]) -> Frames:
    values = (frames.values - mean) / std
    return Frames(values.masked_fill(~frames.valid[..., None], 0.0), frames.lengths)


def _by_utterance(frames: Frames) -> Frames:
    valid = frames.valid[..., None].to(frames.values.dtype)  # multiplying is three times as fast as filling by mask
    count = frames.lengths.clamp_min(1)[:, None, None]
    # Seen from the first frame, features that are constant are exactly zero and so is their mean.
    first = frames.values[:, :1]
    values = (frames.values - first) * valid
    mean = values.sum(1, keepdim=True) / count
    values = (values - mean) * valid
    variance = values.square().sum(1, keepdim=True) / count
    floor = _FLOOR * (1 + (first + mean).detach().abs())
    return Frames(values / torch.maximum(variance, floor.square()).sqrt(), frames.lengths)
