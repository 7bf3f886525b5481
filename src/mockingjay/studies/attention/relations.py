"""Which phones a head looks at from which: phone relation maps, and what a head attends to or neglects.

arXiv 2006.03265, section 4, with its authors' correction: the sum over a map is divided by T and not by T²
(github.com/leo19941227/Self-Attention-on-SATs). Attention of stacked steps is meant to be repeated for each of their
frames; a step that carries the shares of its frames' phones gives the same sums.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from mockingjay.core.types import SAMPLE_RATE, Grid, Utterance
from mockingjay.downstream.tasks import Task


def shares(task: Task, utterance: Utterance, grid: Grid, steps: int) -> Float[Tensor, "steps phones"]:
    """Say what share of each step's labelled time is which phone; rows without a label are zero.

    Args:
        task: Phone classification that has learnt its classes.
        utterance: Cut to what was read.
        grid: Where the steps lie.
        steps: How many there are.
    """
    end = (int(grid.times(steps)[-1] * SAMPLE_RATE) + grid.hop / 2) / SAMPLE_RATE  # seconds; later points have no step
    targets = task.targets(replace(utterance, seconds=min(utterance.seconds, end)), grid, steps)
    table = torch.zeros(steps, len(task.outputs), dtype=torch.float64)
    table.scatter_add_(1, targets.answers, targets.counts.double())
    return table / table.sum(1, keepdim=True).clamp(min=1e-12)


def relate(
    maps: Float[Tensor, "*heads time time"], phones: Float[Tensor, "time phones"]
) -> tuple[Float[Tensor, "*heads phones phones"], Float[Tensor, "phones phones"]]:
    """Sum one utterance's attention over pairs of phones: P′, and what uniform attention would give.

    Steps without a label are left out and rows made to sum to one again, so both sum to one.
    """
    known = (phones.sum(1) > 0).nonzero()[:, 0]
    phones = phones[known].to(maps.dtype)
    maps = maps[..., known.to(maps.device)[:, None], known.to(maps.device)]
    maps = maps / maps.sum(-1, keepdim=True).clamp(min=1e-12)
    phones = phones.to(maps.device)
    even = phones.mean(0)
    return phones.T @ maps @ phones / len(known), even[:, None] * even


def relation_map(
    attended: Float[Tensor, "*heads phones phones"], chance: Float[Tensor, "#*heads phones phones"]
) -> Float[Tensor, "*heads phones phones"]:
    """Relate attention from phone m to n to chance: 0 as much as uniform attention, 1 twice that; nan without pairs."""
    return torch.where(chance > 0, attended / chance - 1, torch.nan)


def concentration(relations: Float[Tensor, "*heads phones phones"]) -> Float[Tensor, "*heads phones"]:
    """Average over the phones that look: focus on a phone is above 0, neglect below."""
    return relations.nanmean(-2)


def same_phone(relations: Float[Tensor, "*heads phones phones"]) -> Float[Tensor, "*heads"]:
    """Average over the diagonal: how much more than chance a head looks at the phone it comes from."""
    return relations.diagonal(dim1=-2, dim2=-1).nanmean(-1)
