"""Mean and variance normalisation per dimension, over valid frames only.

Standard deviations are the population's and never below 1e-5 of the features' scale: digital silence gives zeros, where
dividing rounding errors by a smaller floor gives thousands.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mockingjay.core.errors import ConfigError, DataError
from mockingjay.core.types import Frames

Normalisation = Literal["none", "utterance", "global"]

_FLOOR = 1e-5  # share of 1 + |mean|


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

    def forward(self, frames: Frames) -> Frames:
        """Normalise a batch; the values on padding stay zero.

        Raises:
            ConfigError: Global statistics were neither fitted nor loaded.
        """
        if self.by == "none":
            return frames
        if self.by == "utterance":
            return _by_utterance(frames)
        self._fitted = self._fitted or bool(self.std.any())
        if not self._fitted:
            raise ConfigError(
                "frontend.normalise: 'global' without statistics, expected a fit to the corpus or saved ones; "
                "call fit(waves) once before the first use, or set it to 'utterance'"
            )
        values = (frames.values - self.mean) / self.std
        return Frames(values.masked_fill(~frames.valid[..., None], 0.0), frames.lengths)

    @torch.no_grad()
    def fit(self, batches: Iterable[Frames]) -> None:
        """Take a corpus's statistics in one pass, in double precision; nothing to do unless normalisation is global.

        Raises:
            DataError: There is no frame.
        """
        if self.by != "global":
            return
        count = torch.zeros((), dtype=torch.float64, device=self.mean.device)
        mean = torch.zeros_like(self.mean, dtype=torch.float64)
        squares = torch.zeros_like(mean)  # summed squared deviations from the mean
        for frames in batches:
            values = frames.values[frames.valid].double()
            if not len(values):
                continue
            own = values.mean(0)
            total = count + len(values)
            squares += (values - own).square().sum(0) + (own - mean).square() * count * len(values) / total
            mean += (own - mean) * len(values) / total
            count = total
        if not count:
            raise DataError("global normalisation: no frame in the corpus, expected at least one; check its manifest")
        self.mean.copy_(mean)
        self.std.copy_(torch.maximum((squares / count).sqrt(), _FLOOR * (1 + mean.abs())))


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
