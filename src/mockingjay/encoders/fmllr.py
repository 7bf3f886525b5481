"""fMLLR: the affine transform under which a speaker's frames are likeliest, seen from a model of all speakers.

Gales 1998, "Maximum likelihood linear transformations for HMM-based speech recognition", Computer Speech and Language
12(2), where it is called constrained MLLR; the statistics as in Povey and Saon 2006, "Feature and model space speaker
adaptation with full covariance Gaussians", Interspeech. What is maximised over W = [A b] is the likelihood of A x + b
times |det A|, without which A = 0 would be best of all. Given how much of each frame belongs to each Gaussian, that is
solved row by row in closed form, for the determinant is linear in one row.

Ours is the prior: frames as the model itself would make them are counted in with what a speaker says. Their best
transform is the identity, so that few words move it little, and every system of equations can be solved. As they can
only lose by a transform, the likelihood of the speaker's own frames ends above where it began.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mockingjay.encoders.gaussians import Mixture

_BLOCK = 1024  # frames whose squares are formed at once


@dataclass(frozen=True, slots=True)
class Adapted:
    """A transform, and how it was come by.

    Attributes:
        transform: [A b], applied by `transformed`.
        likelihoods: Mean log-likelihood of a frame, log |det A| included: as it came, then after each round.
        penalties: What the prior's frames have lost, by frame of the speaker; likelihood − penalty rises every round.
    """

    transform: Float[Tensor, "dim affine"]
    likelihoods: tuple[float, ...]
    penalties: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Statistics:
    """All that the best transform depends on, given whose each frame is (Gales 1998, G and k of each row)."""

    squares: Float[Tensor, "dim affine affine"]
    products: Float[Tensor, "dim affine"]
    frames: float

    def gain(self, transform: Float[Tensor, "dim affine"]) -> float:
        """Log-likelihood of the frames with their Gaussians, but for a constant."""
        quadratic = torch.einsum("ij,ijk,ik->", transform, self.squares, transform)
        linear = (transform * self.products).sum()
        return (self.frames * _log_volume(transform) + linear - quadratic / 2).item()


def identity(dim: int) -> Float[Tensor, "dim affine"]:
    """Leave frames as they are."""
    return torch.eye(dim, dim + 1, dtype=torch.float64)


def transformed(
    frames: Float[Tensor, "frames dim"], transform: Float[Tensor, "dim affine"]
) -> Float[Tensor, "frames dim"]:
    """Apply a transform, in double precision."""
    return torch.addmm(transform[:, -1], frames.double(), transform[:, :-1].T)


def adapt(
    mixture: Mixture, frames: Float[Tensor, "frames dim"], rounds: int, sweeps: int = 4, prior: float = 1000.0
) -> Adapted:
    """Find a speaker's transform by expectation-maximisation, from the identity.

    Args:
        mixture: The model of all speakers.
        frames: The speaker's.
        rounds: How often it is asked anew to which Gaussians the frames belong.
        sweeps: Over the rows, in every round.
        prior: Frames of the model's own that are counted in, more than 0.
    """
    own = _model_statistics(mixture, prior)
    transform = identity(frames.shape[1])
    best, likelihoods, penalties = own.gain(transform), [], []
    for last in [False] * rounds + [True]:
        moved = transformed(frames, transform)
        likelihoods.append(mixture.log_likelihood(moved) + _log_volume(transform).item())
        penalties.append((best - own.gain(transform)) / len(frames))
        if not last:
            transform = _climb(transform, _statistics(mixture, frames, moved, own), sweeps)
    return Adapted(transform, tuple(likelihoods), tuple(penalties))


def _log_volume(transform: Float[Tensor, "dim affine"]) -> Float[Tensor, ""]:
    return torch.linalg.slogdet(transform[:, :-1])[1]


def _model_statistics(mixture: Mixture, frames: float) -> Statistics:
    """Expect the statistics of frames that the model makes."""
    means = torch.nn.functional.pad(mixture.means, (0, 1), value=1.0)
    second = means[:, :, None] * means[:, None] + torch.diag_embed(torch.nn.functional.pad(mixture.variances, (0, 1)))
    shares = frames * mixture.weights[:, None] / mixture.variances
    squares = torch.einsum("mi,mjk->ijk", shares, second)
    return Statistics(squares, (shares * mixture.means).T @ means, frames)


def _statistics(
    mixture: Mixture, frames: Float[Tensor, "frames dim"], moved: Float[Tensor, "frames dim"], own: Statistics
) -> Statistics:
    """Count the frames in, each divided among the Gaussians by where the transform so far has moved it."""
    precisions, dim = 1 / mixture.variances, frames.shape[1]
    rows, columns = torch.triu_indices(dim + 1, dim + 1)
    halves, products = own.squares[:, rows, columns], own.products
    for block, place in zip(frames.double().split(_BLOCK), moved.split(_BLOCK)):
        shares = mixture.joint(place).softmax(1)
        extended = torch.nn.functional.pad(block, (0, 1), value=1.0)
        halves = halves.addmm((shares @ precisions).T, extended[:, rows] * extended[:, columns])
        products = products.addmm((shares @ (mixture.means * precisions)).T, extended)
    squares = own.squares.new_empty(dim, dim + 1, dim + 1)
    squares[:, rows, columns] = squares[:, columns, rows] = halves
    return Statistics(squares, products, own.frames + len(frames))


def _climb(transform: Float[Tensor, "dim affine"], statistics: Statistics, sweeps: int) -> Float[Tensor, "dim affine"]:
    """Put each row to its best while the others stay, several times over."""
    transform, dim = transform.clone(), len(transform)
    inverses = torch.linalg.inv(statistics.squares)
    fixed = torch.einsum("ijk,ik->ij", inverses, statistics.products)  # best rows, were there no determinant
    for _ in range(sweeps):
        inverse = torch.linalg.inv(transform[:, :-1])
        for row in range(dim):
            # What row i is multiplied with to give the determinant is column i of the inverse, but for a factor.
            cofactors = inverse[:, row]
            across = inverses[row, :, :-1] @ cofactors
            square, product = cofactors @ across[:-1], cofactors @ fixed[row, :-1]
            # frames = α (α · square + product); of its two roots the one that leaves the larger determinant.
            root = (product.square() + 4 * statistics.frames * square).sqrt().copysign(product)
            best = fixed[row] + (root - product) / (2 * square) * across
            change = (best - transform[row])[:-1] @ inverse
            inverse = inverse - torch.outer(cofactors, change / (1 + change[row]))  # Sherman and Morrison 1950
            transform[row] = best
    return transform
