"""Two strided convolutions in time and frequency under a Transformer: the encoder of MPC, four frames a step.

Jiang et al. 2019 (MPC, arXiv 1910.09932); sizes are the code's. Step t reads frames 4t to 4t + 6, as unpadded
convolutions would with one zero at the far end of each axis.

Differs from the code: statistics of batch normalisation are taken over valid steps only, and norms of the Transformer
have BERT's epsilon, 1e-12 for 1e-8.
"""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames, Hidden, valid_steps
from mockingjay.encoders.attention import Block
from mockingjay.encoders.contexts.context import Context
from mockingjay.encoders.contexts.transformer import Transformer, climb, initialise, positions
from mockingjay.encoders.dropout import dropout
from mockingjay.encoders.norms import MaskedBatchNorm

STRIDE = 4  # frames per step, and channels per column: two convolutions of stride 2


class SubsampledTransformer(Context):
    """Convolutions of stride 2 twice, then a post-norm Transformer; layer 0 is what the first block reads.

    In training, batch normalisation makes an utterance depend on its batch-mates; in evaluation nothing does.
    """

    class Config(Transformer.Config):
        """Defaults are MPC's (code)."""

        kind: Literal["subsampled-transformer"] = "subsampled-transformer"  # pyright: ignore[reportIncompatibleVariableOverride]
        filters: int = Field(default=512, ge=1, le=65_536)
        """Channels of both convolutions."""
        layers: int = Field(default=12, ge=1, le=256)
        """Transformer layers."""
        dim: int = Field(default=512, ge=2, le=65_536)
        """Width of every layer."""
        feedforward: int = Field(default=1280, ge=1, le=262_144)
        """Width between the two feed-forward matrices; 2048 for LibriSpeech (code)."""
        heads: int = Field(default=8, ge=1, le=1024)
        """Attention heads; must divide dim."""

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        if inputs < STRIDE:
            raise ConfigError(
                f"context: frames of {inputs} channels, expected at least {STRIDE} to halve twice; "
                "choose a frontend with more"
            )
        self.dim, self.depth, self.stride, self.causal = config.dim, config.layers + 1, STRIDE, False
        self.dropout = config.dropout
        self.first = _Halving(1, config.filters)
        self.second = _Halving(config.filters, config.filters)
        self.project = nn.Linear(config.filters * (inputs // STRIDE), config.dim)
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, config.feedforward, config.dropout, config.attention_dropout)
            for _ in range(config.layers)
        )
        self.apply(initialise)

    def forward(self, frames: Frames) -> Hidden:
        """Read a batch; the last frames that fill no step are dropped."""
        lengths = frames.lengths // STRIDE
        steps = max(1, frames.values.shape[1] // STRIDE)
        values = F.pad(frames.values, (0, 0, 0, max(0, STRIDE - frames.values.shape[1])))[:, : steps * STRIDE]
        values = values.masked_fill(~valid_steps(lengths * STRIDE, steps * STRIDE)[:, :, None], 0.0)
        images = self.first(values[:, None], valid_steps(lengths * 2, steps * 2))
        images = self.second(images, valid_steps(lengths, steps))
        projected = F.relu6(self.project(images.transpose(1, 2).flatten(2)))
        embedded = dropout(projected + positions(steps, self.dim, projected), self.dropout, self.training)
        return climb(self.blocks, Frames(embedded, lengths))


class _Halving(nn.Module):
    """A 3 × 3 convolution that halves time and frequency, with normalisation and ReLU6; padding stays zero."""

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(inputs, filters, 3, stride=2, bias=False)
        self.norm = MaskedBatchNorm(filters)

    def forward(
        self, images: Float[Tensor, "batch inputs time channels"], valid: Bool[Tensor, "batch half"]
    ) -> Float[Tensor, "batch filters half columns"]:
        mask = valid[:, None, :, None]
        return F.relu6(self.norm(self.convolve(F.pad(images, (0, 1, 0, 1))), mask)).masked_fill(~mask, 0.0)
