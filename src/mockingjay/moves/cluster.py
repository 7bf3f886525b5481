"""Cluster: which of the sounds of a corpus a frame is, found by k-means before training and kept with the weights.

Hsu et al. 2021 (HuBERT, arXiv 2106.07447, section II-A): the clusters' numbers are what a network is asked for, and
need not be good labels, only consistent ones.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.core.errors import DataError
from mockingjay.core.types import Frames
from mockingjay.encoders.k_means import check_enough, k_means, squared_distances


class Clusters(nn.Module):
    """Centroids of a corpus's frames.

    Attributes:
        centroids: Means of the frames that are nearest to them.
        shares: Of the frames, how many are nearest to each.
    """

    class Config(Table):
        """Defaults are HuBERT's first round (section IV-B)."""

        units: int = Field(default=100, ge=2, le=65_536)
        """Clusters; the second round has 500."""
        frames: int = Field(default=200_000, ge=2, le=2**24)
        """Frames the clusters are found in, the first that come; at least the units (ours)."""
        seed: int = Field(default=0, ge=0, lt=2**63)
        """Of the first centroids."""

        @model_validator(mode="after")
        def _enough(self) -> "Clusters.Config":
            check_enough(self.frames, self.units)
            return self

    centroids: Float[Tensor, "units dim"]
    shares: Float[Tensor, " units"]  # zero until fitted

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("centroids", torch.zeros(config.units, dim))
        self.register_buffer("shares", torch.zeros(config.units))

    @torch.no_grad()
    def fit(self, frames: Iterable[Frames]) -> None:
        """Find the clusters in the first frames; no more are taken than are needed.

        Raises:
            DataError: There are fewer frames than units.
        """
        sample, count = [], 0
        for each in frames:
            sample.append(each.values[each.valid].float())
            count += len(sample[-1])
            if count >= self.config.frames:
                break
        if count < self.config.units:
            raise DataError(
                f"clusters: {count} frames in the corpus, expected at least one for each of {self.config.units} units; "
                "add audio or set fewer units"
            )
        known = torch.cat(sample)[: self.config.frames]
        with torch.autocast(known.device.type, enabled=False):
            self.centroids.copy_(k_means(known, self.config.units, self.config.seed))
        nearest = self(Frames(known[None], torch.tensor([len(known)], device=known.device)))
        self.shares.copy_(nearest.flatten().bincount(minlength=self.config.units) / len(known))

    @torch.no_grad()
    def forward(self, frames: Frames) -> Int[Tensor, "batch time"]:
        """Tell each frame's cluster; on padding it means nothing."""
        rows = frames.values.flatten(0, 1).to(self.centroids.dtype)
        with torch.autocast(rows.device.type, enabled=False):
            return squared_distances(rows, self.centroids).argmin(1).view(frames.values.shape[:2])
