"""Gaussian mixtures with diagonal covariances, fitted by expectation-maximisation (Dempster, Laird, Rubin 1977)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mockingjay.encoders.k_means import k_means

BLOCK = 16_384  # frames at once
_FIRST = 20_000  # frames that k-means begins with, at most
_FLOOR = 0.01  # least variance, as a share of all frames'


@dataclass(frozen=True, slots=True)
class Mixture:
    """Weights, means and variances, in double precision."""

    weights: Float[Tensor, " gaussians"]  # sum to 1
    means: Float[Tensor, "gaussians dim"]
    variances: Float[Tensor, "gaussians dim"]

    def joint(self, frames: Float[Tensor, "frames dim"]) -> Float[Tensor, "frames gaussians"]:
        """Logarithm of the density of each frame and Gaussian together."""
        precisions = 1 / self.variances
        constants = (self.means.square() * precisions + (2 * math.pi * self.variances).log()).sum(1)
        linear = torch.addmm(self.weights.log() - constants / 2, frames, (self.means * precisions).T)
        return linear.addmm_(frames.square(), precisions.T, alpha=-0.5)

    def log_likelihood(self, frames: Float[Tensor, "frames dim"]) -> float:
        """Mean logarithm of the frames' densities."""
        total = sum(self.joint(block).logsumexp(1).sum().item() for block in frames.double().split(BLOCK))
        return total / len(frames)


def fit_mixture(frames: Float[Tensor, "frames dim"], gaussians: int, rounds: int, seed: int) -> Mixture:
    """Fit a mixture, the same for the same seed; the likelihood rises in every round, but where variances are floored.

    Args:
        frames: More of them than Gaussians.
        gaussians: How many; they begin where k-means leaves its centroids.
        rounds: Of expectation and maximisation.
        seed: Of k-means.
    """
    first = frames[:: max(1, len(frames) // _FIRST)].double()
    variance = first.var(0, correction=0)
    floor = (_FLOOR * variance).clamp_min(1e-12)
    mixture = Mixture(
        torch.full((gaussians,), 1 / gaussians, dtype=torch.float64),
        k_means(first, gaussians, seed),
        torch.maximum(variance, floor).repeat(gaussians, 1),
    )
    for _ in range(rounds):
        mixture = _maximise(mixture, frames, floor)
    return mixture


def _maximise(mixture: Mixture, frames: Float[Tensor, "frames dim"], floor: Float[Tensor, " dim"]) -> Mixture:
    counts, sums, squares = torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1)
    for block in frames.split(BLOCK):
        values = block.double()
        shares = mixture.joint(values).softmax(1).T
        counts = counts + shares.sum(1, keepdim=True)
        sums, squares = sums + shares @ values, squares + shares @ values.square()
    counts = counts.clamp_min(1e-8)  # of a Gaussian that no frame is near to
    means = sums / counts
    return Mixture((counts / counts.sum())[:, 0], means, torch.maximum(squares / counts - means.square(), floor))
