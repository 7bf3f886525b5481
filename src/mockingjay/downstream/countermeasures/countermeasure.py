"""A countermeasure reads a picture of fixed size, steps by values, and says how much it looks like bona fide speech."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

SPOOF, BONAFIDE = 0, 1  # the classes (code)


class Countermeasure(nn.Module, ABC):
    """Two logits for each example, spoof and bona fide.

    Attributes:
        scale: Brings what is read to mean 0 and deviation 1; fitted once before training.
        batch: Examples of a training step.
    """

    scale: "Scale"
    batch: int

    @abstractmethod
    def forward(self, pictures: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch classes"]:
        """Compute logits."""

    @abstractmethod
    def losses(
        self, pictures: Float[Tensor, "batch time dim"], answers: Int[Tensor, " batch"], update: int
    ) -> Float[Tensor, " batch"]:
        """Score every example for training.

        Args:
            pictures: What is read.
            answers: `SPOOF` or `BONAFIDE` each.
            update: Updates done.
        """

    def scores(self, pictures: Float[Tensor, "batch time dim"]) -> Float[Tensor, " batch"]:
        """Compute log odds of bona fide against spoof.

        Cross-entropy is a function of them, so that what is attacked is what is measured; the code scores by the bona
        fide logit alone.
        """
        logits = self(pictures)
        return logits[:, BONAFIDE] - logits[:, SPOOF]


class Scale(nn.Module):
    """Standardises each value over all steps of the training examples (ours; the code reads decibels as they are)."""

    mean: Float[Tensor, " dim"]
    deviation: Float[Tensor, " dim"]

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    def fit(self, pictures: Float[Tensor, "examples time dim"]) -> None:
        """Measure training examples; what never changes keeps a deviation above zero."""
        deviation, mean = torch.std_mean(pictures, (0, 1), correction=0)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation.clamp(min=1e-5 * float(1 + mean.abs().max())))

    def forward(self, pictures: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        """Standardise."""
        return (pictures - self.mean) / self.deviation
