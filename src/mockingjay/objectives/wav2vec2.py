"""wav2vec 2.0: a framework for self-supervised learning of speech representations.

A. Baevski, H. Zhou, A. Mohamed, M. Auli, "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech
Representations", NeurIPS 2020, arXiv 2006.11477.

Convolutions make a frame every 20 ms, spans of frames are masked, and a Transformer reads the rest. Of every masked
step it must tell the true frame from a hundred of other masked steps of the utterance, after all of them have become
codes of a product quantiser that is learned along. So that many codes are used, the entropy of their mean shares is
raised.

Differs from the paper: nothing we know of; what steadies the training of BASE (section 4.2) is there, with the weight
of loud frames from the code. Differs from the code: distractors that happen to have the true frame's codes stay among
the candidates, for without them one code for everything would cost nothing; an utterance may have a single span; the
norm over time leaves padding out.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Frames, Loss
from mockingjay.encoders.contexts.convolutional_transformer import ConvolutionalTransformer
from mockingjay.encoders.dropout import dropout
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends.waveform import WAV2VEC2_512
from mockingjay.encoders.product import Gumbel, Occasion, in_use
from mockingjay.encoders.quantise import Chosen
from mockingjay.moves.contrast import Drawn, Negatives, compare, draw_negatives, info_nce
from mockingjay.moves.guess import copy_last
from mockingjay.moves.mask import Masked, Masks, choose_masked
from mockingjay.moves.restrain import loudness, scale_gradient
from mockingjay.objectives.objective import Objective


class Wav2Vec2(Objective):
    """Tell a masked frame from others by what lies around it."""

    class Config(config.Config):
        """Defaults are BASE (section 4.2)."""

        kind: Literal["wav2vec2"] = "wav2vec2"
        encoder: Encoder.Config = Encoder.Config(frontend=WAV2VEC2_512, context=ConvolutionalTransformer.Config())
        """What is kept after training; its context must be a convolutional transformer."""
        masks: Masks = Masks()
        """Which steps are masked."""
        quantiser: Gumbel.Config = Gumbel.Config()
        """What makes targets of frames."""
        width: int = Field(default=256, ge=1, le=65_536)
        """Of the codes' vectors, and of what is compared."""
        distractors: int = Field(default=100, ge=1, le=65_536)
        """What the true frame is told from: others of masked steps of the same utterance."""
        temperature: float = Field(default=0.1, gt=0)
        """Cosines are divided by it."""
        diversity: float = Field(default=0.1, ge=0)
        """Weight of the share of codes not in use (equation 4, in the form of its footnote)."""
        penalty: float = Field(default=10.0, ge=0)
        """Weight of the frames' mean square (code)."""
        gradient: float = Field(default=0.1, gt=0, le=1)
        """What the frontend's gradient is multiplied by."""
        dropout: float = Field(default=0.1, ge=0, lt=1)
        """Dropout on frames before they become codes."""

        @model_validator(mode="after")
        def _reads(self) -> "Wav2Vec2.Config":
            if (kind := self.encoder.context.kind) != "convolutional-transformer":
                raise ValueError(f"encoder.context.kind {kind!r} masks nothing, expected 'convolutional-transformer'")
            if self.width % self.quantiser.groups:
                raise ValueError(f"width {self.width} must be a multiple of quantiser.groups {self.quantiser.groups}")
            return self

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.draws_from = "batch"  # by the mean shares of codes
        self.mask = nn.Parameter(torch.empty(self.encoder.dim).uniform_())
        self.quantiser = Gumbel(config.quantiser, self.encoder.frontend.dim, config.width)
        self.target = nn.Linear(config.width, config.width)
        self.head = nn.Linear(self.encoder.dim, config.width)

    @property
    def context(self) -> ConvolutionalTransformer:
        """The encoder's upper storey."""
        context = self.encoder.context
        assert isinstance(context, ConvolutionalTransformer), "the config checks this"
        return context

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        context = self.context
        ids = tuple(utterance.id for utterance in batch.utterances)
        frames = scale_gradient(self.encoder.frontend(batch.waves), self.config.gradient)
        normed = context.inputs_norm(frames.values)
        masked = choose_masked(self.config.masks, frames.lengths, normed.shape[1], draw, ids)
        hidden = context.read(masked.put(context.embed(normed), self.mask), frames.lengths).last
        occasion = Occasion(progress, draw, ids) if self.training else None
        chosen = self._choose(masked.take(normed).values, occasion)
        targets = Frames(self._target(chosen), masked.counts)
        drawn = self._distract(targets, batch, draw)
        told = self._direct(self.head(masked.take(hidden).values))
        loss = self._contrast(told, targets, drawn)
        used = in_use(chosen.shares, targets.valid)
        extra = self.config.diversity * (1 - used / self.quantiser.codes) * loss.weight
        extra = extra + self.config.penalty * loudness(frames, masked.counts.float())
        if self.training:
            parts = {**loss.parts, "perplexity": chosen.perplexity(targets.valid) * loss.weight}
        else:  # everybody pays for the same codes and frames
            copied = self._copy(Frames(normed, frames.lengths), masked, targets, drawn)
            parts = {name: part + extra for name, part in {**loss.parts, "copy last": copied}.items()}
        return Loss(loss.sum + extra, loss.weight, parts)

    def codes(self, batch: Batch) -> Int[Tensor, "steps groups"]:
        frames = self.encoder.frontend(batch.waves)
        return self.quantiser(self.context.inputs_norm(frames.values)).codes[frames.valid]

    def picture(self, batch: Batch, draw: Draw) -> None:
        return None

    def _choose(self, normed: Float[Tensor, "batch masked inputs"], occasion: Occasion | None) -> Chosen:
        return self.quantiser(dropout(normed, self.config.dropout, self.training), occasion)

    def _target(self, chosen: Chosen) -> Float[Tensor, "batch masked width"]:
        return F.normalize(self.target(chosen.values).float(), dim=-1)

    def _direct(self, told: Float[Tensor, "batch masked width"]) -> Float[Tensor, "batch masked width"]:
        """Make inner products with targets cosines over the temperature."""
        return F.normalize(told.float(), dim=-1) / self.config.temperature

    def _distract(self, targets: Frames, batch: Batch, draw: Draw) -> Drawn:
        negatives = Negatives(count=self.config.distractors, source="sequence")
        some = Frames(targets.values, targets.lengths.clamp(min=1))  # a single step has nothing masked
        return draw_negatives(negatives, some, draw, batch.utterances, "distractors")

    def _contrast(self, told: Float[Tensor, "batch masked width"], targets: Frames, drawn: Drawn) -> Loss:
        """Score in single precision whatever autocast says: bfloat16 has steps of 0.06 where cosines over 0.1 end."""
        with torch.autocast(told.device.type, enabled=False):
            return info_nce(compare(told[:, :, None], targets, drawn, first=0), trivial=not self.training)

    def _copy(self, normed: Frames, masked: Masked, targets: Frames, drawn: Drawn) -> Float[Tensor, ""]:
        """Score who takes the last frame before a span, or the first after it, for the true one."""
        seen = Frames(self._target(self._choose(normed.values, None)), normed.lengths)
        told = masked.take(copy_last(seen, masked.hidden)).values / self.config.temperature
        return self._contrast(told, targets, drawn).sum
