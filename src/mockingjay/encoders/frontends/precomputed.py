"""Frames that were made elsewhere: fMLLR and whatever else this package does not compute.

TERA was first trained on fMLLR features (Liu et al. 2021, arXiv 2007.06028; code), which need a speech recogniser's
alignments. A file of features arrives as samples in which every frame occupies one hop, its values first and zeros
after them (docs/decisions/0006); here the values are cut out again.
"""

from collections.abc import Iterable
from typing import Literal

from jaxtyping import Int
from pydantic import Field
from torch import Tensor

from mockingjay.audio import FRAME
from mockingjay.core.config import Config as Table
from mockingjay.core.errors import DataError
from mockingjay.core.types import Frames, Grid, Waves, valid_steps
from mockingjay.encoders.frontends.framing import refuse_short
from mockingjay.encoders.frontends.frontend import Frontend
from mockingjay.encoders.frontends.normalise import Normalisation, Normalise, leaks


class Precomputed(Frontend):
    """The first `dim` values of every hop."""

    class Config(Table):
        """Defaults are TERA's fMLLR: 40 dimensions, normalised per utterance (code)."""

        kind: Literal["precomputed"] = "precomputed"
        dim: int = Field(default=40, ge=1, le=FRAME)
        """Values a frame, as in the files."""
        centre: float = Field(default=200.0, ge=0)
        """Samples from the utterance's start to the middle of frame 0; Kaldi's frames of 25 ms start with it."""
        normalise: Normalisation = "utterance"
        """Mean and variance normalisation over each utterance, over the corpus, or none."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.dim = self.reads = config.dim
        self.grid = Grid(FRAME, config.centre)
        self.receptive = FRAME * (2 if config.normalise == "utterance" else 1)
        self.normalise = Normalise(config.normalise, self.dim)
        self.leaks = leaks(config.normalise)

    def forward(self, waves: Waves) -> Frames:
        """Cut the frames out.

        Raises:
            DataError: An utterance has fewer than `receptive` samples, or holds sound or wider frames.
            ConfigError: Normalisation is global and was not fitted.
        """
        return self.normalise(self._frames(waves))

    def count(self, samples: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        return (samples // FRAME).masked_fill(samples < self.receptive, 0)

    def fit(self, waves: Iterable[Waves]) -> None:
        self.normalise.fit(map(self._frames, waves))

    def _frames(self, waves: Waves) -> Frames:
        refuse_short(waves, self.receptive)
        lengths, time = self.count(waves.lengths), waves.samples.shape[1] // FRAME
        hops = waves.samples[:, : time * FRAME].unflatten(1, (time, FRAME))
        padding = ~valid_steps(lengths, time)[:, :, None]
        rest = hops[:, :, self.dim :]
        # On an accelerator looking would wait for it; files are looked at before they are read, too.
        if not rest.is_cuda and bool((rest.ne(0) & ~padding).any()):
            raise DataError(
                f"frontend.precomputed: more than {self.dim} values in a frame, expected features of that width; "
                "set its dim to the files', or read sound with another frontend"
            )
        return Frames(hops[:, :, : self.dim].masked_fill(padding, 0.0), lengths)


FMLLR_40 = Precomputed.Config()
