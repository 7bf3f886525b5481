"""Two recurrent stacks that never mix, one reading forward and one backward: the context of DeCoAR.

Ling et al. 2020 (DeCoAR, arXiv 1912.01679), after ELMo. Because no layer joins the directions, the forward half of step
t knows frames up to t alone and the backward half frames from t on, and whoever takes the halves from different steps
hides what lies between them. The backward stack runs over each utterance turned around within its own length, as the
released inference code does; its training code turns the padding around as well.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.core.types import Frames, Hidden
from mockingjay.encoders.contexts.context import Context
from mockingjay.encoders.contexts.recurrent import Cell, Stack


class OneWayPair(Context):
    """Layers are [forward ; backward]; layer 0 is twice the input projection, since both stacks read it."""

    class Config(Table):
        """Defaults are DeCoAR's (code)."""

        kind: Literal["one-way-pair"] = "one-way-pair"
        cell: Cell = "lstm"
        """LSTM as published, or GRU."""
        layers: int = Field(default=4, ge=1, le=256)
        """Recurrent layers of each stack."""
        dim: int = Field(default=2048, ge=2, multiple_of=2, le=65_536)
        """Width of every layer, half of it forward and half backward."""

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.dim, self.depth, self.stride, self.causal = config.dim, config.layers + 1, 1, False
        half = config.dim // 2
        self.project = nn.Linear(inputs, half)
        self.onward = Stack(config.cell, half, half, config.layers)
        self.backward = Stack(config.cell, half, half, config.layers)

    def forward(self, frames: Frames) -> Hidden:
        projected = self.project(frames.values)
        onward = self.onward(projected)
        backward = [reverse(layer, frames.lengths) for layer in self.backward(reverse(projected, frames.lengths))]
        pairs = zip((projected, *onward), (projected, *backward))
        return Hidden(tuple(torch.cat(pair, -1) for pair in pairs), frames.lengths)


def reverse(values: Float[Tensor, "batch time dim"], lengths: Int[Tensor, " batch"]) -> Float[Tensor, "batch time dim"]:
    """Turn each utterance around within its own length; padding stays where it is. Twice is not at all."""
    batch, time, _ = values.shape
    steps = torch.arange(time, device=values.device)
    mirrored = lengths[:, None] - 1 - steps
    index = torch.where(mirrored >= 0, mirrored, steps) + time * torch.arange(batch, device=values.device)[:, None]
    # Whole rows at once: forward and backward together take half of gather's time.
    return values.flatten(0, 1).index_select(0, index.flatten()).view_as(values)
