"""Consecutive frames side by side as one: shorter sequences for wider frames.

Liu et al. 2020 (Mockingjay, arXiv 1910.12638), downsampling: R frames become one of R times the width, and the last
T mod R frames are dropped (code).
"""

from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from mockingjay.core.config import Config as Table
from mockingjay.core.types import Frames, Grid, Waves
from mockingjay.encoders.frontends.fbank import Fbank
from mockingjay.encoders.frontends.framing import refuse_short
from mockingjay.encoders.frontends.frontend import Frontend
from mockingjay.encoders.frontends.linear import Linear
from mockingjay.encoders.frontends.log_mel import LogMel
from mockingjay.encoders.frontends.mfcc import MFCC
from mockingjay.encoders.frontends.precomputed import Precomputed

UNSTACKED: dict[str, type[Frontend]] = {
    "log-mel": LogMel,
    "fbank": Fbank,
    "linear": Linear,
    "mfcc": MFCC,
    "precomputed": Precomputed,
}


class Stacked(Frontend):
    """Another frontend's frames, `factor` of them at a time."""

    class Config(Table):
        """Defaults are Mockingjay LARGE's (table 1)."""

        kind: Literal["stacked"] = "stacked"
        factor: int = Field(default=3, ge=1, le=1000)
        """Frames that become one."""
        inner: Annotated[
            LogMel.Config | Fbank.Config | Linear.Config | MFCC.Config | Precomputed.Config,
            Field(discriminator="kind"),
        ] = LogMel.Config()
        """The frontend whose frames are stacked."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.inner = UNSTACKED[config.inner.kind](config.inner)
        self.leaks, self.reads = self.inner.leaks, self.inner.reads
        hop, factor = self.inner.grid.hop, config.factor
        self.dim = self.inner.dim * factor
        self.grid = Grid(hop * factor, self.inner.grid.centre + (factor - 1) / 2 * hop)
        enough = self.inner.receptive + torch.arange(hop * factor, device="cpu")
        self.receptive = int(enough[self.inner.count(enough) >= factor][0])

    def forward(self, waves: Waves) -> Frames:
        """Compute stacked frames.

        Raises:
            DataError: An utterance has fewer than `receptive` samples.
            ConfigError: Normalisation is global and was not fitted.
        """
        refuse_short(waves, self.receptive)
        frames, factor = self.inner(waves), self.config.factor
        steps = frames.values.shape[1] // factor
        values = frames.values[:, : steps * factor].unflatten(1, (steps, factor)).flatten(2)
        stacked = Frames(values, frames.lengths // factor)
        return Frames(values.masked_fill(~stacked.valid[..., None], 0.0), stacked.lengths)

    def count(self, samples: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        return self.inner.count(samples) // self.config.factor

    def fit(self, waves: Iterable[Waves]) -> None:
        self.inner.fit(waves)


def unstack(values: Float[Tensor, "batch time dim"], factor: int) -> Float[Tensor, "batch frames narrow"]:
    """Undo the stacking of `factor` frames."""
    return values.unflatten(2, (factor, -1)).flatten(1, 2)
