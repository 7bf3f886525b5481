"""Recurrent layers that read both ways: every layer reads both directions of the one below.

Schuster and Paliwal 1997, with the LSTM cells of Graves and Schmidhuber 2005: the encoder of masked reconstruction
(Wang et al. 2020, arXiv 2001.10603). Run over the padded batch, the backward direction over each utterance turned
around within its own length, so that padding comes last in both and reaches nothing.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.core.types import Frames, Hidden
from mockingjay.encoders.contexts.context import Context
from mockingjay.encoders.contexts.one_way_pair import reverse
from mockingjay.encoders.contexts.recurrent import Cell, Stack
from mockingjay.encoders.dropout import dropout


class Bidirectional(Context):
    """Layers are [forward ; backward]; they are the recurrent ones only, for what the first reads is narrower."""

    class Config(Table):
        """Defaults are four layers of 512 LSTM cells a direction (ours)."""

        kind: Literal["bidirectional"] = "bidirectional"
        cell: Cell = "lstm"
        """LSTM, or GRU."""
        layers: int = Field(default=4, ge=1, le=256)
        """Recurrent layers."""
        dim: int = Field(default=1024, ge=2, multiple_of=2, le=65_536)
        """Width of every layer, half of it forward and half backward."""
        dropout: float = Field(default=0.0, ge=0, lt=1)
        """Dropout after every layer but the top one."""
        linear_input: bool = False
        """Read frames through a linear input network: a square matrix and a bias that start as the identity, for
        adapting to another domain while all else stays."""

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.dim, self.depth, self.stride, self.causal = config.dim, config.layers, 1, False
        self.dropout = config.dropout
        self.linear_input = nn.Linear(inputs, inputs) if config.linear_input else None
        if self.linear_input is not None:
            nn.init.eye_(self.linear_input.weight)
            nn.init.zeros_(self.linear_input.bias)
        widths = [inputs, *[config.dim] * (config.layers - 1)]
        half = config.dim // 2
        self.onward = nn.ModuleList(Stack(config.cell, width, half, layers=1) for width in widths)
        self.backward = nn.ModuleList(Stack(config.cell, width, half, layers=1) for width in widths)

    def forward(self, frames: Frames) -> Hidden:
        values = frames.values if self.linear_input is None else self.linear_input(frames.values)
        layers: list[Tensor] = []
        for onward, backward in zip(self.onward, self.backward):
            if layers:
                values = dropout(layers[-1], self.dropout, self.training)
            turned = reverse(backward(reverse(values, frames.lengths))[0], frames.lengths)
            layers.append(torch.cat([onward(values)[0], turned], -1))
        return Hidden(tuple(layers), frames.lengths)
