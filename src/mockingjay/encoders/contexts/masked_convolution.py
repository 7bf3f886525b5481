"""Convolutions that never see the frame they speak of: the context of NPC.

Liu, Chung, Glass 2020 (NPC, arXiv 2011.00406, section 2): plain blocks read a little further with every layer, and on
each of them stands a wide convolution whose middle is blind. As blocks read one frame further to either side, the blind
part grows by one on either side too, so that nothing from within the mask ever comes round. Their sum is the
representation.

Differs from the code: blind taps are left out and not multiplied by zero, which is the same sum in a third of the time;
statistics of the batch are taken over valid steps only.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.core.types import Frames, Hidden
from mockingjay.encoders.contexts.context import Context
from mockingjay.encoders.convolution import Convolution
from mockingjay.encoders.dropout import dropout
from mockingjay.encoders.norms import Norm, SequenceNorm


class MaskedConvolution(Context):
    """Layers are the blocks, which see what they stand for, and on top what is around, which does not.

    In training, batch normalisation makes an utterance depend on its batch-mates; in evaluation nothing does.
    Statistics of a norm over the batch, in training, or over the utterance, always, know of the frame that the top
    layer is blind to; norms over the channels of a step do not.

    Attributes:
        reach: Frames from the one spoken of to the nearest that the top layer sees.
    """

    class Config(Table):
        """Defaults are NPC's (code)."""

        kind: Literal["masked-convolution"] = "masked-convolution"
        blocks: int = Field(default=4, ge=1, le=100)
        """Blocks, and blind convolutions on them."""
        dim: int = Field(default=512, ge=1, le=65_536)
        """Width of every layer."""
        kernel: int = Field(default=15, ge=3, le=100_001)
        """Frames that each blind convolution covers, its blind ones included; odd."""
        mask: int = Field(default=5, ge=1, le=99_999)
        """Frames in the middle of which the top layer knows nothing; odd."""
        norm: Norm = "batch"
        """After each convolution of a block."""
        dropout: float = Field(default=0.1, ge=0, lt=1)
        """Dropout at the end of each block."""
        residual: bool = True
        """Add to each block's output what it read, where the widths match."""

        @model_validator(mode="after")
        def _sees_something(self) -> "MaskedConvolution.Config":
            if self.kernel % 2 == 0 or self.mask % 2 == 0:
                raise ValueError(f"kernel {self.kernel} and mask {self.mask} must be odd")
            if self.mask + 2 * self.blocks >= self.kernel:
                raise ValueError(
                    f"kernel {self.kernel} is blind in the top of {self.blocks} blocks, "
                    f"expected more than mask + 2 · blocks = {self.mask + 2 * self.blocks}"
                )
            return self

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.dim, self.depth, self.stride, self.causal = config.dim, config.blocks + 1, 1, False
        self.reach = config.mask // 2 + 1
        widths = [inputs, *[config.dim] * (config.blocks - 1)]
        self.blocks = nn.ModuleList(_Block(width, config) for width in widths)
        self.around = nn.ModuleList(
            _Around(config.dim, config.kernel, config.mask + 2 * number) for number in range(1, config.blocks + 1)
        )

    def forward(self, frames: Frames) -> Hidden:
        valid = frames.valid
        values = frames.values * valid[:, :, None]
        layers, total = [], torch.zeros(())
        for block, around in zip(self.blocks, self.around):
            values = block(values, valid)
            layers.append(values)
            total = total + around(values)
        return Hidden((*layers, total), frames.lengths)


class _Block(nn.Module):
    """A convolution over three frames and a linear map, each with a norm; padding stays zero."""

    def __init__(self, inputs: int, config: MaskedConvolution.Config) -> None:
        super().__init__()
        self.dropout, self.residual = config.dropout, config.residual and inputs == config.dim
        bias = config.norm == "none"  # every norm has a shift of its own
        self.convolve = Convolution(inputs, config.dim, 3, bias=bias)
        self.linear = nn.Linear(config.dim, config.dim, bias=bias)
        self.norms = nn.ModuleList(SequenceNorm(config.norm, config.dim) for _ in range(2))

    def forward(
        self, values: Float[Tensor, "batch time inputs"], valid: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time dim"]:
        """Run the block."""
        said = F.relu(self.norms[0](self.convolve(values, padding=1), valid))
        said = dropout(self.norms[1](self.linear(said), valid), self.dropout, self.training)
        return F.relu(said + values if self.residual else said) * valid[:, :, None]


class _Around(nn.Module):
    """A convolution over `kernel` frames without the `mask` in their middle, and a hyperbolic tangent (code)."""

    def __init__(self, dim: int, kernel: int, mask: int) -> None:
        super().__init__()
        self.padding, self.taps = kernel // 2, (kernel - mask) // 2
        self.before = Convolution(dim, dim, self.taps)
        self.after = Convolution(dim, dim, self.taps, bias=False)
        bound = (2 * self.taps * dim) ** -0.5  # as torch's own convolution of so many inputs begins
        for side in (self.before, self.after):
            nn.init.uniform_(side.weight, -bound, bound)

    def forward(self, values: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        """Say for each frame what is around it; beyond both ends lie zeros."""
        padded = F.pad(values, (0, 0, self.padding, self.padding))
        count = values.shape[1] + self.taps - 1
        return torch.tanh(self.before(padded[:, :count]) + self.after(padded[:, -count:]))
