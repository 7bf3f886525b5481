"""An objective is a learner that owns an encoder and needs no labels."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.learner import Learner
from mockingjay.core.representation import Representation
from mockingjay.core.types import Batch, Waves
from mockingjay.encoders.encoder import Encoder


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
        draws_from: What an utterance's loss depends on besides the weights: itself alone, or its batch-mates too, and
            then also on the number of ranks and micro-batches among which a step's utterances are divided.
    """

    Config: ClassVar[type[config.Config]]
    encoder: Encoder
    draws_from: Literal["utterance", "batch"] = "utterance"

    def listen(self, open_representation: Callable[[str], Representation]) -> None:
        """Open what the config names to listen to; called once, before `prepare` and before weights are loaded."""

    def prepare(self, batches: Iterable[Batch]) -> None:
        """See the corpus before step 0, into buffers; `batches` may be iterated more than once."""
        self.encoder.frontend.fit(batch.waves for batch in batches)

    def codes(self, batch: Batch) -> Int[Tensor, "steps groups"] | None:
        """Choose the batch's codes as evaluation does, of valid steps alone; None where a method learns no codes."""

    @abstractmethod
    def picture(self, batch: Batch, draw: Draw) -> Picture | None:
        """Show the batch's first utterance hidden and rebuilt; None where a method rebuilds no spectrogram."""

    def reconstruct(self, batch: Batch, draw: Draw) -> Waves | None:
        """Make the batch's utterances sound again; None where a method makes no sound."""
