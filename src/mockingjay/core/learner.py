"""Everything the training loop knows: a learner turns a batch into a loss. Objectives and probes are learners."""

from abc import ABC, abstractmethod

from torch import nn

from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Loss


class Learner(nn.Module, ABC):
    """A module that scores a batch."""

    @abstractmethod
    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        """Score a batch.

        Args:
            batch: Waves on the module's device, with their utterances.
            progress: Share of training done, in [0, 1); schedules are functions of it.
            draw: The only source of randomness besides dropout.
        """

    def after_step(self, progress: float) -> None:
        """Run after each optimiser step; for teachers that follow by moving average."""
