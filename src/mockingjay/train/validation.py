"""Score a learner on what is held out; beside its objective stand the trivial predictors on the same cells."""

import math
from collections.abc import Sequence

import torch

from mockingjay.core.draw import Draw
from mockingjay.core.errors import TrainingError
from mockingjay.core.learner import Learner
from mockingjay.core.types import Batch
from mockingjay.train.distributed import Group


@torch.no_grad()
def validate(learner: Learner, batches: Sequence[Batch], counted: float, draw: Draw, group: Group) -> dict[str, float]:
    """Average the loss and its parts over all ranks' held-out batches, in the precision of the caller's autocast.

    Args:
        learner: On the group's device; it is left in evaluation mode.
        batches: This rank's, at least one.
        counted: 1; 0 where this rank's batches are another's, scored for nothing, so that all ranks sum the same parts.
        draw: The same at every validation.
        group: All ranks must validate together.

    Raises:
        TrainingError: An average is not finite.
    """
    learner.eval()
    totals: dict[str, torch.Tensor] = {}
    for batch in batches:
        loss = learner(batch.to(group.device), 0.0, draw)
        for name, value in {"weight": loss.weight, "model": loss.sum, **loss.parts}.items():
            totals[name] = totals.get(name, torch.zeros((), device=value.device)) + counted * value
    for name in sorted(totals):
        group.sum(totals[name])
    weight = max(totals.pop("weight").item(), 1.0)
    means = {name: value.item() / weight for name, value in totals.items()}
    if not all(map(math.isfinite, means.values())):
        raise TrainingError(
            f"validation: {means} on what is held out, expected finite numbers; lower the learning rate"
        )
    return means
