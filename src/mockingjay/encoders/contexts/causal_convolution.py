"""Convolutions that read the past alone: the context of wav2vec, base and large, and of bidirectional CPC.

Schneider et al. 2019 (wav2vec, arXiv 1904.05862, section 2.1); before the first step its own values are repeated, and
layers of the large model add what they read, scaled by √½ (code). Densely connected layers read the sum of all before
them, and so does what reads the last (Kawakami et al. 2020, arXiv 2001.11128).
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.core.types import Frames, Hidden
from mockingjay.encoders.contexts.context import Context
from mockingjay.encoders.convolution import Convolution
from mockingjay.encoders.norms import PER_STEP, Norm, SequenceNorm

Skip = Literal["none", "residual", "dense"]
Kernel = Annotated[int, Field(ge=1)]  # steps


class ConvolutionStack(nn.Module):
    """Causal convolutions, one above the other, each followed by a norm and a ReLU; returns what each of them says.

    Args:
        inputs: Width of what the lowest layer reads.
        dim: Width of every layer.
        kernels: Steps each layer reads, the last of them the present one.
        norm: As `SequenceNorm` has it.
        skip: 'residual': a layer's output is √½ · (what it says + what it read); 'dense': it is the sum of what all
            layers up to it say and of the input, over the root of their number; both where the widths match.
    """

    def __init__(self, inputs: int, dim: int, kernels: tuple[int, ...], norm: Norm, skip: Skip) -> None:
        super().__init__()
        self.skip, self.kernels = skip, kernels
        widths = [inputs, *[dim] * (len(kernels) - 1)]
        self.convolutions = nn.ModuleList(Convolution(width, dim, kernel) for width, kernel in zip(widths, kernels))
        self.norms = nn.ModuleList(SequenceNorm(norm, dim) for _ in kernels)

    def forward(
        self, values: Float[Tensor, "batch time inputs"], valid: Bool[Tensor, "batch time"] | None
    ) -> tuple[Float[Tensor, "batch time dim"], ...]:
        """Read from the first step to the last; the lowest layer comes first."""
        layers: list[Tensor] = []
        total, count = values, 1
        for convolution, norm, kernel in zip(self.convolutions, self.norms, self.kernels):
            before = values[:, :1].expand(-1, kernel - 1, -1)
            said = F.relu(norm(convolution(torch.cat([before, values], 1)), valid))
            fits = said.shape == values.shape
            if self.skip == "residual" and fits:
                said = (said + values) * 0.5**0.5
            if self.skip == "dense":
                total, count = (total + said, count + 1) if fits else (said, 1)
                said = total * count**-0.5
            layers.append(said)
            values = said
        return tuple(layers)


class CausalConvolution(Context):
    """A stack of convolutions; its layers are the convolutions only.

    A norm over the utterance or the batch makes every step know something of the later ones: with it the context is not
    causal, whatever its name says.
    """

    class Config(Table):
        """Defaults are wav2vec base (code)."""

        kind: Literal["causal-convolution"] = "causal-convolution"
        kernels: tuple[Kernel, ...] = Field(default=(3,) * 9, min_length=1, max_length=100)
        """Steps each layer reads."""
        dim: int = Field(default=512, ge=2, le=65_536)
        """Width of every layer."""
        norm: Norm = "group"
        """After each convolution, over: the whole utterance ('group', as published), the channels of each step
        ('channel', 'layer'), the batch ('batch'), or nothing."""
        skip: Skip = "none"
        """What a layer adds: nothing, what it read ('residual', wav2vec large), or all before it ('dense')."""

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.dim, self.depth, self.stride, self.causal = config.dim, len(config.kernels), 1, config.norm in PER_STEP
        self.stack = ConvolutionStack(inputs, config.dim, config.kernels, config.norm, config.skip)

    def forward(self, frames: Frames) -> Hidden:
        return Hidden(self.stack(frames.values, unless_full(frames)), frames.lengths)


def unless_full(frames: Frames) -> Bool[Tensor, "batch time"] | None:
    """Mark what is no padding, or say None where nothing is; asking costs a synchronisation on CUDA only."""
    full = not frames.values.is_cuda and bool((frames.lengths == frames.values.shape[1]).all())
    return None if full else frames.valid
