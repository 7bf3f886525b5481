"""Product quantisation: a vector becomes one code from each of a few groups, whose vectors stand side by side.

Baevski et al. 2019 (vq-wav2vec, arXiv 1910.05453, section 3): with one codebook of V codes a network soon uses but a
few of them, two groups have V² combinations at the price of 2V. Codes are chosen by a map of the vector, made a choice
by the Gumbel-softmax (Jang et al. 2017, arXiv 1611.01144), or are those nearest to the parts of the vector.

Noise is drawn by the utterances' addresses. Stands with the encoders because the context of vq-wav2vec reads codes.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.encoders.gumbel import choose
from mockingjay.encoders.quantise import Chosen, Quantiser

_LEAST = 1e-7  # added to shares before their logarithm (code): the slope of the entropy has no bound at zero


@dataclass(frozen=True, slots=True)
class Occasion:
    """Where in a training codes are chosen: how far it is, and what addresses the noise."""

    progress: float  # share of training done, in [0, 1)
    draw: Draw
    ids: tuple[str, ...]  # of the utterances


class ProductQuantiser(nn.Module, ABC):
    """Puts codes in the place of vectors.

    Attributes:
        groups: Codes for each vector.
        codes: Codes to choose from in each group.
    """

    groups: int
    codes: int

    @abstractmethod
    def forward(self, vectors: Float[Tensor, "batch time inputs"], occasion: Occasion | None = None) -> Chosen:
        """Choose codes.

        Args:
            vectors: What they are to stand for.
            occasion: Of a choice that is being learned; None: the best choice, without noise.
        """

    def note(
        self,
        vectors: Float[Tensor, "batch time inputs"],
        chosen: Chosen,
        valid: Bool[Tensor, "batch time"],
        occasion: Occasion,
    ) -> None:
        """Remember a micro-batch until the step is done."""

    def begin(self) -> None:
        """Run before training, after a few batches were noted."""

    def follow(self) -> None:
        """Run after each optimiser step."""


class Temperature(Table):
    """How soft the choice is that gradients see, falling as training goes on; defaults are wav2vec 2.0 BASE."""

    start: float = Field(default=2.0, gt=0)
    """At the beginning."""
    end: float = Field(default=0.5, gt=0)
    """At the end."""
    until: float = Field(default=math.log(4) / 2, gt=0, le=1)
    """Share of the training after which it stays; by a factor of 0.999995 in each of 400 000 steps: log 4 / 2."""
    fall: Literal["exponential", "linear"] = "exponential"
    """By equal factors (wav2vec 2.0, section 4.2) or equal steps (vq-wav2vec, section 5)."""

    def at(self, progress: float) -> float:
        """Tell the temperature at a share of the training."""
        share = min(progress / self.until, 1.0)
        if self.fall == "linear":
            return self.start + share * (self.end - self.start)
        return self.start * (self.end / self.start) ** share


class Gumbel(ProductQuantiser):
    """Codes chosen by a map of the vector: the largest logit, in training after noise was added to all.

    Forward there is one code; backward the gradient is that of the softmax of the noisy logits over the temperature.
    """

    class Config(Table):
        """Defaults are wav2vec 2.0's (section 4.2)."""

        kind: Literal["gumbel"] = "gumbel"
        groups: int = Field(default=2, ge=1, le=64)
        """Codes for each vector; must divide the width of what comes out."""
        codes: int = Field(default=320, ge=2, le=65_536)
        """Codes to choose from in each group."""
        hidden: int = Field(default=0, ge=0, le=262_144)
        """Width of a rectified layer before the logits; 0: the logits are a linear map."""
        shared: bool = False
        """Whether all groups have one codebook (vq-wav2vec, section 3.3)."""
        temperature: Temperature = Temperature()
        """Of the softmax that gradients see."""

    def __init__(self, config: Config, inputs: int, outputs: int) -> None:
        super().__init__()
        _check_width(config.groups, outputs)
        self.config, self.groups, self.codes = config, config.groups, config.codes
        layers: list[nn.Module] = []
        if config.hidden:
            layers = [nn.Linear(inputs, config.hidden), nn.ReLU()]
        last = nn.Linear(config.hidden or inputs, config.groups * config.codes)
        if not config.hidden:  # else as torch has it (code)
            nn.init.normal_(last.weight)
            nn.init.zeros_(last.bias)
        self.logits = nn.Sequential(*layers, last)
        books = 1 if config.shared else config.groups
        self.codebook = nn.Parameter(torch.empty(books, config.codes, outputs // config.groups).uniform_())

    def forward(self, vectors: Float[Tensor, "batch time inputs"], occasion: Occasion | None = None) -> Chosen:
        with torch.autocast(vectors.device.type, enabled=False):
            logits = self.logits(vectors.to(self.codebook.dtype)).unflatten(2, (self.groups, self.codes))
            if occasion is None:
                return choose(logits, self.codebook, 1.0, None, ())
            temperature = self.config.temperature.at(occasion.progress)
            return choose(logits, self.codebook, temperature, occasion.draw, occasion.ids)


class Nearest(ProductQuantiser):
    """The codes nearest to the parts of the vector: vq-wav2vec's k-means (section 3.2), a codebook for each group."""

    class Config(Table):
        """Defaults are vq-wav2vec's (section 5)."""

        kind: Literal["k-means"] = "k-means"
        groups: int = Field(default=2, ge=1, le=64)
        """Parts of the vector; must divide its width."""
        commitment: float = Field(default=0.25, ge=0)
        """Weight of the squared distance that keeps vectors near their codes."""
        quantiser: Quantiser.Config = Quantiser.Config(codes=320)
        """Each group's codebook."""

    def __init__(self, config: Config, inputs: int, outputs: int) -> None:
        super().__init__()
        _check_width(config.groups, outputs)
        if inputs != outputs:
            raise ConfigError(
                f"quantiser: vectors of width {inputs} are to become codes of width {outputs}, expected one width, for "
                "'k-means' keeps it; set them alike or the quantiser's kind to 'gumbel'"
            )
        self.config, self.groups, self.codes = config, config.groups, config.quantiser.codes
        self.parts = nn.ModuleList(Quantiser(config.quantiser, outputs // config.groups) for _ in range(config.groups))

    def forward(self, vectors: Float[Tensor, "batch time inputs"], occasion: Occasion | None = None) -> Chosen:
        del occasion
        found = [part(piece) for part, piece in zip(self.parts, vectors.chunk(self.groups, -1))]
        codes = torch.stack([each.codes for each in found], -1)
        cost = sum((self.config.commitment * each.commitment for each in found), vectors.new_zeros(codes.shape[:2]))
        if self.config.quantiser.learn == "gradient":
            cost = sum((each.codebook for each in found), cost)
        shares = F.one_hot(codes, self.codes).to(cost.dtype)
        return Chosen(torch.cat([each.values for each in found], -1), codes, shares, cost)

    def note(
        self,
        vectors: Float[Tensor, "batch time inputs"],
        chosen: Chosen,
        valid: Bool[Tensor, "batch time"],
        occasion: Occasion,
    ) -> None:
        lots = occasion.draw.uniform(occasion.ids, "restart", vectors.shape[1]).to(vectors.device, non_blocking=True)
        for group, (part, piece) in enumerate(zip(self._books, vectors.chunk(self.groups, -1))):
            part.note(piece, chosen.codes[..., group], valid, lots)

    def begin(self) -> None:
        for part in self._books:
            part.begin()

    def follow(self) -> None:
        for part in self._books:
            part.follow()

    @property
    def _books(self) -> list[Quantiser]:
        return [part for part in self.parts if isinstance(part, Quantiser)]


PRODUCT_QUANTISERS: Mapping[str, type[ProductQuantiser]] = {"gumbel": Gumbel, "k-means": Nearest}

ProductQuantiserConfig = Annotated[Gumbel.Config | Nearest.Config, Field(discriminator="kind")]


def build_product_quantiser(config: ProductQuantiserConfig, inputs: int, outputs: int) -> ProductQuantiser:
    """Build what makes vectors of width `inputs` codes' vectors of width `outputs`."""
    return PRODUCT_QUANTISERS[config.kind](config, inputs, outputs)


def in_use(shares: Float[Tensor, "batch time groups codes"], valid: Bool[Tensor, "batch time"]) -> Float[Tensor, ""]:
    """Count the codes in use, on average over groups: the exponential of the entropy of their mean shares."""
    weights = valid.to(shares.dtype) / valid.sum().clamp(min=1)
    with torch.autocast(shares.device.type, enabled=False):  # bfloat16 holds no more than two digits of a share
        mean = torch.einsum("btgc,bt->gc", shares, weights)
    return (-(mean * (mean + _LEAST).log()).sum(-1)).exp().mean()


def _check_width(groups: int, width: int) -> None:
    if width % groups:
        raise ConfigError(
            f"quantiser.groups: {groups} do not divide the width {width}, expected a divisor; change one of the two"
        )
