"""What fitting asks of a way of training probes: train with a rate and a seed, measure what came of it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from mockingjay.core.types import Utterance
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.tasks import Task


@dataclass(frozen=True, slots=True)
class Counts:
    """What the guesses about each utterance of a set earned, in its order, of what there was to earn."""

    earned: Float[np.ndarray, " utterances"]
    total: Float[np.ndarray, " utterances"]

    @property
    def value(self) -> float:
        """The task's metric: what was earned over what there was to earn."""
        return float(self.earned.sum() / self.total.sum())


@dataclass(frozen=True, slots=True)
class Trained:
    """A probe where dev was best."""

    probe: Probe
    dev: float  # the task's metric
    rate: float
    seed: int


class Training(ABC):
    """A way of training probes on one train, dev and test set."""

    @property
    @abstractmethod
    def kind(self) -> Literal["frozen", "streamed", "live"]:
        """On states computed once, on the same states computed anew in parts, or through the representation."""

    @property
    @abstractmethod
    def rates(self) -> tuple[float, ...]:
        """Learning rates to choose from."""

    @abstractmethod
    def train(self, rate: float, seed: int) -> Trained:
        """Train one probe; the same rate and seed give the same. Seeds global generators; `fit_probe` restores them."""

    @abstractmethod
    def fewer(self, train: Sequence[Utterance]) -> "Training":
        """Make the same training with fewer labels, by as many updates.

        It is the labels that are fewer: what was measured on the audio of all training utterances, to standardise
        what heads read, stays.
        """

    @abstractmethod
    def measure(self, probe: Probe, name: Literal["train", "dev", "test"], task: Task | None = None) -> Counts:
        """Count what a probe's guesses earn in one of the sets.

        Args:
            probe: As `train` made it.
            name: Of the set.
            task: Reads and counts in place of the probe's own: the same outputs, asked otherwise.
        """

    @abstractmethod
    def steps(self) -> Int[np.ndarray, " utterances"]:
        """Count the steps of each training utterance of a sequence task; 0 where the file cannot be read."""
