"""The small networks that read a representation: what is trained when everything else is frozen.

A head first *thins* what it is given, by choosing or averaging steps, and then guesses from what is left. Thinning is
linear over time, so it commutes with mixing and standardising layers: cached hidden states are stored thinned, which
for an utterance task with mean pooling is one vector per utterance.
"""

from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames, valid_steps
from mockingjay.downstream.mix import Mixed
from mockingjay.downstream.tasks.task import Resolution
from mockingjay.encoders.contexts.bidirectional import Bidirectional
from mockingjay.encoders.contexts.recurrent import recur

HeadKind = Literal["linear", "linear256", "mlp1", "mlp2", "gru", "blstm", "blstm1024"]
_CELLS = {"blstm": 128, "blstm1024": 1024}  # per direction, and width of what they read


class Head(nn.Module, ABC):
    """Hidden states → logits.

    Attributes:
        sequential: Whether it reads steps in order; otherwise rows of different utterances may be shuffled together.
    """

    sequential: bool

    @abstractmethod
    def thin(
        self, stack: Float[Tensor, "layers batch time dim"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "layers batch rows dim"], Int[Tensor, " batch"]]:
        """Keep what the head reads; padding reaches none of it."""

    @abstractmethod
    def kept(self, steps: int) -> int:
        """Count the steps `thin` leaves of an utterance."""

    @abstractmethod
    def forward(self, mixed: Mixed, lengths: Int[Tensor, " batch"]) -> Float[Tensor, "batch guesses classes"]:
        """Guess from thinned states: one row of logits per utterance for utterance tasks, one per step otherwise."""


class Pointwise(Head):
    """The same layers on every row; utterance tasks read the mean of the utterance's own steps."""

    def __init__(self, layers: nn.Sequential, resolution: Resolution) -> None:
        super().__init__()
        self.layers = layers
        self.pool = resolution == "utterance"
        self.sequential = resolution == "sequence"

    def thin(
        self, stack: Float[Tensor, "layers batch time dim"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "layers batch rows dim"], Int[Tensor, " batch"]]:
        return (masked_mean(stack, lengths), torch.ones_like(lengths)) if self.pool else (stack, lengths)

    def kept(self, steps: int) -> int:
        return 1 if self.pool else steps

    def forward(self, mixed: Mixed, lengths: Int[Tensor, " batch"]) -> Float[Tensor, "batch guesses classes"]:
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        values = F.linear(mixed.values, first.weight * mixed.scale, first.bias + first.weight @ mixed.shift)
        return self.layers[1:](values)


class Recurrent(Head):
    """Mockingjay's utterance classifier: a one-layer GRU, its last valid state, one hidden layer.

    Cells, the hidden layer and the stride are the released code's. Differs from it: this one hears the whole utterance;
    for speakers the released one is given the first third of each alone.
    """

    sequential = True
    stride = 5  # steps

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.gru = nn.GRU(dim, 32, batch_first=True)
        self.layers = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, classes))

    def thin(
        self, stack: Float[Tensor, "layers batch time dim"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "layers batch rows dim"], Int[Tensor, " batch"]]:
        return stack[:, :, :: self.stride], (lengths + self.stride - 1) // self.stride

    def kept(self, steps: int) -> int:
        return -(-steps // self.stride)

    def forward(self, mixed: Mixed, lengths: Int[Tensor, " batch"]) -> Float[Tensor, "batch guesses classes"]:
        states, _ = recur(self.gru, mixed.standardised)
        last = states[torch.arange(len(states), device=states.device), lengths - 1]
        return self.layers(last)[:, None]


class BothWays(Head):
    """A projection, two bidirectional LSTM layers with dropout 0.2 between, and a linear layer on every step."""

    sequential = True

    def __init__(self, dim: int, classes: int, cells: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, cells)
        self.lstm = Bidirectional(Bidirectional.Config(layers=2, dim=2 * cells, dropout=0.2), cells)
        self.last = nn.Linear(2 * cells, classes)

    def thin(
        self, stack: Float[Tensor, "layers batch time dim"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "layers batch rows dim"], Int[Tensor, " batch"]]:
        return stack, lengths

    def kept(self, steps: int) -> int:
        return steps

    def forward(self, mixed: Mixed, lengths: Int[Tensor, " batch"]) -> Float[Tensor, "batch guesses classes"]:
        return self.last(self.lstm(Frames(self.project(mixed.standardised), lengths)).last)


def build_head(kind: HeadKind, dim: int, classes: int, resolution: Resolution) -> Head:
    """Build a head with fresh weights.

    Args:
        kind: `linear`; `linear256`, two linear layers with 256 values between, as SUPERB has them (Yang et al. 2021,
            arXiv 2105.01051); `mlp1`, one hidden layer of 768 (s3prl's `phone_1hidden`); `mlp2`, two of 768 with
            dropout 0.2, which Mockingjay's released code calls linear; `gru`, for utterance tasks only; for sequences
            only `blstm`, 128 cells a direction (ours), and `blstm1024`, as SUPERB recognises characters (its code).
        dim: Width of the representation.
        classes: How many there are.
        resolution: The task's.

    Raises:
        ConfigError: The head cannot answer at that resolution.
    """
    if kind == "gru":
        if resolution != "utterance":
            raise ConfigError(
                f"probe.head: gru gives one answer per utterance, expected a head for {resolution}s; "
                "choose linear, mlp1 or mlp2"
            )
        return Recurrent(dim, classes)
    if kind in _CELLS:
        if resolution != "sequence":
            raise ConfigError(
                f"probe.head: {kind} spells sequences, expected a head for {resolution}s; choose linear, mlp1 or mlp2"
            )
        return BothWays(dim, classes, _CELLS[kind])
    return Pointwise(_layers(kind, dim, classes), resolution)


def masked_mean(
    stack: Float[Tensor, "layers batch time dim"], lengths: Int[Tensor, " batch"]
) -> Float[Tensor, "layers batch 1 dim"]:
    """Average each utterance over its own steps."""
    padding = ~valid_steps(lengths, stack.shape[2])[..., None]
    return stack.masked_fill(padding, 0).sum(2, keepdim=True) / lengths[:, None, None]


def _layers(kind: str, dim: int, classes: int) -> nn.Sequential:
    if kind == "linear":
        return nn.Sequential(nn.Linear(dim, classes))
    if kind == "linear256":
        return nn.Sequential(nn.Linear(dim, 256), nn.Linear(256, classes))
    if kind == "mlp1":
        return nn.Sequential(nn.Linear(dim, 768), nn.ReLU(), nn.Linear(768, classes))
    hidden = [nn.Linear(dim, 768), nn.Dropout(0.2), nn.ReLU(), nn.Linear(768, 768), nn.Dropout(0.2), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(768, classes))
