"""Recurrent layers with a quantiser after one of them: the context of VQ-APC.

Chung, Tang, Glass 2020 (VQ-APC, arXiv 2005.08392, section 2): what the quantised layer says goes on as one of a few
codes, so that it must keep what foretells the future best and drop the rest. Those who use the encoder read the layers
as they are before quantisation (code).
"""

from typing import Literal

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from mockingjay.core.draw import Draw
from mockingjay.core.types import Frames, Hidden
from mockingjay.encoders.contexts.context import Context
from mockingjay.encoders.contexts.recurrent import Recurrent, Stack
from mockingjay.encoders.dropout import dropout
from mockingjay.encoders.gumbel import GumbelQuantiser
from mockingjay.encoders.quantise import Chosen


class QuantisedRecurrent(Context):
    """A stack that reads the past alone, one of whose layers is read by what follows it as codes."""

    class Config(Recurrent.Config):
        """Defaults are VQ-APC's (code), with the codes after the top layer."""

        kind: Literal["quantised-recurrent"] = "quantised-recurrent"  # pyright: ignore[reportIncompatibleVariableOverride]
        after: int = Field(default=3, ge=1, le=256)
        """The layer that is quantised, counted from the bottom from 1."""
        quantiser: GumbelQuantiser.Config = GumbelQuantiser.Config()
        """Its codes: 128, 256 or 512 (section 3)."""

        @model_validator(mode="after")
        def _has_the_layer(self) -> "QuantisedRecurrent.Config":
            if self.after > self.layers:
                raise ValueError(f"after {self.after} is above the top, expected at most layers {self.layers}")
            if self.dim % self.quantiser.groups:
                raise ValueError(f"dim {self.dim} must be a multiple of quantiser.groups {self.quantiser.groups}")
            return self

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.dim, self.depth, self.stride, self.causal = config.dim, config.layers, 1, True
        self.dropout, above = config.dropout, config.layers - config.after
        self.lower = Stack(config.cell, inputs, config.dim, config.after, config.dropout, config.residual)
        self.upper = (
            Stack(config.cell, config.dim, config.dim, above, config.dropout, config.residual) if above else None
        )
        self.quantiser = GumbelQuantiser(config.quantiser, config.dim)

    def forward(self, frames: Frames) -> Hidden:
        return self.read(frames, None, ())[0]

    def read(
        self, frames: Frames, draw: Draw | None, ids: tuple[str, ...]
    ) -> tuple[Hidden, Float[Tensor, "batch time dim"], Chosen]:
        """Read a batch; in training codes are drawn for these utterances, without a draw the likeliest are taken.

        Returns:
            The layers, what the top says once all that is quantised is, and the codes.
        """
        layers = self.lower(frames.values)
        below = layers[-1] if self.upper is None else dropout(layers[-1], self.dropout, self.training)
        chosen = self.quantiser(below, draw, ids)
        if self.upper is None:
            return Hidden(layers, frames.lengths), chosen.values, chosen
        layers = (*layers, *self.upper(chosen.values))
        return Hidden(layers, frames.lengths), layers[-1], chosen
