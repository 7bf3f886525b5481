"""Whether a representation still tells one frame from another: measured at every validation on held-out utterances.

An objective that makes up its own targets can be satisfied by saying the same of everything, and others die of too high
a learning rate; the loss may look well all the while. Three figures tell. Each is taken across utterances at the same
step, for what depends on the step's position alone says nothing about speech either: how far frames deviate from their
mean, along how many directions (the effective rank of Roy and Vetterli 2007: the exponential of the entropy of the
singular values), and the mean cosine between them. What is little for one network is much for another, so each is
compared with itself at step 0.

Where an objective learns codes, a fourth figure counts those in use, for they may be targets beside the encoder's way,
and a frame may still differ from others before it is quantised. Counted are the codes chosen without noise: noise alone
draws many where the likeliest has become one for all.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mockingjay.core.errors import TrainingError
from mockingjay.core.representation import Representation
from mockingjay.core.types import Batch, Waves
from mockingjay.encoders.quantise import perplexity
from mockingjay.train.distributed import Group

UTTERANCES = 16  # looked at
STEPS = 16  # of each of them
SPREAD = 0.05  # below it and a tenth of its own beginning, frames are all the same
RANK = 2.0  # below it and a quarter of its own beginning, frames lie along a line
CODES = 1.05  # below it, one code stands for 99 % of the frames, and that in all groups, whose mean it is
TWICE = 2  # validations in a row after which a run is dead
_OF_FRAMES = ("deviation", "spread", "effective rank", "cosine")
_SAID = {"effective rank": "effective rank", "spread": "spread", "cosine": "cosine", "perplexity": "codes in use"}

Figures = dict[str, float]
Codes = Callable[[Batch], Int[Tensor, "steps groups"] | None]  # of a batch's valid steps, without noise


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


def in_use(codes: Int[Tensor, "steps groups"]) -> float:
    """Count the codes in use, on average over groups: the exponential of the entropy of their frequencies."""
    every = torch.ones_like(codes[None, :, 0], dtype=torch.bool)
    counts = [perplexity(group[None], every, int(codes.max()) + 1) for group in codes.unbind(1)]
    return torch.stack(counts).mean().item()


def fault(figures: Figures, first: Figures) -> str | None:
    """Say what is wrong with a representation in comparison with its own beginning; None where it is well."""
    if figures.get("perplexity", math.inf) < CODES:  # first, for frames made of codes are then alike too
        return "all frames have the same code"
    if figures["spread"] < min(SPREAD, first["spread"] / 10):
        return "all frames have nearly the same representation"
    if figures["effective rank"] < min(RANK, first["effective rank"] / 4):
        return "all frames lie along one line"
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

    def look(self, encoder: Representation, codes: Codes | None = None) -> Figures:
        """Measure the top layer, and the codes in use; there is nothing to measure where there are no two utterances.

        Args:
            encoder: On the group's device.
            codes: Chooses a batch's codes; None, here or said by it: there are none.
        """
        found = self._measured(encoder, codes) if self.group.writes else {}
        figures = {name: self.group.agree(found.get(name, math.nan)) for name in (*_OF_FRAMES, "perplexity")}
        if not all(math.isfinite(figures[name]) for name in _OF_FRAMES):
            return {}
        if math.isnan(figures["perplexity"]):
            del figures["perplexity"]
        if self.first is None:
            self.first = figures
        return figures

    def judge(self, figures: Figures, step: int) -> str | None:
        """Say in words what is wrong after a look, and count it; None where nothing is."""
        what = fault(figures, self.first) if figures and self.first is not None else None
        self.bad = self.bad + 1 if what else 0
        if what is None or self.first is None:
            return None
        numbers = [
            f"{word} {figures[name]:.3g}, at step 0 {self.first[name]:.3g}"
            for name, word in _SAID.items()
            if name in figures and name in self.first
        ]
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

    @torch.no_grad()
    def _measured(self, encoder: Representation, codes: Codes | None) -> Figures:
        encoder.eval()
        found = [encoder(batch.waves.to(self.group.device)).split() for batch in self.batches]
        utterances = [frames for batch in found for frames in batch if len(frames)]
        if len(utterances) < 2:
            return {}
        shortest = min(map(len, utterances))
        places = torch.linspace(0, shortest - 1, min(shortest, STEPS), device=self.group.device).round().long()
        figures = measure(torch.stack([frames[places] for frames in utterances]))
        chosen = [] if codes is None else [codes(batch.to(self.group.device)) for batch in self.batches]
        known = [each for each in chosen if each is not None and len(each)]
        return figures | ({"perplexity": in_use(torch.cat(known))} if known else {})


def _few(batches: Sequence[Batch]) -> list[Batch]:
    """Take the first utterances of the first batches."""
    few, left = [], UTTERANCES
    for batch in batches:
        waves, rows = batch.waves, min(left, len(batch.utterances))
        first = Waves(waves.samples[:rows], waves.lengths[:rows])
        few.append(Batch(first, batch.utterances[:rows], batch.epoch, batch.starts[:rows]))
        left -= rows
        if not left:
            break
    return few
