"""Vector quantisation: every vector becomes the nearest of a codebook's, and gradients pass as if it had not.

Van den Oord et al. 2017 (VQ-VAE, arXiv 1711.00937). Codes move towards the vectors they stand for, by their own
gradient (section 3.2) or by a moving average (appendix A.1), and a commitment keeps the vectors near their codes. A
codebook tends to die down to a few codes, so one that is hardly chosen any more is put where a vector of the present
step lies. Which vector is drawn by the utterances' addresses and not by a generator, and everything learned is summed
over all micro-batches and ranks before a code moves: a resumed run and another split of the batch find the same codes.

Stands with the encoders because the codebook is kept after training.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from mockingjay.core.config import Config as Table

_SMOOTHING = 1e-5  # counts added to every code by a moving average (code)


@dataclass(frozen=True, slots=True)
class Quantised:
    """Codes in the vectors' place."""

    values: Float[Tensor, "batch time dim"]  # the codes' vectors; their gradient goes to the vectors quantised
    codes: Int[Tensor, "batch time"]
    codebook: Float[Tensor, "batch time"]  # squared distance, whose gradient goes to the codes alone
    commitment: Float[Tensor, "batch time"]  # the same, whose gradient goes to the vectors alone


@dataclass(frozen=True, slots=True)
class Chosen:
    """One code of every group in each vector's place."""

    values: Float[Tensor, "batch time dim"]  # the codes' vectors, side by side
    codes: Int[Tensor, "batch time groups"]
    shares: Float[Tensor, "batch time groups codes"]  # how probable each code was, without noise
    cost: Float[Tensor, "batch time"]  # of each vector's codes, to be added to a loss

    @property
    def likeliest(self) -> Int[Tensor, "batch time groups"]:
        """The codes as they are without noise."""
        return self.shares.argmax(-1)

    def perplexity(self, valid: Bool[Tensor, "batch time"]) -> Float[Tensor, ""]:
        """Count the likeliest codes in use, on average over groups.

        Not those drawn: noise alone draws many where the likeliest has become one for all.
        """
        count = self.shares.shape[-1]
        return torch.stack([perplexity(codes, valid, count) for codes in self.likeliest.unbind(2)]).mean()


