"""The first storey: samples → frames, with no learning of context."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Literal

from jaxtyping import Int
from torch import Tensor, nn

from mockingjay.core.types import Frames, Grid, Waves

Leak = Literal["nothing", "future"]


class Frontend(nn.Module, ABC):
    """Turns waves into frames, each utterance from its own samples alone.

    Attributes:
        dim: Width of a frame.
        grid: Where the frames lie; `grid.hop` is in samples.
        receptive: Samples an utterance must have to give at least one frame.
        leaks: What a frame depends on besides its own utterance's samples up to now and the window's reach: the future
            where something is taken over the whole utterance, its level, its mean and variance.
        reads: Values a frame of the files of features it reads; None where it reads sound.
    """

    dim: int
    grid: Grid
    receptive: int
    leaks: Leak = "nothing"
    reads: int | None = None

    @abstractmethod
    def forward(self, waves: Waves) -> Frames:
        """Compute frames; the values on padding are zero."""

    @abstractmethod
    def count(self, samples: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Count the frames of utterances of these lengths in samples."""

    def fit(self, waves: Iterable[Waves]) -> None:
        """See the corpus once before training, into buffers; for statistics such as global normalisation."""
