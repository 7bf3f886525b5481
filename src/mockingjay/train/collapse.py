"""Whether a representation still tells one frame from another: measured at every validation on held-out utterances.

An objective that makes up its own targets can be satisfied by saying the same of everything, and others die of too high
a learning rate; the loss may look well all the while. Three figures tell. Each is taken across utterances at the same
step, for what depends on the step's position alone says nothing about speech either: how far frames deviate from their
mean, along how many directions (the effective rank of Roy and Vetterli 2007: the exponential of the entropy of the
singular values), and the mean cosine between them. Where an objective reports how many codes it uses, that is a fourth.

What is little for one network is much for another, so each is compared with itself at step 0.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mockingjay.core.errors import TrainingError
from mockingjay.core.representation import Representation
from mockingjay.core.types import Batch, Waves
from mockingjay.train.distributed import Group

UTTERANCES = 16  # looked at
STEPS = 16  # of each of them
SPREAD = 0.05  # below it and a tenth of its own beginning, frames are all the same
RANK = 2.0  # below it and a quarter of its own beginning, frames lie along a line
CODES = 1.1  # below it, one code stands for all
TWICE = 2  # validations in a row after which a run is dead

Figures = dict[str, float]


@torch.no_grad()
def measure(frames: Float[Tensor, "utterances steps dim"]) -> Figures:
    """Measure how unlike each other the same steps of different utterances are.

    Returns:
        `deviation`, the mean standard deviation of a feature; `spread`, the deviations' share of the root mean square
        of all values, at most 1; `effective rank`, at least 1; and `cosine`, the mean over pairs of utterances.
    """
    count = len(frames)
    frames = frames.double().cpu()
    rest = frames - frames.mean(0)
    variances = rest.square().sum(0) / (count - 1)
    size = frames.square().mean().sqrt().item()
    singular = torch.linalg.svdvals(rest.flatten(0, 1))
    shares = singular[singular > 1e-6 * torch.linalg.vector_norm(frames)]  # the others are rounding errors
    shares = shares / shares.sum()
    directions = torch.nn.functional.normalize(frames, dim=2)
    pairs = (directions.sum(0).square().sum(1) - directions.square().sum((0, 2))) / (count * (count - 1))
    return {
        "deviation": variances.mean(0).sqrt().mean().item(),
        "spread": rest.square().mean().sqrt().item() / size if size else 0.0,
        "effective rank": torch.special.entr(shares).sum().exp().item(),
        "cosine": pairs.mean().item(),
    }


def fault(figures: Figures, first: Figures) -> str | None:
    """Say what is wrong with a representation in comparison with its own beginning; None where it is well."""
    if figures["spread"] < min(SPREAD, first["spread"] / 10):
        return "all frames have nearly the same representation"
    if figures["effective rank"] < min(RANK, first["effective rank"] / 4):
        return "all frames lie along one line"
    if figures.get("perplexity", math.inf) < CODES:
        return "all frames have the same code"
    return None


class Monitor:
    """Looks at the same held-out utterances again and again; what it remembers goes into checkpoints.

    Args:
        batches: Held-out utterances of rank 0, whose figures count for all.
        group: All ranks must look together.
    """

    def __init__(self, batches: Sequence[Batch], group: Group) -> None:
        self.batches, self.group = _few(batches), group
        self.first: Figures | None = None
        self.bad = 0  # validations in a row

    def look(self, encoder: Representation, perplexity: float | None = None) -> Figures:
        """Measure the top layer; there is nothing to measure where there are no two utterances.

        Args:
            encoder: On the group's device.
            perplexity: How many codes are in use, where an objective has reported it.
        """
        nothing = dict.fromkeys(("deviation", "spread", "effective rank", "cosine"), math.nan)
        found = self._measured(encoder) if self.group.writes else None
        figures = {name: self.group.agree(value) for name, value in (found or nothing).items()}
        if not all(map(math.isfinite, figures.values())):
            return {}
        if self.first is None:
            self.first = figures
        return figures | ({} if perplexity is None else {"perplexity": perplexity})

    def judge(self, figures: Figures, step: int) -> str | None:
        """Say in words what is wrong after a look, and count it; None where nothing is."""
        what = fault(figures, self.first) if figures and self.first is not None else None
        self.bad = self.bad + 1 if what else 0
        if what is None or self.first is None:
            return None
        numbers = [
            f"{name} {figures[name]:.3g}, at step 0 {self.first[name]:.3g}"
            for name in ("effective rank", "spread", "cosine")
        ]
        if "perplexity" in figures:
            numbers.append(f"{figures['perplexity']:.3g} codes in use")
        return f"step {step}: {what} on held-out speech ({', '.join(numbers)})"

    def refuse(self, sentence: str | None) -> None:
        """Stop a run that was judged bad twice in a row.

        Raises:
            TrainingError: It was.
        """
        if sentence is not None and self.bad >= TWICE:
            raise TrainingError(
                f"{sentence}, as at the validation before, expected frames that differ; lower the learning rate, warm "
                "up longer, or go on all the same with --set upkeep.collapsed=tell"
            )

    @property
    def notes(self) -> dict[str, Any]:
        """What a resumed run must know, of JSON's types."""
        return {"first": self.first, "bad": self.bad}

    def restore(self, notes: Mapping[str, Any] | None) -> None:
        """Go on from a checkpoint's notes; one that has none begins anew at the next look."""
        if notes:
            self.first, self.bad = notes["first"], notes["bad"]

    def _measured(self, encoder: Representation) -> Figures | None:
        encoder.eval()
        with torch.no_grad():
            found = [encoder(batch.waves.to(self.group.device)).split() for batch in self.batches]
        utterances = [frames for batch in found for frames in batch if len(frames)]
        if len(utterances) < 2:
            return None
        shortest = min(map(len, utterances))
        places = torch.linspace(0, shortest - 1, min(shortest, STEPS), device=self.group.device).round().long()
        return measure(torch.stack([frames[places] for frames in utterances]))


def _few(batches: Sequence[Batch]) -> list[Batch]:
    """Take the first utterances of the first batches."""
    few, left = [], UTTERANCES
    for batch in batches:
        waves, rows = batch.waves, min(left, len(batch.utterances))
        few.append(Batch(Waves(waves.samples[:rows], waves.lengths[:rows]), batch.utterances[:rows], batch.epoch))
        left -= rows
        if not left:
            break
    return few
