"""Two stacks of causal convolutions that never mix, one reading forward and one backward: bidirectional CPC's context.

Kawakami et al. 2020 (arXiv 2001.11128): a bidirectional predictive model with dense residual connections. The backward
stack runs over each utterance turned around within its own length, so that it is causal in its own direction and
padding comes last in both.

Differs from the paper: sizes are ours, since its text was not at hand: kernels grow from 1 to 13 steps.
"""

from typing import Literal

import torch
from pydantic import Field

from mockingjay.core.config import Config as Table
from mockingjay.core.types import Frames, Hidden
from mockingjay.encoders.contexts.causal_convolution import ConvolutionStack, Kernel, Skip, unless_full
from mockingjay.encoders.contexts.context import Context
from mockingjay.encoders.contexts.one_way_pair import reverse
from mockingjay.encoders.norms import Norm


class ConvolutionPair(Context):
    """Layers are [forward ; backward]; they are the convolutions only."""

    class Config(Table):
        """Thirteen growing kernels a direction (ours)."""

        kind: Literal["convolution-pair"] = "convolution-pair"
        kernels: tuple[Kernel, ...] = Field(default=tuple(range(1, 14)), min_length=1, max_length=100)
        """Steps each layer reads in its direction."""
        dim: int = Field(default=1024, ge=4, multiple_of=2, le=65_536)
        """Width of every layer, half of it forward and half backward."""
        norm: Norm = "channel"
        """After each convolution; over the channels of each step no direction sees beyond the present one."""
        skip: Skip = "dense"
        """What a layer reads or adds besides the layer below."""

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.dim, self.depth, self.stride, self.causal = config.dim, len(config.kernels), 1, False
        sizes = (inputs, config.dim // 2, config.kernels, config.norm, config.skip)
        self.onward, self.backward = ConvolutionStack(*sizes), ConvolutionStack(*sizes)

    def forward(self, frames: Frames) -> Hidden:
        valid, lengths = unless_full(frames), frames.lengths
        onward = self.onward(frames.values, valid)
        backward = self.backward(reverse(frames.values, lengths), valid)
        pairs = zip(onward, (reverse(layer, lengths) for layer in backward))
        return Hidden(tuple(torch.cat(pair, -1) for pair in pairs), lengths)
