"""VQ-APC: vector-quantised autoregressive predictive coding.

Y.-A. Chung, H. Tang, J. Glass, "Vector-Quantized Autoregressive Predictive Coding", Interspeech 2020,
arXiv 2005.08392.

APC with its capacity in hand: what one of the recurrent layers says goes on as one of a few codes, drawn by a
Gumbel-softmax. To foretell the frame n steps later as well as before, the layer must keep what matters most and drop
the rest, so one sees what that is: phones long after speakers. Without codes it is APC.

Differs from the paper: as APC here, features are normalised per utterance, and padding is not scored. Noise is drawn
per utterance and not from a stream.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Frames, Loss
from mockingjay.encoders.contexts.quantised_recurrent import QuantisedRecurrent
from mockingjay.encoders.contexts.recurrent import Recurrent
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends.fbank import APC_80
from mockingjay.encoders.quantise import Chosen
from mockingjay.moves.foresee import arrive, foresee
from mockingjay.objectives.objective import Objective, Picture


class VQAPC(Objective):
    """Say the frame n steps later, through codes."""

    class Config(config.Config):
        """Defaults are the released code's, with the codes after the top layer."""

        kind: Literal["vq-apc"] = "vq-apc"
        encoder: Encoder.Config = Encoder.Config(frontend=APC_80, context=QuantisedRecurrent.Config())
        """What is kept after training; with a plain recurrent context nothing is quantised, which is APC."""
        ahead: int = Field(default=5, ge=1)
        """Frames from the present one to the one foretold (section 3.1)."""

        @model_validator(mode="after")
        def _recurrent(self) -> "VQAPC.Config":
            # By name: what is quantised is a recurrent context's config by inheritance, too.
            if (kind := self.encoder.context.kind) not in ("quantised-recurrent", "recurrent"):
                raise ValueError(f"encoder.context.kind {kind!r} has no codes, expected 'quantised-recurrent'")
            return self

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.head = nn.Linear(self.encoder.dim, self.encoder.frontend.dim)

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        frames, said, chosen = self._say(batch, draw)
        told = foresee(said, frames, self.config.ahead, trivial=not self.training)
        if not self.training or chosen is None:
            return told
        return Loss(told.sum, told.weight, {"perplexity": chosen.perplexity(frames.valid) * told.weight})

    def codes(self, batch: Batch) -> Int[Tensor, "steps groups"] | None:
        frames, _, chosen = self._say(batch, Draw(0))
        return None if chosen is None else chosen.likeliest[frames.valid]

    @torch.no_grad()
    def picture(self, batch: Batch, draw: Draw) -> Picture:
        frames, said, _ = self._say(batch, draw)
        told, foretold = arrive(said, frames, self.config.ahead)
        true = frames.values[0, : frames.lengths[0]]
        return Picture(true, true, told[0, : len(true)], foretold[0, : len(true)], self.encoder.hop)

    def _say(self, batch: Batch, draw: Draw) -> tuple[Frames, Float[Tensor, "batch time dim"], Chosen | None]:
        with torch.no_grad():
            frames = self.encoder.frontend(batch.waves)
        context = self.encoder.context
        if isinstance(context, QuantisedRecurrent):
            _, top, chosen = context.read(frames, draw, tuple(utterance.id for utterance in batch.utterances))
            return frames, self.head(top), chosen
        assert isinstance(context, Recurrent), "the config checks this"
        return frames, self.head(context(frames).last), None
