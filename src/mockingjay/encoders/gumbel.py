"""Vector quantisation by Gumbel-softmax: a code is drawn by its logits, and gradients flow through the soft choice.

Jang, Gu, Poole 2017 (arXiv 1611.01144), straight-through: forward the drawn code alone, backward the softmax with the
same noise. Unlike the nearest code of a codebook (encoders/quantise.py), every code gets a gradient at every step, so
neither a commitment nor moving averages are needed. Noise is drawn by the utterances' addresses; in evaluation there is
none and the likeliest code is taken.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.core.draw import Draw
from mockingjay.encoders.noise import gumbel
from mockingjay.encoders.quantise import Chosen


def choose(
    logits: Float[Tensor, "batch time groups codes"],
    codebook: Float[Tensor, "books codes dim"],
    temperature: float,
    draw: Draw | None,
    ids: tuple[str, ...],
) -> Chosen:
    """Choose codes by their logits, the likeliest or by drawing.

    Args:
        logits: Of each group's codes.
        codebook: The codes' vectors, of each group or one for all.
        temperature: Of the softmax that gradients see.
        draw: Addresses the noise; none: there is none.
        ids: Of the utterances.
    """
    heard = logits
    if draw is not None:
        noise = gumbel(draw, ids, "gumbel", logits[0].numel(), logits.device).view(logits.shape)
        heard = (logits + noise) / temperature
    soft, codes = heard.softmax(-1), heard.argmax(-1)
    # The difference is zero, and its gradient the softmax's.
    choice = F.one_hot(codes, logits.shape[-1]).to(soft.dtype) + (soft - soft.detach())
    values = torch.einsum("btgc,gcd->btgd", choice, codebook.expand(logits.shape[2], -1, -1))
    shares = soft if draw is None else logits.softmax(-1)
    return Chosen(values.flatten(2), codes, shares, logits.new_zeros(codes.shape[:2]))


class GumbelQuantiser(nn.Module):
    """Codebooks, one for each group: a group's part of the vector says the logits of its codes.

    Attributes:
        weight: Maps each group's part to logits.
        bias: Of the logits.
        codebook: The codes' vectors.
    """

    class Config(Table):
        """Defaults are VQ-APC's (arXiv 2005.08392; code)."""

        groups: int = Field(default=1, ge=1, le=1024)
        """Equal parts of a vector that are quantised each by itself."""
        codes: int = Field(default=512, ge=2, le=65_536)
        """Codes of each group."""
        temperature: float = Field(default=0.5, gt=0)
        """Of the softmax that gradients flow through; the lower, the nearer it is to the choice and the noisier."""

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        assert dim % config.groups == 0, "whoever has a quantiser checks this"
        self.config = config
        part = dim // config.groups
        self.weight = nn.Parameter(torch.empty(config.groups, part, config.codes).uniform_(-(part**-0.5), part**-0.5))
        self.bias = nn.Parameter(torch.zeros(config.groups, config.codes))
        # Of the size of what they stand for (ours): the releases' are 1/√codes as large, and slow to say anything.
        self.codebook = nn.Parameter(torch.empty(config.groups, config.codes, part).uniform_(-1, 1))

    def forward(self, vectors: Float[Tensor, "batch time dim"], draw: Draw | None, ids: tuple[str, ...]) -> Chosen:
        """Put a code in each vector's place: in training a drawn one, in evaluation or without a draw the likeliest."""
        parts = vectors.unflatten(2, (self.config.groups, -1))
        logits = torch.einsum("btgp,gpc->btgc", parts, self.weight).float() + self.bias
        return choose(logits, self.codebook, self.config.temperature, draw if self.training else None, ids)
