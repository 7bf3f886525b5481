"""One label per utterance, from any column: speaker, emotion, sentiment, or what a user's table holds."""

from collections import Counter
from typing import Literal

import torch
from pydantic import Field, model_validator

from mockingjay.core.config import Config as Table
from mockingjay.core.types import Grid, Utterance
from mockingjay.downstream.tasks.task import Naming, Targets


class Label(Naming):
    """What a column says of an utterance."""

    class Config(Table):
        """The column's values are the classes."""

        kind: Literal["label"] = "label"
        column: str = "speaker"
        """`speaker`, or any column of the manifest."""
        classes: dict[str, tuple[str, ...]] = Field(default_factory=dict)
        """Class → values of the column; other values are left out. Empty: every value is a class of its own."""

        @model_validator(mode="after")
        def _one_class_each(self):
            twice = [value for value, count in Counter(sum(self.classes.values(), ())).items() if count > 1]
            if twice:
                raise ValueError(f"{twice[0]!r} is in two classes, expected one")
            return self

    resolution = "utterance"
    config: Config

    def __init__(self, config: Config, outputs: tuple[str, ...] = ()) -> None:
        super().__init__(config, outputs)
        self.name = f"label:{config.column}"
        self.new_speakers = config.column != "speaker"

    def names(self, utterance: Utterance) -> tuple[str, ...]:
        value = utterance.label(self.config.column)
        if not self.config.classes:
            return (value,) if value else ()
        return tuple(name for name, values in self.config.classes.items() if value in values)[:1]

    def targets(self, utterance: Utterance, grid: Grid, steps: int) -> Targets:
        known = [self.outputs.index(name) for name in self.names(utterance) if name in self.outputs]
        return Targets(torch.tensor([known or [0]]), torch.tensor([[float(len(known))]]))
