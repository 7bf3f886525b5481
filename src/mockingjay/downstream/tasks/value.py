"""What is measured rather than named: the pitch of a voice and its energy, one value every 10 ms.

The labels come from the audio itself, so any corpus can be asked. The points lie where those of phones lie, and meet
steps by time as they do. A probe is trained by squared error on standardised values and scored by R²: 1 is exact, 0
what always answering the training mean reaches, and less is worse than that.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mockingjay import audio
from mockingjay.audio.prosody import POINT, energy, pitch
from mockingjay.core.config import Config as Table
from mockingjay.core.errors import DataError
from mockingjay.core.types import SAMPLE_RATE, Grid, Loss, Utterance
from mockingjay.downstream.tasks.task import Lengths, Targets, Task


class Value(Task):
    """How high a voice is, as the logarithm of its frequency where it is voiced; or how loud, in dB."""

    class Config(Table):
        """Mean and scale are learnt from the training utterances."""

        kind: Literal["pitch", "energy"] = "pitch"
        mean: float = 0.0
        """Of the training values: log Hz, or dB of the utterance's own mean square."""
        scale: float = Field(default=1.0, gt=0)
        """Their standard deviation."""

    resolution = "frame"
    better = "higher"
    metric = "R2"
    config: Config

    def __init__(self, config: Config, outputs: tuple[str, ...] = ()) -> None:
        super().__init__(config, outputs)
        self.name = config.kind

    def names(self, utterance: Utterance) -> tuple[str, ...]:
        return (self.name,)

    def learn(self, utterances: Sequence[Utterance]) -> Task:
        heard, lost = [np.zeros(0)], []
        for each in utterances:
            try:
                heard.append(self._values(each))
            except audio.AudioError as error:  # what represents the file names it and counts it
                lost.append(error)
        if lost and len(lost) == len(utterances):
            raise lost[0]
        values = np.concatenate(heard)
        values = values[np.isfinite(values)]
        if len(values) < 2 or values.std() == 0:
            raise DataError(
                f"task {self.name}: {len(values)} values in {len(utterances)} training utterances, expected values "
                "that differ; add utterances with voices in them"
            )
        learnt = self.Config(kind=self.config.kind, mean=float(values.mean()), scale=float(values.std()))
        return type(self)(learnt, (self.name,))

    def targets(self, utterance: Utterance, grid: Grid, steps: int) -> Targets:
        values = self._values(utterance)
        points = np.flatnonzero(np.isfinite(values))
        if not len(points):
            return Targets(torch.zeros(steps, 1), torch.zeros(steps, 1))
        rows = grid.nearest(torch.from_numpy((points * POINT + POINT // 2) / SAMPLE_RATE), steps).numpy()
        choice = np.arange(len(rows)) - np.searchsorted(rows, rows)  # 0 for a row's first point, 1 for its second …
        table = np.zeros((2, steps, choice.max() + 1), dtype=np.float32)
        table[0, rows, choice] = (values[points] - self.config.mean) / self.config.scale
        table[1, rows, choice] = 1
        return Targets(torch.from_numpy(table[0]), torch.from_numpy(table[1]))

    def score(self, logits: Float[Tensor, "... outputs"], targets: Targets, lengths: Lengths = None) -> Loss:
        return Loss(self._error(logits, targets).sum(), targets.counts.sum())

    def earned(
        self, logits: Float[Tensor, "... outputs"], targets: Targets, lengths: Lengths = None
    ) -> Float[Tensor, "..."]:
        return self.total(targets) - self._error(logits, targets)

    def total(self, targets: Targets) -> Float[Tensor, "..."]:
        return (targets.counts * targets.answers**2).sum(-1)  # standardised: the training mean is 0

    def constant(self, train: Targets, test: Targets) -> float:
        return 0.0  # by the metric's definition

    def say(self, logits: Float[Tensor, "rows outputs"]) -> list[str]:
        values = (logits[:, 0] * self.config.scale + self.config.mean).tolist()
        return [f"{math.exp(value):.0f} Hz" if self.name == "pitch" else f"{value:.0f} dB" for value in values]

    def _error(self, logits: Float[Tensor, "... outputs"], targets: Targets) -> Float[Tensor, "..."]:
        return (targets.counts * (logits.float() - targets.answers) ** 2).sum(-1)

    def _values(self, utterance: Utterance) -> Float[np.ndarray, " points"]:
        if audio.holds_features(utterance.path):
            raise DataError(
                f"task {self.name}: {utterance.path} holds features made elsewhere, expected sound to measure it in; "
                "choose another task"
            )
        return _measured(self.config.kind, utterance.path, utterance.start, utterance.seconds)


@lru_cache(maxsize=20_000)  # utterances; every representation is asked for the same values
def _measured(kind: str, path: str, start: float, seconds: float) -> Float[np.ndarray, " points"]:
    wave = audio.read(path, start, seconds)
    return np.log(pitch(wave)) if kind == "pitch" else energy(wave)
