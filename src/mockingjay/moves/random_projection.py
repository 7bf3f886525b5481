"""Codes that nobody learns: the nearest of a random codebook's after a random projection.

Chiu et al. 2022 (BEST-RQ, arXiv 2202.01855, section 3.1). Both are drawn once, from a seed, and stay as they are: what
is alike stays alike, and there is nothing that could collapse. They are buffers, so that a saved run has them whatever
made them.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.core.draw import Draw


class RandomProjection(nn.Module):
    """A frozen projection and a frozen codebook of unit vectors.

    Attributes:
        projection: Xavier's (section 3.1).
        codebook: Standard normal, scaled to length 1.
    """

    class Config(Table):
        """Defaults are the paper's for LibriSpeech (section 4.1)."""

        codes: int = Field(default=8192, ge=2, le=1_000_000)
        """Vectors in the codebook."""
        dim: int = Field(default=16, ge=1, le=65_536)
        """Their width."""
        seed: int = Field(default=0, ge=0, lt=2**63)
        """What both are drawn from; another seed asks other questions."""

    projection: Float[Tensor, "inputs dim"]
    codebook: Float[Tensor, "codes dim"]

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        generator = Draw(config.seed).generator("random projection", inputs, config.dim, config.codes)
        bound = (6 / (inputs + config.dim)) ** 0.5
        projection = (2 * torch.rand(inputs, config.dim, generator=generator) - 1) * bound
        codebook = torch.randn(config.codes, config.dim, generator=generator)
        self.register_buffer("projection", projection)
        self.register_buffer("codebook", F.normalize(codebook, dim=1))

    @torch.no_grad()
    def forward(self, values: Float[Tensor, "batch time inputs"]) -> Int[Tensor, "batch time"]:
        """Find each vector's code: of unit vectors the nearest has the greatest inner product."""
        with torch.autocast(values.device.type, enabled=False):
            return (values.float() @ self.projection @ self.codebook.t()).argmax(-1)
