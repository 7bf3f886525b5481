"""Score a learner on what is held out; beside its objective stand the trivial predictors on the same cells."""

import math
from collections.abc import Mapping, Sequence

import torch

from mockingjay.core.draw import Draw
from mockingjay.core.errors import TrainingError
from mockingjay.core.learner import Learner
from mockingjay.core.types import Batch
from mockingjay.train.distributed import Group

BOUND = "entropy"  # of soft targets: below it nothing can go, so it is no rival


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


def predictors(scores: Mapping[str, float]) -> dict[str, float]:
    """Leave of what `validate` found the trivial predictors: not the model, nor a bound that nothing goes below."""
    return {name: value for name, value in scores.items() if name not in ("model", BOUND)}
