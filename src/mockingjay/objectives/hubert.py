"""HuBERT: self-supervised speech representation learning by masked prediction of hidden units.

W.-N. Hsu, B. Bolte, Y.-H. H. Tsai, K. Lakhotia, R. Salakhutdinov, A. Mohamed, "HuBERT: Self-Supervised Speech
Representation Learning by Masked Prediction of Hidden Units", IEEE/ACM TASLP 29, 2021, arXiv 2106.07447.

BERT for sound that has no words: frames are clustered by k-means, and at masked steps the network of wav2vec 2.0 must
tell the cluster. In a first round cepstra are clustered; in the next ones, a layer of the encoder that the round before
has trained: `mockingjay pretrain hubert --set objective.rounds=2`. Whole utterances are labelled once a round.

Differs from the paper: clusters are found once from k-means++, in fewer frames, where the paper takes the best of
twenty mini-batch fits; cepstra are ours, normalised over the utterance; rounds of one command are equally long, where
the paper's second is longer (preset `second-round`). A teacher may be any representation, and is kept in checkpoints.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.representation import Representation
from mockingjay.core.types import Batch, Frames, Loss, Utterance, Waves
from mockingjay.encoders.contexts.convolutional_transformer import ConvolutionalTransformer
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends.mfcc import MFCC, MFCC_39
from mockingjay.encoders.frontends.waveform import WAV2VEC2_512
from mockingjay.encoders.k_means import check_enough
from mockingjay.moves.cluster import Clusters
from mockingjay.moves.label import Labels, nearest
from mockingjay.moves.mask import Masks, choose_masked
from mockingjay.moves.restrain import loudness, scale_gradient
from mockingjay.objectives.objective import Objective, encoder_of_sound
from mockingjay.train.checkpoint import fingerprint_of

_FLOOR = 1e-8  # probability; a cluster that the corpus's first frames lack would cost infinitely much


class HuBERT(Objective):
    """Mask frames and tell which cluster they belonged to."""

    class Config(config.Config):
        """Defaults are BASE in its first round (section IV; where it says nothing, the code)."""

        kind: Literal["hubert"] = "hubert"
        encoder: Encoder.Config = Encoder.Config(frontend=WAV2VEC2_512, context=ConvolutionalTransformer.Config())
        """What is kept after training; its context must be a convolutional transformer."""
        masks: Masks = Masks(starts=0.08, width=10)
        """Which steps are masked."""
        teacher: str = ""
        """The representation whose layer is clustered, as `probe` takes it; none: the first round, of cepstra."""
        rounds: int = Field(default=1, ge=1, le=16)
        """Trainings one after the other, of `train.steps` each, in which each encoder is the next one's teacher."""
        layer: int = Field(default=6, ge=0, le=65_536)
        """The teacher's layer, 0 being what its first block reads."""
        cepstra: MFCC.Config = MFCC_39
        """What is clustered where there is no teacher."""
        clusters: Clusters.Config = Clusters.Config()
        """How many there are and what they are found in."""
        later_units: int = Field(default=500, ge=2, le=65_536)
        """How many there are in the rounds after the first (section IV-B)."""
        width: int = Field(default=256, ge=1, le=65_536)
        """Of the clusters' vectors, with which what is told is compared."""
        temperature: float = Field(default=0.1, gt=0)
        """Cosines are divided by it (equation 3)."""
        masked: float = Field(default=1.0, ge=0, le=1)
        """Weight α of masked steps; the others have 1 − α."""
        penalty: float = Field(default=10.0, ge=0)
        """Weight of the frames' mean square (code)."""
        gradient: float = Field(default=0.1, gt=0, le=1)
        """What the frontend's gradient is multiplied by (code)."""

        @model_validator(mode="after")
        def _reads(self) -> "HuBERT.Config":
            if not isinstance(context := self.encoder.context, ConvolutionalTransformer.Config):
                raise ValueError(f"context.kind {context.kind!r} masks nothing, expected 'convolutional-transformer'")
            if self.rounds > 1 and self.layer > context.layers:
                raise ValueError(f"layer {self.layer} is to be clustered, expected one of 0 to {context.layers}")
            check_enough(self.clusters.frames, self.later_units if self.rounds > 1 else 0, "later_units")
            return self

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder_of_sound(config.encoder)
        self.mask = nn.Parameter(torch.empty(self.encoder.dim).uniform_())
        self.head = nn.Linear(self.encoder.dim, config.width)
        self.units = nn.Parameter(torch.empty(config.clusters.units, config.width).uniform_())
        self.cepstra = MFCC(config.cepstra)
        self.clusters = Clusters(config.clusters, self.cepstra.dim)
        self.teacher: Representation | None = None
        self.labels: Labels | None = None

    def listen(self, open_representation: Callable[[str], Representation]) -> None:
        """Open the teacher, if there is one.

        Raises:
            ConfigError: It lacks the layer, or reads no sound.
            RepresentationError: Nothing of its name is known.
        """
        name, layer = self.config.teacher, self.config.layer
        if not name:
            return
        teacher = open_representation(name)
        if teacher.reads is not None:
            raise ConfigError(
                f"objective.teacher: {name} reads files of features, expected what reads sound; choose another"
            )
        if layer >= teacher.depth:
            raise ConfigError(f"objective.layer: {layer}, but {name} has layers 0 to {teacher.depth - 1}; choose one")
        self.teacher = teacher.requires_grad_(False)
        self.clusters = Clusters(self.config.clusters, teacher.dim)

    def train(self, mode: bool = True) -> "HuBERT":
        """Enter training mode; the teacher stays in evaluation mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def prepare(self, batches: Iterable[Batch]) -> None:
        self.encoder.frontend.fit(batch.waves for batch in batches)
        if self.teacher is None:
            self.cepstra.fit(batch.waves for batch in batches)
        self.clusters.fit(self._heard(batch.waves) for batch in batches)

    def label(self, utterances: Sequence[Utterance], folder: Path, rank: int = 0, ranks: int = 1) -> None:
        ears = self.teacher or self.cepstra
        state = fingerprint_of({**ears.state_dict(prefix="ears."), **self.clusters.state_dict()})
        teller = state + self.config.model_dump_json(include={"teacher", "layer", "cepstra", "clusters"})
        self.labels = Labels(folder / "units", teller, utterances, ears.grid, ears.receptive)
        self.labels.write(lambda waves: self.clusters(self._heard(waves)), self.mask.device, rank, ranks)

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        context = self.encoder.context
        assert isinstance(context, ConvolutionalTransformer), "the config checks this"
        ids = tuple(utterance.id for utterance in batch.utterances)
        frames = scale_gradient(self.encoder.frontend(batch.waves), self.config.gradient)
        embedded = context.embed(context.inputs_norm(frames.values))
        masked = choose_masked(self.config.masks, frames.lengths, embedded.shape[1], draw, ids)
        hidden = context.read(masked.put(embedded, self.mask), frames.lengths).last
        wanted = self.tell(batch, embedded.shape[1])
        if self.config.masked == 1:  # the others need not be told at all
            taken = masked.take(hidden)
            hidden, wanted, weights = taken.values, wanted.gather(1, masked.places), taken.valid.float()
        else:
            weights = torch.where(masked.hidden, self.config.masked, 1 - self.config.masked) * frames.valid
        logits = self._compare(hidden)
        errors = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(weights)
        extra = self.config.penalty * loudness(frames, weights.sum(1))
        if self.training:
            parts = {"accuracy": ((logits.argmax(-1) == wanted) * weights).sum()}
        else:  # whoever guesses pays for the frames too
            parts = {name: part + extra for name, part in self._trivial(wanted, weights).items()}
        return Loss((errors * weights).sum() + extra, weights.sum(), parts)

    def picture(self, batch: Batch, draw: Draw) -> None:
        return None

    def tell(self, batch: Batch, time: int) -> Int[Tensor, "batch time"]:
        """Tell the cluster of what is heard nearest to the middle of each of the encoder's first steps."""
        labels, grid = self.labels, self.encoder.grid
        return self._live(batch.waves, time) if labels is None else labels.tell(batch, grid, time, self._live)

    @torch.no_grad()
    def _live(self, waves: Waves, time: int) -> Int[Tensor, "batch time"]:
        """Tell the clusters of waves as if they were whole."""
        assert self.teacher is not None or not self.config.teacher, "whoever builds an objective lets it listen"
        heard = self._heard(waves)
        places = nearest((self.teacher or self.cepstra).grid, self.encoder.grid, time).to(heard.lengths.device)
        return self.clusters(heard).gather(1, places.minimum(heard.lengths[:, None] - 1))

    @torch.no_grad()
    def _heard(self, waves: Waves) -> Frames:
        """Compute what is clustered."""
        if self.teacher is None:
            return self.cepstra(waves)
        hidden = self.teacher(waves)
        return Frames(hidden.layers[self.config.layer], hidden.lengths)

    def _compare(self, hidden: Float[Tensor, "batch steps dim"]) -> Float[Tensor, "batch steps units"]:
        """Score clusters by the cosine of their vectors with what is told (equation 3)."""
        told = self.head(hidden).float()
        with torch.autocast(told.device.type, enabled=False):  # bfloat16 has steps of 0.06 where cosines over 0.1 end
            return F.normalize(told, dim=-1) @ F.normalize(self.units.float(), dim=-1).T / self.config.temperature

    def _trivial(
        self, wanted: Int[Tensor, "batch steps"], weights: Float[Tensor, "batch steps"]
    ) -> dict[str, Float[Tensor, ""]]:
        """Score on the same steps who says all clusters alike, and who says how frequent each is in the corpus."""
        surprise = -self.clusters.shares.clamp_min(_FLOOR).log()
        chance = weights.sum() * math.log(self.config.clusters.units)
        return {"chance": chance, "marginal": (surprise[wanted] * weights).sum()}
