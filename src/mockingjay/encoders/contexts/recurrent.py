"""Recurrent layers that read one way: the context of APC and its kin.

Chung et al. 2019 (APC, arXiv 1904.03240): each layer's output is added to what it read wherever the widths match, so
that the top layer, from which the future is foretold, keeps the lower ones within reach. Run over the padded batch as
it is: what reads forward has answered every valid step before it meets the padding, so that neither sorting nor packing
is needed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.core.types import Frames, Hidden
from mockingjay.encoders.contexts.context import Context
from mockingjay.encoders.dropout import dropout

Cell = Literal["gru", "lstm"]
CELLS: dict[Cell, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}


def recur(
    cell: nn.Module, values: Float[Tensor, "batch time inputs"], states: Any = None
) -> tuple[Float[Tensor, "batch time outputs"], Any]:
    """Read with a recurrent network in its weights' own type, whatever autocast would make of it.

    On CUDA autocast hands cuDNN's networks float16, also where bfloat16 was asked for; the gradients of our losses,
    which are sums over cells and are scaled down afterwards, do not fit there.
    """
    own = next(chain(cell.parameters(), cell.buffers())).dtype  # buffers of what is listened to (see Recogniser)
    with torch.autocast(values.device.type, enabled=False):
        return cell(values.to(own), states.to(own) if isinstance(states, Tensor) else states)


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
        # The states the last call ended in, kept by `carrying` for as long as it is open.
        self.states: list[Any] | None = None

    def forward(self, values: Float[Tensor, "batch time inputs"]) -> tuple[Float[Tensor, "batch time dim"], ...]:
        """Read from the first step to the last; the lowest layer comes first."""
        layers, states = [], self.states or [None] * len(self.cells)
        for number, cell in enumerate(self.cells, 1):
            said, states[number - 1] = recur(cell, values, states[number - 1])
            if number < len(self.cells):
                said = dropout(said, self.dropout, self.training)
            values = said + values if self.residual and said.shape == values.shape else said
            layers.append(values)
        if self.states is not None:
            self.states = states
        return tuple(layers)


@contextmanager
def carrying(module: nn.Module) -> Iterator[None]:
    """Let every stack of a module begin where its last call ended: a recording in stretches is read as one."""
    stacks = [part for part in module.modules() if isinstance(part, Stack)]
    for stack in stacks:
        stack.states = []
    try:
        yield
    finally:
        for stack in stacks:
            stack.states = None


class Recurrent(Context):
    """A stack that reads the past alone.

    Its layers are the recurrent ones only: what the first of them reads has the frames' width.
    """

    class Config(Table):
        """Defaults are APC's (code)."""

        kind: Literal["recurrent"] = "recurrent"
        cell: Cell = "gru"
        """GRU as in the released code, or LSTM."""
        layers: int = Field(default=3, ge=1, le=256)
        """Recurrent layers."""
        dim: int = Field(default=512, ge=1, le=65_536)
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
