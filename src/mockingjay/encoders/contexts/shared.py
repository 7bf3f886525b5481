"""A Transformer whose layers are one block, passed through again and again: the encoder of Audio ALBERT.

Lan et al. 2020 (ALBERT, arXiv 1909.11942) share all weights across layers; Chi et al. 2021 (Audio ALBERT, arXiv
2005.08575) do so for speech. The number of parameters does not depend on the number of passes, the work does. The block
is held once, so a saved file, a copy and the optimiser hold it once too, and its gradient is the sum over all passes.
"""

from typing import Literal

from pydantic import Field
from torch import nn

from mockingjay.core.types import Frames, Hidden
from mockingjay.encoders.attention import Block
from mockingjay.encoders.contexts.context import Context
from mockingjay.encoders.contexts.transformer import Transformer, climb, initialise, positions
from mockingjay.encoders.dropout import dropout


class SharedTransformer(Context):
    """A bidirectional post-norm Transformer of one block; layer 0 of its output is the normalised input projection."""

    class Config(Transformer.Config):
        """Defaults are Audio ALBERT's: six passes, no dropout (code); sizes are the Transformer's."""

        kind: Literal["shared-transformer"] = "shared-transformer"  # pyright: ignore[reportIncompatibleVariableOverride]
        layers: int = Field(default=6, ge=1, le=256)
        """Passes through the block."""
        dropout: float = Field(default=0.0, ge=0, lt=1)
        """Dropout after the input projection, attention and feed-forward."""
        attention_dropout: float = Field(default=0.0, ge=0, lt=1)
        """Dropout on attention probabilities."""

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.dim, self.depth, self.stride, self.causal = config.dim, config.layers + 1, 1, False
        self.dropout, self.passes = config.dropout, config.layers
        self.project = nn.Linear(inputs, config.dim)
        self.norm = nn.LayerNorm(config.dim, eps=1e-12)
        self.block = Block(config.dim, config.heads, config.feedforward, config.dropout, config.attention_dropout)
        self.block.attention.passes = config.layers
        self.apply(initialise)

    def forward(self, frames: Frames) -> Hidden:
        projected = self.project(frames.values)
        embedded = self.norm(projected + positions(frames.values.shape[1], self.dim, projected))
        inputs = Frames(dropout(embedded, self.dropout, self.training), frames.lengths)
        return climb([self.block] * self.passes, inputs)
