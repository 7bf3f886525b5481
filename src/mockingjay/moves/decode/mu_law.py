"""8-bit µ-law: samples as one of 256 levels, finer where it is quiet (ITU-T G.711; WaveNet, section 2.2).

With it come the dumb predictors of levels, counted over the corpus: how often each level is, and how often each follows
each other. A decoder that scores no better than the latter knows nothing of speech but that it is smooth.
"""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mockingjay.core.types import Loss, Waves, valid_steps

LEVELS = 256
SILENCE = LEVELS // 2  # the level of a sample of zero
_MU = LEVELS - 1


def compress(samples: Float[Tensor, "*cells"]) -> Int[Tensor, "*cells"]:
    """Turn samples between −1 and 1 into levels; louder ones are clipped."""
    samples = samples.clamp(-1, 1)
    curved = samples.sign() * torch.log1p(_MU * samples.abs()) / math.log1p(_MU)
    return ((curved + 1) / 2 * _MU + 0.5).long()


def expand(levels: Int[Tensor, "*cells"]) -> Float[Tensor, "*cells"]:
    """Turn levels into samples."""
    curved = levels.float() / _MU * 2 - 1
    return curved.sign() * torch.expm1(curved.abs() * math.log1p(_MU)) / _MU


class Levels(nn.Module):
    """Scores levels."""

    pairs: Float[Tensor, "levels levels"]  # how often the second follows the first

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pairs", torch.zeros(LEVELS, LEVELS))

    @torch.no_grad()
    def fit(self, waves: Iterable[Waves]) -> None:
        """Count over the corpus."""
        counts = torch.zeros(LEVELS * LEVELS, dtype=torch.float64, device=self.pairs.device)
        for batch in waves:
            levels = compress(batch.samples)
            valid = valid_steps(batch.lengths, levels.shape[1])[:, 1:]
            counts += torch.bincount((LEVELS * levels[:, :-1] + levels[:, 1:])[valid], minlength=len(counts))
        self.pairs.copy_(counts.view_as(self.pairs))

    def score(
        self,
        logits: Float[Tensor, "batch samples levels"],
        levels: Int[Tensor, "batch samples"],
        valid: Bool[Tensor, "batch samples"],
    ) -> Loss:
        """Sum up −log p of valid samples, in nats."""
        errors = F.cross_entropy(logits.flatten(0, 1), levels.flatten(), reduction="none").view_as(levels)
        return Loss((errors * valid).sum(), valid.sum().float(), {} if self.training else self._trivial(levels, valid))

    def _trivial(
        self, levels: Int[Tensor, "batch samples"], valid: Bool[Tensor, "batch samples"]
    ) -> dict[str, Float[Tensor, ""]]:
        """Score the dumb predictors: any level, its frequency, and its frequency after the sample before."""
        counts = self.pairs.sum(0) + 1
        marginal = counts.log() - counts.sum().log()
        # What is rare is helped out by the marginal frequencies, as if every level had been seen once more.
        smoothed = self.pairs + counts / counts.sum()
        following = smoothed.log() - smoothed.sum(1, keepdim=True).log()
        guesses = {
            "chance": torch.full_like(marginal, -math.log(LEVELS))[levels],
            "marginal": marginal[levels],
            "previous sample": following[before(levels), levels],
        }
        return {name: -(guess * valid).sum() for name, guess in guesses.items()}


def before(levels: Int[Tensor, "batch samples"]) -> Int[Tensor, "batch samples"]:
    """Say for each sample the level of the one before; before the first was silence."""
    return F.pad(levels[:, :-1], (1, 0), value=SILENCE)


def sample(logits: Float[Tensor, "batch levels"], generator: torch.Generator) -> Int[Tensor, " batch"]:
    """Draw a level from each row."""
    return torch.multinomial(logits.float().softmax(-1).cpu(), 1, generator=generator)[:, 0].to(logits.device)
