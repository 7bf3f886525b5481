"""Contrast: tell the true frame of a later step from others, given what was foretold of it.

Every prediction is compared with its true frame and with negatives, other frames that are drawn once for each true
frame and serve all predictions of it (code of wav2vec). They are drawn by (seed, epoch, utterance) from the utterance
itself, from those of its speaker in the batch, or from the whole batch; within-sequence negatives are always among
them, for they matter most (van den Oord et al. 2018, table 2). Drawn from the utterance, nothing outside it can change
them; drawn from the batch, batch-mates do, their order does not.

Differs from the papers' codes: a negative is never the true frame itself, which the code of modified CPC lets happen
now and then, unless there is no other: where wav2vec 2.0 masks a single step, that step costs what chance costs and
teaches nothing; every pair of a step and a later one inside the utterance is scored.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Frames, Loss, Utterance


class Negatives(config.Config):
    """How many frames each true one is told from, and where they come from."""

    count: int = Field(default=128, ge=1)
    """Negatives for each true frame."""
    source: Literal["sequence", "speaker", "batch"] = "batch"
    """From the true frame's own utterance, from the batch's utterances of its speaker, or from all of the batch; the
    own utterance is always among them."""

    @property
    def draws_from(self) -> Literal["utterance", "batch"]:
        """What a loss depends on by them; see `Objective.draws_from`."""
        return "utterance" if self.source == "sequence" else "batch"


@dataclass(frozen=True, slots=True)
class Drawn:
    """Negatives of each true frame."""

    frames: Int[Tensor, "batch time negatives"]  # row · time + step; on padding they mean nothing
    own: bool  # all from the true frame's own utterance


def draw_negatives(
    negatives: Negatives, frames: Frames, draw: Draw, utterances: Sequence[Utterance], purpose: str = "negatives"
) -> Drawn:
    """Draw for each true frame others, uniformly from its pool."""
    time, device, lengths = frames.values.shape[1], frames.values.device, frames.lengths
    uniform = draw.uniform([each.id for each in utterances], purpose, time * negatives.count)
    uniform = uniform.unflatten(1, (time, negatives.count)).to(device, non_blocking=True)
    rows = _pools(negatives.source, utterances).to(device, non_blocking=True)
    # A pool is the utterances of a row, its own first, end to end; its frames are counted through.
    ends = (lengths[rows.clamp(min=0)] * (rows >= 0)).cumsum(1)
    total = ends[:, -1, None, None]
    own = torch.arange(time, device=device)[:, None]
    place = (uniform * (total - 1)).long()
    place = (place + (place >= own)).minimum(total - 1).flatten(1)  # all but the true frame, if there are others
    member = torch.searchsorted(ends, place, right=True)
    before = F.pad(ends, (1, -1)).gather(1, member)
    drawn = rows.gather(1, member) * time + place - before
    return Drawn(drawn.unflatten(1, (time, negatives.count)), own=rows.shape[1] == 1)


def _pools(source: str, utterances: Sequence[Utterance]) -> Int[Tensor, "batch pool"]:
    """List for each row the rows its negatives come from: itself, then others by id; −1 fills up."""
    ranked = sorted(range(len(utterances)), key=lambda row: utterances[row].id)

    def shares(one: Utterance, other: Utterance) -> bool:
        return source == "batch" or (source == "speaker" and one.speaker is not None and one.speaker == other.speaker)

    pools = [
        [row, *(other for other in ranked if other != row and shares(utterance, utterances[other]))]
        for row, utterance in enumerate(utterances)
    ]
    most = max(map(len, pools))
    return torch.tensor([pool + [-1] * (most - len(pool)) for pool in pools])


@dataclass(frozen=True, slots=True)
class Contrast:
    """How well each prediction fits its true frame, which comes first, and the negatives."""

    scores: Float[Tensor, "batch time steps candidates"]  # of what was told of each true frame, by distance
    asked: Bool[Tensor, "batch time steps"]  # whether the step that told lies in the utterance


def compare(
    told: Float[Tensor, "batch time steps dim"],
    frames: Frames,
    negatives: Drawn,
    first: int = 1,
) -> Contrast:
    """Score by inner products.

    Args:
        told: At each step, what is foretold of the frames `first`, `first` + 1, … steps later.
        frames: The true ones.
        negatives: As drawn.
        first: Steps.
    """
    batch, time, steps, dim = told.shape
    device = told.device
    ahead = first + torch.arange(steps, device=device)
    place = torch.arange(time, device=device)
    asked = (place[:, None] >= ahead) & frames.valid[:, :, None]
    shifts = [min(first + step, time) for step in range(steps)]
    arrived = torch.stack([F.pad(said, (0, 0, shift, -shift)) for said, shift in zip(told.unbind(2), shifts)], 2)
    rows = time * torch.arange(batch, device=device)[:, None, None]
    candidates = torch.cat([place[:, None] + rows, negatives.frames], 2)
    pools = frames.values if negatives.own else frames.values.flatten(0, 1)[None]
    if steps * pools.shape[1] <= candidates.shape[2] * dim:
        # Scores of whole pools take less room than the candidates' vectors, and are several times as fast then.
        scores = (arrived.reshape(len(pools), -1, dim) @ pools.transpose(1, 2)).view(batch, time, steps, -1)
        index = candidates - rows if negatives.own else candidates
        scores = scores.gather(3, index[:, :, None].expand(-1, -1, steps, -1))
    else:
        vectors = F.embedding(candidates, frames.values.flatten(0, 1)).flatten(0, 1)
        scores = (arrived.flatten(0, 1) @ vectors.transpose(1, 2)).unflatten(0, (batch, time))
    return Contrast(scores.float(), asked)


def info_nce(contrast: Contrast, trivial: bool) -> Loss:
    """Choose the true frame among all candidates: the cross-entropy of the softmax of the scores (CPC, equation 4).

    Args:
        contrast: What was compared.
        trivial: Whether to give as parts what uniform scores would have; else the accuracy for each distance.
    """
    errors = contrast.scores.logsumexp(-1) - contrast.scores[..., 0]
    return _loss(errors, contrast, math.log(contrast.scores.shape[3]), trivial)


def binary_nce(contrast: Contrast, trivial: bool) -> Loss:
    """Say of each candidate alone whether it is the true frame (wav2vec, equation 2): 1 + N logistic losses, summed.

    Args:
        contrast: What was compared.
        trivial: Whether to give as parts what the candidates' share of true ones would have, said of each of them; else
            the accuracy for each distance.
    """
    errors = F.softplus(-contrast.scores[..., 0]) + F.softplus(contrast.scores[..., 1:]).sum(-1)
    count = contrast.scores.shape[3] - 1
    return _loss(errors, contrast, math.log(1 + count) + count * math.log(1 + 1 / count), trivial)


def _loss(errors: Float[Tensor, "batch time steps"], contrast: Contrast, chance: float, trivial: bool) -> Loss:
    weight = contrast.asked.sum().float()
    parts = {"chance": weight * chance} if trivial else _accuracies(contrast)
    return Loss((errors * contrast.asked).sum(), weight, parts)


@torch.no_grad()
def _accuracies(contrast: Contrast) -> dict[str, Float[Tensor, ""]]:
    """Count for each distance how often the true frame scores highest, as a share times the whole loss's weight."""
    right = (contrast.scores[..., 0] > contrast.scores[..., 1:].amax(-1)) & contrast.asked
    pairs = contrast.asked.sum((0, 1))
    shares = right.sum((0, 1)) / pairs.clamp(min=1) * pairs.sum()
    return {f"accuracy {step}": share for step, share in enumerate(shares.unbind(), 1)}
