"""Recurrent layers that read one way: the context of APC and its kin.

Chung et al. 2019 (APC, arXiv 1904.03240): each layer's output is added to what it read wherever the widths match, so
that the top layer, from which the future is foretold, keeps the lower ones within reach. Run over the padded batch as
it is: what reads forward has answered every valid step before it meets the padding, so that neither sorting nor packing
is needed.
"""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.core.types import Frames, Hidden
from mockingjay.encoders.contexts.context import Context

Cell = Literal["gru", "lstm"]
CELLS: dict[Cell, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}


class Stack(nn.Module):
    """Recurrent layers, one above the other; returns what each of them says.

    Args:
        cell: Kind of every layer.
        inputs: Width of what the lowest layer reads.
        dim: Width of every layer.
        layers: How many there are.
        dropout: After every layer but the top one.
        residual: Whether a layer adds what it read to what it says, where the widths match.
    """

    def __init__(
        self, cell: Cell, inputs: int, dim: int, layers: int, dropout: float = 0.0, residual: bool = False
    ) -> None:
        super().__init__()
        self.dropout, self.residual = dropout, residual
        widths = [inputs, *[dim] * (layers - 1)]
        # A layer each, because one module of many layers would return the top one alone.
        self.cells = nn.ModuleList(CELLS[cell](width, dim, batch_first=True) for width in widths)

    def forward(self, values: Float[Tensor, "batch time inputs"]) -> tuple[Float[Tensor, "batch time dim"], ...]:
        """Read from the first step to the last; the lowest layer comes first."""
        layers = []
        for number, cell in enumerate(self.cells, 1):
            said = cell(values)[0]
            if number < len(self.cells):
                said = F.dropout(said, self.dropout, self.training)
            values = said + values if self.residual and said.shape == values.shape else said
            layers.append(values)
        return tuple(layers)


class Recurrent(Context):
    """A stack that reads the past alone.

    Its layers are the recurrent ones only: what the first of them reads has the frames' width.
    """

    class Config(Table):
        """Defaults are APC's (code)."""

        kind: Literal["recurrent"] = "recurrent"
        cell: Cell = "gru"
        """GRU as in the released code, or LSTM."""
        layers: int = Field(default=3, ge=1)
        """Recurrent layers."""
        dim: int = Field(default=512, ge=1)
        """Width of every layer."""
        dropout: float = Field(default=0.0, ge=0, lt=1)
        """Dropout after every layer but the top one."""
        residual: bool = True
        """Add to each layer's output what it read, where the widths match."""

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.dim, self.depth, self.stride, self.causal = config.dim, config.layers, 1, True
        self.stack = Stack(config.cell, inputs, config.dim, config.layers, config.dropout, config.residual)

    def forward(self, frames: Frames) -> Hidden:
        return Hidden(self.stack(frames.values), frames.lengths)
