"""A task says what labels mean and how guesses are scored.

A frame task has one row of logits per step, an utterance task one row per utterance. What a row should say is a small
table of counts: labels live on a time grid of their own, several label points may fall on one step, and cross-entropy
against their counts equals the sum over the points, computed once per step.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mockingjay.core.config import Config as Table
from mockingjay.core.errors import DataError
from mockingjay.core.types import Grid, Loss, Utterance


@dataclass(frozen=True, slots=True)
class Targets:
    """The classes each row of logits should name, and how many label points name them; a count of 0 is no label."""

    classes: Int[Tensor, "... choices"]
    counts: Float[Tensor, "... choices"]

    def to(self, device: torch.device | str) -> "Targets":
        """Move to a device."""
        return Targets(self.classes.to(device), self.counts.to(device))

    def take(self, index: Int[Tensor, " taken"] | slice) -> "Targets":
        """Pick rows."""
        return Targets(self.classes[index], self.counts[index])

    @classmethod
    def join(cls, parts: Sequence["Targets"]) -> "Targets":
        """Put rows after rows."""
        choices = max(part.classes.shape[-1] for part in parts)
        widened = [part.widen(0, choices) for part in parts]
        return cls(torch.cat([part.classes for part in widened]), torch.cat([part.counts for part in widened]))

    @classmethod
    def pad(cls, parts: Sequence["Targets"], rows: int) -> "Targets":
        """Batch targets of any lengths; padding has counts of 0."""
        choices = max(part.classes.shape[-1] for part in parts)
        widened = [part.widen(rows - len(part.classes), choices) for part in parts]
        return cls(torch.stack([part.classes for part in widened]), torch.stack([part.counts for part in widened]))

    def widen(self, rows: int, choices: int) -> "Targets":
        """Add empty rows at the end, and empty choices up to a number."""
        margins = (0, choices - self.classes.shape[-1], 0, rows)
        return Targets(F.pad(self.classes, margins), F.pad(self.counts, margins))


class Task(ABC):
    """What labels mean.

    Attributes:
        config: What distinguishes this task from others of its kind; with `outputs` it rebuilds the task.
        outputs: The classes' names, sorted; empty until learnt from the training utterances.
        name: As it is written on the command line.
        resolution: Whether every frame or every utterance is labelled.
        new_speakers: Whether the test should be on speakers that training has not heard.
    """

    Config: ClassVar[type[Table]]
    resolution: ClassVar[Literal["frame", "utterance"]]
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

    def learn(self, utterances: Sequence[Utterance]) -> "Task":
        """Make the same task with the classes that occur in these utterances, sorted by name.

        Raises:
            DataError: No utterance has a label, or all have the same.
        """
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

    def score(self, logits: Float[Tensor, "... classes"], targets: Targets) -> Loss:
        """Sum the cross-entropy over all label points."""
        log_odds = F.log_softmax(logits.float(), dim=-1).gather(-1, targets.classes)
        return Loss(-(targets.counts * log_odds).sum(), targets.counts.sum())

    def measure(self, logits: Float[Tensor, "... classes"], targets: Targets) -> Float[Tensor, "..."]:
        """Count the label points that each row's likeliest class names rightly."""
        return (targets.counts * (targets.classes == logits.argmax(-1, keepdim=True))).sum(-1)
