"""Bottlenecks: what an autoencoder lets through. Narrow (AE), noisy (VAE) or discrete (VQ-VAE).

Chorowski et al. 2019 (arXiv 1901.08810), section II: all three have the same width, and differ in what else they cost.
A cost is counted per latent and added to the negative logarithm of the likelihood of what the latent stands for.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.core.draw import Draw
from mockingjay.encoders.quantise import Quantiser, perplexity


@dataclass(frozen=True, slots=True)
class Passed:
    """What came through, and at what cost."""

    values: Float[Tensor, "batch time dim"]
    cost: Float[Tensor, "batch time"]  # of each latent, in nats
    figures: Mapping[str, Float[Tensor, ""]]  # means, for the log


class Bottleneck(nn.Module, ABC):
    """Lets a few numbers through.

    Attributes:
        inputs: Numbers it reads for each latent.
        depth: Layers it shows to those who read the encoder.
    """

    inputs: int
    depth: int

    @abstractmethod
    def forward(
        self,
        projected: Float[Tensor, "batch time inputs"],
        valid: Bool[Tensor, "batch time"],
        progress: float,
        draw: Draw,
        ids: tuple[str, ...],
    ) -> Passed:
        """Squeeze latents for a decoder."""

    @abstractmethod
    def layers(self, projected: Float[Tensor, "batch time inputs"]) -> tuple[Float[Tensor, "batch time dim"], ...]:
        """Show the latents without any noise."""

    def begin(self) -> None:
        """Run before training, after a few batches went through."""

    def follow(self) -> None:
        """Run after each optimiser step."""


class Narrow(Bottleneck):
    """Few dimensions, and nothing else (AE)."""

    class Config(Table):
        """The default is the paper's."""

        kind: Literal["ae"] = "ae"
        norm: float = Field(default=0.0, ge=0)
        """Weight of |‖z‖ − 1|, which keeps the scale from drifting; the paper has none (code: ae-wavenet)."""

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        self.norm = config.norm
        self.inputs, self.depth = dim, 1

    def forward(
        self,
        projected: Float[Tensor, "batch time inputs"],
        valid: Bool[Tensor, "batch time"],
        progress: float,
        draw: Draw,
        ids: tuple[str, ...],
    ) -> Passed:
        norms = torch.linalg.vector_norm(projected, dim=-1)
        return Passed(projected, self.norm * (norms - 1).abs(), {"latent norm": mean(norms, valid)})

    def layers(self, projected: Float[Tensor, "batch time inputs"]) -> tuple[Float[Tensor, "batch time dim"], ...]:
        return (projected,)


class Noisy(Bottleneck):
    """A normal distribution that must not stray far from the standard one (VAE)."""

    class Config(Table):
        """Defaults are the code's (ae-wavenet)."""

        kind: Literal["vae"] = "vae"
        weight: float = Field(default=1.0, ge=0)
        """Of the divergence; 1 is the bound on the likelihood."""
        free: float = Field(default=9.0, ge=0)
        """Nats a latent may diverge for nothing."""
        warmup: float = Field(default=0.1, ge=0, le=1)
        """Share of the training in which the weight rises from 0 (ours)."""

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        self.config = config
        self.inputs, self.depth = 2 * dim, 1

    def forward(
        self,
        projected: Float[Tensor, "batch time inputs"],
        valid: Bool[Tensor, "batch time"],
        progress: float,
        draw: Draw,
        ids: tuple[str, ...],
    ) -> Passed:
        centre, spread = projected.float().chunk(2, -1)  # mean and logarithm of the variance
        divergence = 0.5 * (centre.square() + spread.exp() - 1 - spread).sum(-1)
        weight = self.config.weight * min(1.0, progress / self.config.warmup if self.config.warmup else 1.0)
        cost = weight * (divergence - self.config.free).clamp(min=0)
        # Latent by latent, so that a longer batch begins with the same noise; half a step off zero.
        uniform = draw.uniform(ids, "bottleneck", centre[0].numel()).double() + 2.0**-25
        noise = torch.special.ndtri(uniform).float().to(centre.device, non_blocking=True).view_as(centre)
        return Passed(centre + (spread / 2).exp() * noise, cost, {"divergence": mean(divergence, valid)})

    def layers(self, projected: Float[Tensor, "batch time inputs"]) -> tuple[Float[Tensor, "batch time dim"], ...]:
        return (projected.chunk(2, -1)[0],)


class Discrete(Bottleneck):
    """One of a codebook's vectors (VQ-VAE); its layers are the latents before and after quantisation."""

    class Config(Table):
        """Defaults are the paper's."""

        kind: Literal["vq-vae"] = "vq-vae"
        commitment: float = Field(default=0.25, ge=0)
        """Weight of the distance that keeps latents near their codes."""
        quantiser: Quantiser.Config = Quantiser.Config()
        """The codebook."""

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        self.config = config
        self.inputs, self.depth = dim, 2
        self.quantiser = Quantiser(config.quantiser, dim)

    def forward(
        self,
        projected: Float[Tensor, "batch time inputs"],
        valid: Bool[Tensor, "batch time"],
        progress: float,
        draw: Draw,
        ids: tuple[str, ...],
    ) -> Passed:
        found = self.quantiser(projected)
        if self.training:
            lots = draw.uniform(ids, "restart", projected.shape[1]).to(projected.device, non_blocking=True)
            self.quantiser.note(projected, found.codes, valid, lots)
        cost = self.config.commitment * found.commitment
        if self.config.quantiser.learn == "gradient":
            cost = cost + found.codebook
        figures = {
            "perplexity": perplexity(found.codes, valid, self.config.quantiser.codes),
            "quantisation error": mean(found.commitment, valid),
        }
        return Passed(found.values, cost, figures)

    def layers(self, projected: Float[Tensor, "batch time inputs"]) -> tuple[Float[Tensor, "batch time dim"], ...]:
        # The difference is zero, its gradient one: what lies below codes can be tuned as what lies below any layer.
        return projected, self.quantiser.codebook[self.quantiser.nearest(projected)] + (projected - projected.detach())

    def begin(self) -> None:
        self.quantiser.begin()

    def follow(self) -> None:
        self.quantiser.follow()


BOTTLENECKS: Mapping[str, type[Bottleneck]] = {"ae": Narrow, "vae": Noisy, "vq-vae": Discrete}

BottleneckConfig = Annotated[Narrow.Config | Noisy.Config | Discrete.Config, Field(discriminator="kind")]


def mean(values: Float[Tensor, "batch time"], valid: Bool[Tensor, "batch time"]) -> Float[Tensor, ""]:
    """Average over valid latents."""
    return (values.detach() * valid).sum() / valid.sum().clamp(min=1)
