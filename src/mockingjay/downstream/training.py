"""What fitting asks of a way of training probes: train with a rate and a seed, measure what came of it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from mockingjay.downstream.probe import Probe


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
    def rates(self) -> tuple[float, ...]:
        """Learning rates to choose from."""

    @abstractmethod
    def train(self, rate: float, seed: int) -> Trained:
        """Train one probe; the same rate and seed give the same. Seeds global generators; `fit_probe` restores them."""

    @abstractmethod
    def measure(self, probe: Probe, name: Literal["train", "dev", "test"]) -> Counts:
        """Count what a probe's guesses earn in one of the sets."""
