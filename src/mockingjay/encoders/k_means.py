"""k-means: centroids, each the mean of the frames nearest to it."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_ROUNDS = 50  # at most


def check_enough(frames: int, units: int, name: str = "units") -> None:
    """Refuse to look for clusters in fewer frames than there are to be clusters, a setting called `name`.

    Raises:
        ValueError: There are fewer; a config's validator turns this into a ConfigError.
    """
    if frames < units:
        raise ValueError(f"the {frames} frames that clusters are found in must be at least {name}, {units}")


def squared_distances(
    frames: Float[Tensor, "frames dim"], centroids: Float[Tensor, "units dim"]
) -> Float[Tensor, "frames units"]:
    """Square the distance from each frame to each centroid."""
    squares = frames.square().sum(1, keepdim=True) + centroids.square().sum(1)
    return torch.addmm(squares, frames, centroids.T, alpha=-2).clamp_min(0.0)


def k_means(frames: Float[Tensor, "frames dim"], units: int, seed: int) -> Float[Tensor, "units dim"]:
    """Find centroids by Lloyd's rounds from k-means++ (Arthur and Vassilvitskii 2007), the same for the same seed.

    A centroid that loses all its frames stays where it was.
    """
    generator = torch.Generator().manual_seed(seed)
    centroids = frames[torch.randint(len(frames), (1,), generator=generator).to(frames.device)]
    nearest = squared_distances(frames, centroids)[:, 0]
    for _ in range(units - 1):
        chances = nearest.cpu()
        chances = chances if chances.any() else torch.ones_like(chances)
        chosen = frames[torch.multinomial(chances, 1, generator=generator).to(frames.device)]
        centroids = torch.cat([centroids, chosen])
        nearest = nearest.minimum(squared_distances(frames, chosen)[:, 0])
    for _ in range(_ROUNDS):
        # A product and not a scattered sum, whose order on an accelerator is not the same for all ranks.
        members = F.one_hot(squared_distances(frames, centroids).argmin(1), units).to(frames.dtype)
        counts = members.sum(0)[:, None]
        moved = torch.where(counts > 0, members.T @ frames / counts.clamp_min(1), centroids)
        if torch.equal(moved, centroids):
            break
        centroids = moved
    return centroids
