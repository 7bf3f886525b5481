"""What a frame sounds like, as probabilities over the sounds of a corpus: soft k-means over another frontend's frames.

It stands where SLU BERT (arXiv 1909.10924) has a phone recogniser's posteriors, and needs no label: clusters of
log-mel frames for phones, and of them the quiet ones for silence. The clusters are found by `fit` and saved with the
weights.
"""

import itertools
from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from mockingjay.core.config import Config as Table
from mockingjay.core.errors import ConfigError, DataError
from mockingjay.core.types import Frames, Waves
from mockingjay.encoders.frontends.fbank import Fbank
from mockingjay.encoders.frontends.frontend import Frontend
from mockingjay.encoders.frontends.linear import Linear
from mockingjay.encoders.frontends.log_mel import TERA_80, LogMel
from mockingjay.encoders.frontends.stacked import Stacked
from mockingjay.encoders.k_means import check_enough, k_means, squared_distances

SPECTRAL: dict[str, type[Frontend]] = {"log-mel": LogMel, "fbank": Fbank, "linear": Linear, "stacked": Stacked}


class Posteriors(Frontend):
    """Probabilities of `units` clusters at each frame of another frontend; they sum to one."""

    class Config(Table):
        """All ours; as many units as a phone recogniser of English has outputs."""

        kind: Literal["posteriors"] = "posteriors"
        units: int = Field(default=42, ge=2, le=65_536)
        """Clusters."""
        temperature: float = Field(default=0.1, gt=0)
        """Squared distance, in mean squared distances to the nearest cluster, that costs a factor of e; at 0.1 the most
        likely cluster has 0.85 on average."""
        frames: int = Field(default=100_000, ge=2, le=2**24)
        """Frames the clusters are found in, the first of the corpus; at least the units."""
        seed: int = Field(default=0, ge=0, lt=2**63)
        """Of the first centroids."""
        inner: Annotated[LogMel.Config | Fbank.Config | Linear.Config | Stacked.Config, Field(discriminator="kind")] = (
            TERA_80
        )
        """The frontend whose frames are clustered; a frame's level is their mean, which cepstra do not have."""

        @model_validator(mode="after")
        def _enough(self) -> "Posteriors.Config":
            check_enough(self.frames, self.units)
            return self

    centroids: Float[Tensor, "units dim"]
    scale: Float[Tensor, ""]  # mean squared distance to the nearest centroid; zero until fitted
    silent: Bool[Tensor, " units"]

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.inner = SPECTRAL[config.inner.kind](config.inner)
        self.leaks, self.reads = self.inner.leaks, self.inner.reads
        self.dim = config.units
        self.grid, self.receptive = self.inner.grid, self.inner.receptive
        self.register_buffer("centroids", torch.zeros(config.units, self.inner.dim))
        self.register_buffer("scale", torch.zeros(()))
        self.register_buffer("silent", torch.zeros(config.units, dtype=torch.bool))
        self._fitted = False  # spares reading the buffer twice, which on an accelerator waits for it

    def forward(self, waves: Waves) -> Frames:
        """Compute posteriors.

        Raises:
            DataError: An utterance has fewer than `receptive` samples.
            ConfigError: The clusters were neither fitted nor loaded.
        """
        self._fitted = self._fitted or bool(self.scale > 0)
        if not self._fitted:
            raise ConfigError(
                "frontend.posteriors: no clusters, expected a fit to the corpus or saved ones; "
                "call fit(waves) once before the first use"
            )
        frames = self.inner(waves)
        with torch.autocast(frames.values.device.type, enabled=False):
            apart = squared_distances(frames.values.flatten(0, 1), self.centroids).unflatten(0, frames.valid.shape)
            values = (-apart / (self.config.temperature * self.scale)).softmax(-1)
        return Frames(values.masked_fill(~frames.valid[..., None], 0.0), frames.lengths)

    def count(self, samples: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        return self.inner.count(samples)

    @torch.no_grad()
    def fit(self, waves: Iterable[Waves]) -> None:
        """Fit the inner frontend to the corpus, then find clusters in the first frames of it.

        Raises:
            DataError: There are fewer frames than units.
        """
        first, frames, waves = [], 0, iter(waves)
        for each in waves:
            first.append(each)
            frames += int(self.count(each.lengths).sum())
            if frames >= self.config.frames:
                break
        if frames < self.config.units:
            raise DataError(
                f"frontend.posteriors: {frames} frames in the corpus, expected at least one for each of "
                f"{self.config.units} units; add audio or set fewer units"
            )
        self.inner.fit(itertools.chain(first, waves))
        heard = [self.inner(each) for each in first]
        sample = torch.cat([each.values[each.valid] for each in heard])[: self.config.frames].cpu()
        centroids = k_means(sample, self.config.units, self.config.seed)
        apart, nearest = squared_distances(sample, centroids).min(1)
        self.centroids.copy_(centroids)
        self.scale.copy_(apart.mean().clamp_min(torch.finfo(torch.float32).tiny))
        self.silent.copy_(quiet(centroids.mean(1), nearest.bincount(minlength=self.config.units)))


def quiet(levels: Float[Tensor, " units"], counts: Int[Tensor, " units"]) -> Bool[Tensor, " units"]:
    """Split levels in two where the variance between the parts is largest (Otsu 1979), and mark the lower part."""
    order = levels.argsort()
    weight = counts[order].cumsum(0)[:-1].double()
    summed = (levels * counts)[order].cumsum(0).double()
    rest, below = counts.sum() - weight, summed[:-1]
    between = weight * rest * (below / weight.clamp_min(1) - (summed[-1] - below) / rest.clamp_min(1)).square()
    return levels <= levels[order[between.argmax()]]
