"""Audio2Vec: word2vec's two questions, asked of slices of spectrogram.

M. Tagliasacchi, B. Gfeller, F. de Chaumont Quitry, D. Roblek, "Self-supervised audio representation learning for mobile
devices", arXiv 1905.11796; in short as "Pre-Training Audio Representations With Self-Supervision", IEEE SPL 27, 2020.

From a row of slices with small gaps between, the bag of words (CBoW) says the middle one from its neighbours, and the
skip-gram says the neighbours from the middle one. A small convolutional encoder makes one vector of each slice, and a
decoder that mirrors it draws slices from them: what a slice's vector must hold is what its surroundings share with it.
Neighbours are told apart by their place, and the squared error of every cell counts.

Differs from the paper: sizes, gaps and the form of the network are from memory of it; frames are normalised over the
corpus, or the loudness of a recording would be most of the error; the middle of a slice, not its start, is a step's.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Frames, Loss
from mockingjay.encoders.contexts import Slices
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends.log_mel import AUDIO2VEC_64
from mockingjay.moves.decode.slices import SliceDecoder
from mockingjay.moves.guess import PREDICTORS
from mockingjay.moves.slices import cut, even, first
from mockingjay.objectives.objective import Objective, Picture


class Audio2Vec(Objective):
    """Draw the slice between its neighbours, or the neighbours around a slice."""

    class Config(config.Config):
        """Defaults are the paper's (from memory)."""

        kind: Literal["audio2vec"] = "audio2vec"
        encoder: Encoder.Config = Encoder.Config(frontend=AUDIO2VEC_64, context=Slices.Config())
        """What is kept after training; its context must be of slices."""
        task: Literal["cbow", "skip-gram"] = "cbow"
        """Say the middle slice from its neighbours, or the neighbours from the middle slice."""
        neighbours: int = Field(default=2, ge=1)
        """Slices on each side of the middle one."""
        gap: int = Field(default=2, ge=0)
        """Frames between two slices."""

        @model_validator(mode="after")
        def _of_slices(self) -> "Audio2Vec.Config":
            if self.encoder.context.kind != "slices":
                raise ValueError(f"encoder.context.kind {self.encoder.context.kind!r} has no slices, expected 'slices'")
            return self

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        shape = config.encoder.context
        assert isinstance(shape, Slices.Config), "the config checks this"
        others = [place for place in range(2 * config.neighbours + 1) if place != config.neighbours]
        self.read, self.asked = (
            (others, [config.neighbours]) if config.task == "cbow" else ([config.neighbours], others)
        )
        self.width, self.span = shape.width, len(others) * (shape.width + config.gap) + shape.width
        bins = self.encoder.frontend.dim
        self.head = SliceDecoder(shape, len(self.read) * shape.dim, bins, len(self.asked))

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        with torch.no_grad():
            frames = self.encoder.frontend(batch.waves)
        starts = self._starts(frames, batch, draw)
        slices, inside = cut(frames.values, frames.lengths, starts, self.width)
        whole = inside.all(-1).all(-1)  # a row that is longer than its utterance is not scored
        wanted = slices[:, self.asked]
        scored = whole[:, None, None, None]
        errors = (self._say(slices, whole) - wanted).square() * scored
        weight = whole.sum() * float(wanted[0].numel())
        return Loss(errors.sum(), weight, {} if self.training else self._trivial(frames, starts, wanted, scored))

    @torch.no_grad()
    def picture(self, batch: Batch, draw: Draw) -> Picture | None:
        """Show the first utterance with all but the slices that are read hidden, and those asked for drawn anew."""
        frames = self.encoder.frontend(batch.waves)
        starts = self._starts(frames, batch, draw)
        slices, inside = cut(frames.values, frames.lengths, starts, self.width)
        whole, time = inside.all(-1).all(-1), int(frames.lengths[0])
        if not whole[0]:
            return None
        true = frames.values[0, :time]
        shown = self._covered(starts[:, self.read], time)[0]
        hidden, rebuilt = self._covered(starts[:, self.asked], time)[0], true.clone()
        for place, said in zip(self.asked, self._say(slices, whole)[0]):
            rebuilt[starts[0, place] : starts[0, place] + self.width] = said
        return Picture(true, true * shown[:, None], rebuilt, hidden, self.encoder.frontend.grid.hop)

    def _starts(self, frames: Frames, batch: Batch, draw: Draw) -> Int[Tensor, "batch slices"]:
        """Draw where each utterance's row of slices lies."""
        ids = tuple(utterance.id for utterance in batch.utterances)
        places = even(len(self.read) + len(self.asked), self.width, self.config.gap, frames.lengths.device)
        return first(frames.lengths, self.span, draw, ids) + places

    def _say(
        self, slices: Float[Tensor, "batch slices width bins"], whole: Bool[Tensor, " batch"]
    ) -> Float[Tensor, "batch asked width bins"]:
        """Read some slices in their order and draw the others."""
        context, read = self.encoder.context, slices[:, self.read]
        assert isinstance(context, Slices), "the config checks this"
        vectors = context.embed(read.flatten(0, 1), whole.repeat_interleave(len(self.read)))
        return self.head(vectors.unflatten(0, read.shape[:2]).flatten(1), whole)

    def _covered(self, starts: Int[Tensor, "batch slices"], time: int) -> Bool[Tensor, "batch time"]:
        """Mark the frames that lie in one of the slices."""
        steps = torch.arange(time, device=starts.device)
        return ((steps >= starts[:, :, None]) & (steps < starts[:, :, None] + self.width)).any(1)

    def _trivial(
        self,
        frames: Frames,
        starts: Int[Tensor, "batch slices"],
        wanted: Float[Tensor, "batch asked width bins"],
        scored: Bool[Tensor, "batch 1 1 1"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Score the dumb predictors, which know the slices that are read, on the same cells."""
        hidden = ~self._covered(starts[:, self.read], frames.values.shape[1])
        guesses = {name: predict(frames, hidden) for name, predict in PREDICTORS.items()}
        sums = {}
        for name, guess in {"corpus mean": torch.zeros_like(frames.values), **guesses}.items():
            said = cut(guess, frames.lengths, starts[:, self.asked], self.width)[0]
            sums[name] = ((said - wanted).square() * scored).sum()
        return sums
