"""A bidirectional Transformer that learns where a step stands from what lies around it: wav2vec 2.0's and HuBERT's.

Baevski et al. 2020 (wav2vec 2.0, arXiv 2006.11477, section 2): instead of positions, what one wide convolution over
time says is added to what is read. Steps are told apart by their distance to others, so any length runs.

Layers are left out at random in training (LayerDrop, Fan et al. 2020, arXiv 1909.11556), which torch's generator
decides, that a resumed run seeds alike.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from mockingjay.core.types import Frames, Hidden, valid_steps
from mockingjay.encoders.attention import Block
from mockingjay.encoders.contexts.context import Context
from mockingjay.encoders.contexts.transformer import Transformer, initialise
from mockingjay.encoders.dropout import dropout


class ConvolutionalTransformer(Context):
    """A post-norm Transformer with convolutional positions; layer 0 of its output is what its first block reads."""

    class Config(Transformer.Config):
        """Defaults are wav2vec 2.0 BASE (section 4.2)."""

        kind: Literal["convolutional-transformer"] = "convolutional-transformer"  # pyright: ignore[reportIncompatibleVariableOverride]
        layers: int = Field(default=12, ge=1, le=256)
        """Transformer layers."""
        heads: int = Field(default=8, ge=1, le=1024)
        """Attention heads; must divide dim. The released models have 12 (code)."""
        skip: float = Field(default=0.05, ge=0, lt=1)
        """Probability that a layer is left out in training."""
        kernel: int = Field(default=128, ge=1, le=65_536)
        """Steps that the convolution reads, half of them before the present one."""
        groups: int = Field(default=16, ge=1, le=65_536)
        """Parts of the width that the convolution keeps apart; must divide dim."""

        @model_validator(mode="after")
        def _groups_divide(self) -> "ConvolutionalTransformer.Config":
            if self.dim % self.groups:
                raise ValueError(f"dim {self.dim} must be a multiple of groups {self.groups}")
            return self

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.dim, self.depth, self.stride, self.causal = config.dim, config.layers + 1, 1, False
        self.dropout, self.skip = config.dropout, config.skip
        self.inputs_norm = nn.LayerNorm(inputs)
        self.project = nn.Linear(inputs, config.dim)
        self.positions = _Positions(config.dim, config.kernel, config.groups)
        self.norm = nn.LayerNorm(config.dim)
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, config.feedforward, config.dropout, config.attention_dropout)
            for _ in range(config.layers)
        )
        self.blocks.apply(initialise)

    def forward(self, frames: Frames) -> Hidden:
        return self.read(self.embed(self.inputs_norm(frames.values)), frames.lengths)

    def embed(self, normed: Float[Tensor, "batch time inputs"]) -> Float[Tensor, "batch time dim"]:
        """Project normed frames; what is then hidden is replaced in what is returned."""
        return dropout(self.project(normed), self.dropout, self.training)

    def read(self, embedded: Float[Tensor, "batch time dim"], lengths: Int[Tensor, " batch"]) -> Hidden:
        """Read embedded frames, some of them perhaps replaced."""
        time = embedded.shape[1]
        valid = valid_steps(lengths, time)
        # Without padding SDPA needs no mask and takes its fastest path; asking costs a synchronisation on CUDA only.
        full = not embedded.is_cuda and bool((lengths == time).all())
        embedded = embedded if full else embedded * valid[:, :, None]
        layers = [dropout(self.norm(embedded + self.positions(embedded)), self.dropout, self.training)]
        allowed = None if full else valid[:, None, None, :]
        chances = torch.rand(len(self.blocks)).tolist() if self.training and self.skip else [1.0] * len(self.blocks)
        for block, chance in zip(self.blocks, chances):
            layers.append(block(layers[-1], allowed) if chance >= self.skip else layers[-1])
        return Hidden(tuple(layers), lengths)


class _Positions(nn.Module):
    """A grouped convolution as wide as its input, with a GELU; its weights are a direction and a length for each tap.

    Weight normalisation is that of Salimans and Kingma 2016 (arXiv 1602.07868); that a tap has one length, and how
    weights start, is the code's.
    """

    def __init__(self, dim: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.direction = nn.Parameter(torch.empty(dim, dim // groups, kernel).normal_(std=(4 / (kernel * dim)) ** 0.5))
        # What the directions' lengths are on average: to measure them takes a second of imports on no device.
        self.length = nn.Parameter(torch.full((kernel,), (4 * dim / (kernel * groups)) ** 0.5))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, values: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        """Say what lies around each step; beyond both ends lie zeros."""
        kernel = self.direction.shape[2]
        weight = self.direction * (self.length / torch.linalg.vector_norm(self.direction, dim=(0, 1)))
        padded = F.pad(values.transpose(1, 2), (kernel // 2, (kernel - 1) // 2))
        return F.gelu(F.conv1d(padded, weight, self.bias, groups=self.groups)).transpose(1, 2)
