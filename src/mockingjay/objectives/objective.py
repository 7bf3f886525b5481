"""An objective is a learner that owns an encoder and needs no labels."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.learner import Learner
from mockingjay.core.representation import Representation
from mockingjay.core.types import Batch, Utterance, Waves
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.norms import follows_batches

Source = Literal["utterance", "batch"]


@dataclass(frozen=True, slots=True)
class Picture:
    """One utterance as the network saw it, at frame rate."""

    true: Float[Tensor, "time dim"]
    altered: Float[Tensor, "time target"]  # the network's actual input
    rebuilt: Float[Tensor, "time dim"]
    hidden: Bool[Tensor, " time"]  # the frames that were selected
    hop: int  # samples per frame


class Objective(Learner, ABC):
    """A pre-training method; only `encoder` is kept afterwards.

    In evaluation the parts of its loss hold what trivial predictors would score on the same cells.

    Attributes:
        encoder: What is kept.
        draws_from: What an utterance's loss depends on in evaluation besides the weights: itself alone, or its
            batch-mates too.
        adapts: Whether it trains a part of a run's encoder while all else rests, heads included.
    """

    Config: ClassVar[type[config.Config]]
    encoder: Encoder
    draws_from: Source = "utterance"
    adapts: bool = False

    @property
    def learns_from(self) -> Source:
        """What an utterance's loss depends on in training, dropout aside: norms over the batch add its batch-mates.

        On batch-mates means also on the number of ranks and micro-batches among which a step's utterances are divided.
        """
        return "batch" if any(map(follows_batches, self.modules())) else self.draws_from

    def listen(self, open_representation: Callable[[str], Representation]) -> None:
        """Open what the config names to listen to; called once, before `prepare` and before weights are loaded."""

    def check_start(self, start: "Encoder | Objective | None") -> None:
        """Find out before training whether it can go on from there.

        Raises:
            ConfigError: The encoder has another shape, or heads that rest are not to be had.
        """
        if self.adapts and not isinstance(start, type(self)):
            raise ConfigError(
                "--init: no run to adapt, expected one of this objective, whose heads rest like its encoder; "
                "name its folder"
            )
        encoder = start.encoder if isinstance(start, Objective) else start
        if encoder is not None and encoder.config != self.encoder.config:
            raise ConfigError(
                "--init: the encoder there has another shape than the settings ask for, "
                "expected the same frontend and context; choose the preset it was trained with"
            )

    def go_on_from(self, start: "Encoder | Objective") -> None:
        """Take over an encoder's weights, or all of an objective's."""
        ours = self if isinstance(start, Objective) else self.encoder
        ours.load_state_dict(start.state_dict())

    def prepare(self, batches: Iterable[Batch]) -> None:
        """See the corpus before step 0, into buffers; `batches` may be iterated more than once."""
        self.encoder.frontend.fit(batch.waves for batch in batches)

    def label(self, utterances: Sequence[Utterance], folder: Path, rank: int = 0, ranks: int = 1) -> None:
        """Write into `folder` what the steps will ask of whole utterances; before every start's first step.

        All ranks call it, each may write its share, and none takes a step before all have returned. What is written
        must be a function of the state and the audio, so that whoever finds it missing can write it again.

        Raises:
            MachineError: The folder cannot be written.
        """

    def codes(self, batch: Batch) -> Int[Tensor, "steps groups"] | None:
        """Choose the batch's codes as evaluation does, of valid steps alone; None where a method learns no codes."""

    @classmethod
    def measure(cls, config: Any) -> str:
        """Say what a cell's loss is under a config, in words that stand after "the model's"."""
        return "loss"

    @abstractmethod
    def picture(self, batch: Batch, draw: Draw) -> Picture | None:
        """Show the batch's first utterance hidden and rebuilt; None where a method rebuilds no spectrogram."""

    def reconstruct(self, batch: Batch, draw: Draw) -> Waves | None:
        """Make the batch's utterances sound again; None where a method makes no sound."""


def encoder_of_sound(config: Encoder.Config) -> Encoder:
    """Build the encoder of an objective that hears the sound itself, too.

    Raises:
        ConfigError: It reads files of features, whose waves mean nothing else.
    """
    encoder = Encoder(config)
    if encoder.reads is not None:
        raise ConfigError(
            f"objective.encoder.frontend: {config.frontend.kind!r} reads files of features, expected what reads sound, "
            "for this objective hears that as well; choose another kind"
        )
    return encoder
