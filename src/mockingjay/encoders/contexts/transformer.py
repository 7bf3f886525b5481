"""The BERT-flavoured Transformer encoder of Mockingjay and TERA.

Features are projected linearly before the sinusoids are added, because adding positions to raw features can break
training; sinusoids rather than learned positions, because lengths vary (Mockingjay, arXiv 1910.12638, section 2.1). Any
length runs.
"""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from mockingjay.core import config
from mockingjay.core.types import Frames, Hidden, valid_steps
from mockingjay.encoders.attention import Block
from mockingjay.encoders.contexts.context import Context
from mockingjay.encoders.dropout import dropout


def positions(time: int, dim: int, like: Tensor) -> Float[Tensor, "time dim"]:
    """Even columns sin, odd columns cos of position / 10000^(2⌊column/2⌋/dim) (Vaswani et al. 2017, section 3.5)."""
    rates = torch.exp(torch.arange(0, dim, 2, device=like.device) * (-math.log(10_000.0) / dim))
    angles = torch.arange(time, device=like.device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(like.dtype)


class Transformer(Context):
    """A bidirectional post-norm Transformer; layer 0 of its output is the normalised input projection."""

    class Config(config.Config):
        """Defaults are Mockingjay BASE (Table 1)."""

        kind: Literal["transformer"] = "transformer"
        layers: int = Field(default=3, ge=1, le=256)
        """Transformer layers."""
        dim: int = Field(default=768, ge=2, le=65_536)
        """Width of every layer."""
        feedforward: int = Field(default=3072, ge=1, le=262_144)
        """Width between the two feed-forward matrices."""
        heads: int = Field(default=12, ge=1, le=1024)
        """Attention heads; must divide dim."""
        dropout: float = Field(default=0.1, ge=0, lt=1)
        """Dropout after the input projection, attention and feed-forward."""
        attention_dropout: float = Field(default=0.1, ge=0, lt=1)
        """Dropout on attention probabilities; 0 is 2.6 times faster on a CPU."""

        @model_validator(mode="after")
        def _divides(self) -> "Transformer.Config":
            if self.dim % self.heads or self.dim % 2:
                raise ValueError(f"dim {self.dim} must be even and a multiple of heads {self.heads}")
            return self

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.dim, self.depth, self.stride, self.causal = config.dim, config.layers + 1, 1, False
        self.dropout = config.dropout
        self.project = nn.Linear(inputs, config.dim)
        self.norm = nn.LayerNorm(config.dim, eps=1e-12)
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, config.feedforward, config.dropout, config.attention_dropout)
            for _ in range(config.layers)
        )
        self.apply(initialise)

    def forward(self, frames: Frames) -> Hidden:
        time = frames.values.shape[1]
        projected = self.project(frames.values)
        hidden = self.norm(projected + positions(time, self.dim, projected))
        return climb(self.blocks, Frames(dropout(hidden, self.dropout, self.training), frames.lengths))


def climb(blocks: Iterable[nn.Module], frames: Frames) -> Hidden:
    """Run blocks one on top of the other, keeping what each of them and the lowest one read."""
    layers = [frames.values]
    # Without padding SDPA needs no mask and takes its fastest path; asking costs a synchronisation on CUDA only.
    full = not frames.values.is_cuda and bool((frames.lengths == frames.values.shape[1]).all())
    # What has no step sees its padding, as windows behind an utterance's end do: to see nothing has no gradient.
    allowed = None if full else valid_steps(frames.lengths.clamp(min=1), frames.values.shape[1])[:, None, None, :]
    for block in blocks:
        layers.append(block(layers[-1], allowed))
    return Hidden(tuple(layers), frames.lengths)


def initialise(module: nn.Module) -> None:
    """Initialise as BERT: weights N(0, 0.02), biases 0, norms 1 and 0."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
