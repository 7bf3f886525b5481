"""A task says what labels mean and how guesses are scored.

A frame task has one row of logits per step, an utterance task one row per utterance; a sequence task reads the logits
of all steps as one answer of many units. What a row should say is a small table of counts: labels live on a time grid
of their own, several label points may fall on one step, and the loss against their counts equals the sum over the
points, computed once per step.

An answer is a class, a value or a sequence. In every case a metric is what guesses earn over what there is to earn, so
that figures pool over utterances and have intervals: of classes, points named rightly over points (accuracy); of
values, squared error saved over the squared error of the training mean (R²). Of sequences it is what they cost, edits
over units meant, so that less is better.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mockingjay.core.config import Config as Table
from mockingjay.core.errors import DataError
from mockingjay.core.types import Grid, Loss, Utterance

Lengths: TypeAlias = Int[Tensor, " batch"] | None
Resolution = Literal["frame", "utterance", "sequence"]
Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Targets:
    """The classes or values each row should give, and how many label points say so; a count of 0 is no label."""

    answers: Int[Tensor, "... choices"] | Float[Tensor, "... choices"]
    counts: Float[Tensor, "... choices"]

    def to(self, device: torch.device | str) -> "Targets":
        """Move to a device."""
        return Targets(self.answers.to(device), self.counts.to(device))

    def take(self, index: Int[Tensor, " taken"] | slice) -> "Targets":
        """Pick rows."""
        return Targets(self.answers[index], self.counts[index])

    @classmethod
    def join(cls, parts: Sequence["Targets"]) -> "Targets":
        """Put rows after rows."""
        choices = max(part.answers.shape[-1] for part in parts)
        widened = [part.widen(0, choices) for part in parts]
        return cls(torch.cat([part.answers for part in widened]), torch.cat([part.counts for part in widened]))

    @classmethod
    def pad(cls, parts: Sequence["Targets"], rows: int) -> "Targets":
        """Batch targets of any lengths; padding has counts of 0."""
        choices = max(part.answers.shape[-1] for part in parts)
        widened = [part.widen(rows - len(part.answers), choices) for part in parts]
        return cls(torch.stack([part.answers for part in widened]), torch.stack([part.counts for part in widened]))

    def widen(self, rows: int, choices: int) -> "Targets":
        """Add empty rows at the end, and empty choices up to a number."""
        margins = (0, choices - self.answers.shape[-1], 0, rows)
        return Targets(F.pad(self.answers, margins), F.pad(self.counts, margins))


class Task(ABC):
    """What labels mean.

    Attributes:
        config: What distinguishes this task from others of its kind; with `outputs` it rebuilds the task.
        outputs: The classes' names, sorted, or the name of a value; empty until learnt from training utterances.
        name: As it is written on the command line.
        resolution: Whether every frame is labelled, every utterance, or every utterance with a sequence.
        metric: What `earned` over `total` is called.
        better: Whether more of the metric is better, or less.
        new_speakers: Whether the test should be on speakers that training has not heard.
    """

    Config: ClassVar[type[Table]]
    resolution: ClassVar[Resolution]
    better: ClassVar[Better]
    metric: str
    config: Table
    name: str
    new_speakers: bool = True

    def __init__(self, config: Table, outputs: tuple[str, ...] = ()) -> None:
        self.config = config
        self.outputs = outputs

    @abstractmethod
    def names(self, utterance: Utterance) -> tuple[str, ...]:
        """List the classes an utterance's labels name, each once; none where it has no label."""

    @abstractmethod
    def targets(self, utterance: Utterance, grid: Grid, steps: int) -> Targets:
        """Say what each row of an utterance's logits should name; classes outside `outputs` are left out.

        Args:
            utterance: With its labels.
            grid: Where the representation's steps lie.
            steps: How many steps the utterance has.
        """

    @abstractmethod
    def learn(self, utterances: Sequence[Utterance]) -> "Task":
        """Make the same task with what only training utterances can tell: its classes, or its mean and spread.

        Raises:
            DataError: They leave nothing to be told apart.
        """

    @abstractmethod
    def score(self, logits: Float[Tensor, "... outputs"], targets: Targets, lengths: Lengths = None) -> Loss:
        """Sum the loss over all label points.

        Args:
            logits: Of rows, or of the steps of each utterance.
            targets: What they should say.
            lengths: Steps of each utterance, which only a sequence task must know.
        """

    @abstractmethod
    def earned(
        self, logits: Float[Tensor, "... outputs"], targets: Targets, lengths: Lengths = None
    ) -> Float[Tensor, "..."]:
        """Say what each row of targets earns of its total; the arguments are those of `score`."""

    @abstractmethod
    def total(self, targets: Targets) -> Float[Tensor, "..."]:
        """Say what there is to earn on each row."""

    @abstractmethod
    def constant(self, train: Targets, test: Targets) -> float:
        """The metric on `test` of always giving the one answer that suits `train` best."""

    @abstractmethod
    def say(self, logits: Float[Tensor, "rows outputs"]) -> list[str]:
        """Put each row's answer into words, or the units of a sequence."""

    def merit(self, value: float) -> float:
        """Turn a value of the metric so that more is better."""
        return value if self.better == "higher" else -value


class Naming(Task):
    """A task whose answers are classes: cross-entropy, accuracy."""

    better = "higher"
    metric = "accuracy"

    def learn(self, utterances: Sequence[Utterance]) -> Task:
        outputs = tuple(sorted({name for utterance in utterances for name in self.names(utterance)}))
        if not outputs:
            raise DataError(
                f"task {self.name}: none of {len(utterances)} training utterances has a label, "
                "expected two classes or more; "
                "add the labels to the manifest or choose another task"
            )
        if len(outputs) == 1:
            raise DataError(
                f"task {self.name}: one class only ({outputs[0]!r}) in {len(utterances)} training utterances, "
                "expected at least two; nothing can be told apart, add others or choose another task"
            )
        return type(self)(self.config, outputs)

    def score(self, logits: Float[Tensor, "... outputs"], targets: Targets, lengths: Lengths = None) -> Loss:
        log_odds = F.log_softmax(logits.float(), dim=-1).gather(-1, targets.answers)
        return Loss(-(targets.counts * log_odds).sum(), targets.counts.sum())

    def earned(
        self, logits: Float[Tensor, "... outputs"], targets: Targets, lengths: Lengths = None
    ) -> Float[Tensor, "..."]:
        return (targets.counts * (targets.answers == logits.argmax(-1, keepdim=True))).sum(-1)

    def total(self, targets: Targets) -> Float[Tensor, "..."]:
        return targets.counts.sum(-1)

    def constant(self, train: Targets, test: Targets) -> float:
        known, asked = (_tally(each, len(self.outputs)) for each in (train, test))
        return float(asked[known.argmax()] / asked.sum())

    def say(self, logits: Float[Tensor, "rows outputs"]) -> list[str]:
        return [self.outputs[index] for index in logits.argmax(-1).tolist()]


def _tally(targets: Targets, classes: int) -> Float[Tensor, " classes"]:
    """Count the label points of each class."""
    sums = torch.zeros(classes, dtype=torch.float64)
    return sums.index_add_(0, targets.answers.flatten(), targets.counts.flatten().double())
