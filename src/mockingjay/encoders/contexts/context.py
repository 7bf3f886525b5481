"""The second storey: frames → hidden states."""

from abc import ABC, abstractmethod

from torch import nn

from mockingjay.core.types import Frames, Hidden


class Context(nn.Module, ABC):
    """Reads frames and returns every layer's output.

    Attributes:
        dim: Width of every layer.
        depth: How many layers `forward` returns, the input projection included.
        stride: Frames per time step.
        causal: Whether step t depends on frames up to t alone.
    """

    dim: int
    depth: int
    stride: int
    causal: bool

    @abstractmethod
    def forward(self, frames: Frames) -> Hidden:
        """Read a batch; padding reaches neither lengths nor valid steps."""