class Quantiser(nn.Module):
    """A codebook.

    Attributes:
        codebook: The codes' vectors; a parameter where they learn by gradient, else a buffer.
        usage: Moving average of how often each code is chosen in a step.
    """

    class Config(Table):
        """Defaults are the paper's where it says them."""

        codes: int = Field(default=512, ge=1, le=65_536)
        """Vectors in the codebook (code of ZeroSpeech 2020)."""
        learn: Literal["gradient", "average"] = "gradient"
        """How codes follow their vectors (paper: by gradient)."""
        decay: float = Field(default=0.99, ge=0, lt=1)
        """Decay per step of the moving averages, that of usage included (ours; codes: 0.99 to 0.999). A codebook that
        lags behind its vectors dies, so short trainings at high learning rates want 0.9."""
        restart: float = Field(default=0.01, ge=0, lt=1)
        """Share of the mean usage below which a code starts anew at a vector of the step; 0: never (ours)."""

    usage: Float[Tensor, " codes"]
    total: Float[Tensor, "codes dim"]  # moving average of the sum of each code's vectors
    _chosen: Float[Tensor, " codes"]
    _summed: Float[Tensor, "codes dim"]
    _lots: Float[Tensor, " codes"]
    _offered: Float[Tensor, "codes dim"]

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        self.config = config
        codes = torch.empty(config.codes, dim).uniform_(-1 / config.codes, 1 / config.codes)
        if config.learn == "gradient":
            self.codebook = nn.Parameter(codes)
        else:
            self.register_buffer("codebook", codes)
            self.register_buffer("total", torch.zeros_like(codes))
        self.register_buffer("usage", torch.zeros(config.codes))
        # What one step gathers for `follow`; empty between steps, so nothing of it is ever saved.
        self.register_buffer("_chosen", torch.zeros(config.codes), persistent=False)
        self.register_buffer("_summed", torch.zeros_like(codes), persistent=False)
        self.register_buffer("_lots", torch.full((config.codes,), -1.0), persistent=False)
        self.register_buffer("_offered", torch.zeros_like(codes), persistent=False)

    def forward(self, vectors: Float[Tensor, "batch time dim"]) -> Quantised:
        """Put the nearest code in each vector's place."""
        vectors, codes = vectors.float(), self.nearest(vectors)
        found = self.codebook[codes]
        codebook = (vectors.detach() - found).square().sum(-1)
        commitment = (vectors - found.detach()).square().sum(-1)
        return Quantised(vectors + (found - vectors).detach(), codes, codebook, commitment)

    @torch.no_grad()
    def nearest(self, vectors: Float[Tensor, "batch time dim"]) -> Int[Tensor, "batch time"]:
        """Find the code with the least Euclidean distance to each vector."""
        rows = vectors.flatten(0, 1).float()
        with torch.autocast(rows.device.type, enabled=False):
            codebook = self.codebook.float()
            distances = torch.addmm(codebook.square().sum(1), rows, codebook.T, alpha=-2)
        return distances.argmin(1).view(vectors.shape[:2])

    @torch.no_grad()
    def note(
        self,
        vectors: Float[Tensor, "batch time dim"],
        codes: Int[Tensor, "batch time"],
        valid: Bool[Tensor, "batch time"],
        lots: Float[Tensor, "batch time"],
    ) -> None:
        """Remember a micro-batch until the step is done; its vectors with the highest lots may become codes."""
        rows, count = vectors.detach().float().flatten(0, 1), valid.flatten().float()
        self._chosen.index_add_(0, codes.flatten(), count)
        self._summed.index_add_(0, codes.flatten(), rows * count[:, None])
        self._keep(torch.where(valid, lots, -1.0).flatten(), rows)

    @torch.no_grad()
    def begin(self) -> None:
        """Before training, start all codes at vectors noted; from elsewhere they draw all vectors to one place."""
        known = (self._lots >= 0)[:, None]
        # All ranks prepare on the same data, so they need not tell each other.
        self.codebook.copy_(torch.where(known, self._offered, self.codebook))
        self.usage.fill_(1.0)
        if self.config.learn == "average":
            self.total.copy_(self.codebook)
        self._forget()

    @torch.no_grad()
    def follow(self) -> None:
        """After an optimiser step, move the averages and start dead codes anew."""
        self._gather()
        config, decay = self.config, self.config.decay
        self.usage.lerp_(self._chosen, 1 - decay)
        mean = self.usage.mean()
        # The n-th dead code takes the n-th vector that is offered, if there are so many.
        dead = self.usage < config.restart * mean
        offer = (dead.cumsum(0) - 1).clamp(min=0)
        dead = dead & (self._lots[offer] >= 0)
        if config.learn == "average":
            self.total.lerp_(self._summed, 1 - decay)
            self.total.copy_(torch.where(dead[:, None], self._offered[offer] * mean, self.total))
        self.usage.copy_(torch.where(dead, mean, self.usage))
        if config.learn == "average":
            smoothed = (self.usage + _SMOOTHING) / (1 + _SMOOTHING / mean.clamp(min=_SMOOTHING))
            moved = self.total / smoothed[:, None]
            self.codebook.copy_(torch.where(self.usage[:, None] > 0, moved, self.codebook))  # some never were chosen
        else:
            self.codebook.copy_(torch.where(dead[:, None], self._offered[offer], self.codebook))
        self._forget()

    def _forget(self) -> None:
        for each, empty in ((self._chosen, 0.0), (self._summed, 0.0), (self._lots, -1.0)):
            each.fill_(empty)

    def _keep(self, lots: Float[Tensor, " rows"], rows: Float[Tensor, "rows dim"]) -> None:
        """Keep as many offered vectors as there are codes, those with the highest lots, highest first."""
        lots, rows = torch.cat([self._lots, lots]), torch.cat([self._offered, rows])
        order = lots.argsort(descending=True, stable=True)[: len(self._lots)]
        self._lots.copy_(lots[order])
        self._offered.copy_(rows[order])

    def _gather(self) -> None:
        """Add up what all ranks have seen."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        ranks = torch.distributed.get_world_size()
        torch.distributed.all_reduce(self._chosen)
        torch.distributed.all_reduce(self._summed)
        own = torch.cat([self._lots[:, None], self._offered], 1)
        gathered = [torch.empty_like(own) for _ in range(ranks)]
        torch.distributed.all_gather(gathered, own)
        self._lots.fill_(-1.0)
        for theirs in gathered:
            self._keep(theirs[:, 0], theirs[:, 1:])


def perplexity(codes: Int[Tensor, "batch time"], valid: Bool[Tensor, "batch time"], count: int) -> Float[Tensor, ""]:
    """Count the codes in use: the exponential of the entropy of their frequencies, 1 where one code stands for all."""
    shares = torch.zeros(count, device=codes.device).index_add_(0, codes.flatten(), valid.flatten().float())
    return torch.special.entr(shares / shares.sum().clamp(min=1)).sum().exp()
