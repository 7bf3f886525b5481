"""Phone classification, one label every 10 ms (Mockingjay, section 3.1: a linear classifier on frozen frames).

Labels meet features by time, never by index. The label points lie at the middle of each 10 ms of the utterance,
whatever the representation's hop: each takes the phone whose interval contains it, and the step whose centre is
nearest. So an encoder that stacks three frames is scored on the same points as log-mel.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from pydantic import Field

from mockingjay.core.config import Config as Table
from mockingjay.core.errors import DataError
from mockingjay.core.types import Grid, Utterance
from mockingjay.data.phones import FOLDINGS, Folding
from mockingjay.downstream.tasks.task import Naming, Targets

POINT = 10_000  # µs between label points; times are compared as whole microseconds


class Phone(Naming):
    """Which phone is being spoken, from `Utterance.alignment`."""

    class Config(Table):
        """Phones are taken as the alignment writes them."""

        kind: Literal["phone"] = "phone"
        fold: dict[str, str] = Field(default_factory=dict)
        """Phone → class, as TIMIT's 61 → 39; a phone not listed keeps its name, one folded to "" is left out."""
        folding: Folding | None = None
        """A named set of 48, 41 or 39 classes (`data/phones.py`), folded to before `fold`; all phones must be in it."""

    resolution = "frame"
    config: Config

    def __init__(self, config: Config, outputs: tuple[str, ...] = ()) -> None:
        super().__init__(config, outputs)
        self.name = f"phone:{config.folding}" if config.folding else "phone"

    def names(self, utterance: Utterance) -> tuple[str, ...]:
        return tuple(sorted({name for *_, phone in utterance.alignment or () if (name := self._class(phone))}))

    def targets(self, utterance: Utterance, grid: Grid, steps: int) -> Targets:
        points, classes = self._points(utterance)
        if not len(points):
            return Targets(torch.zeros(steps, 1, dtype=torch.long), torch.zeros(steps, 1))
        rows = grid.nearest(torch.from_numpy(points / 1e6), steps).numpy()
        pairs, counts = np.unique(rows * len(self.outputs) + classes, return_counts=True)
        rows, classes = np.divmod(pairs, len(self.outputs))
        choice = np.arange(len(rows)) - np.searchsorted(rows, rows)  # 0 for a row's first class, 1 for its second …
        table = np.zeros((2, steps, choice.max() + 1), dtype=np.int64)
        table[0, rows, choice], table[1, rows, choice] = classes, counts
        return Targets(torch.from_numpy(table[0]), torch.from_numpy(table[1]).float())

    def _class(self, phone: str) -> str:
        if self.config.folding:
            table = FOLDINGS[self.config.folding]
            if phone not in table:
                what = f"{phone!r} is a phone of no set that folds to {self.config.folding}"
                raise DataError(f"task {self.name}: {what}, expected one of {len(table)}; choose another folding")
            phone = table[phone]
        return self.config.fold.get(phone, phone)

    def _points(self, utterance: Utterance) -> tuple[Int[np.ndarray, " points"], Int[np.ndarray, " points"]]:
        """Times of the labelled points in µs, and their classes."""
        index = {name: number for number, name in enumerate(self.outputs)}
        spans = sorted(
            (round(start * 1e6), round(end * 1e6), index.get(self._class(phone), -1))
            for start, end, phone in utterance.alignment or ()
        )
        if not spans:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        starts, ends, classes = np.array(spans, dtype=np.int64).T
        points = np.arange(POINT // 2, round(utterance.seconds * 1e6), POINT, dtype=np.int64)
        span = np.searchsorted(starts, points, side="right") - 1
        known = (span >= 0) & (points < ends[span]) & (classes[span] >= 0)
        return points[known], classes[span[known]]
