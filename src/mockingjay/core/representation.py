"""Everything downstream knows: a representation turns waves into hidden states on a known grid."""

from abc import ABC, abstractmethod

from torch import nn

from mockingjay.core.types import Grid, Hidden, Waves


class Representation(nn.Module, ABC):
    """Anything that turns waves into hidden states: our encoders, log-mel itself, other people's models.

    Attributes:
        dim: Width of every layer.
        depth: How many layers `forward` returns.
        grid: Where the time steps lie; `grid.hop` is in samples.
        receptive: Samples an utterance must have to give at least one step.
        reads: Values a frame of the files of features it reads; None where it reads sound.
    """

    dim: int
    depth: int
    grid: Grid
    receptive: int
    reads: int | None = None

    @abstractmethod
    def forward(self, waves: Waves) -> Hidden:
        """Represent a batch; padding reaches neither lengths nor valid steps."""

    @property
    def hop(self) -> int:
        """Samples per time step."""
        return self.grid.hop
