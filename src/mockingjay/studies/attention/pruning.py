"""What is lost without some heads, or without far keys: the network is restrained and everything is asked anew.

arXiv 2006.03265, section 5: the encoder stays as it was trained, probes are trained for every restraint, and the
pre-training task is scored with its own head. The probes are the paper's: a hidden layer on frames for phones, a linear
layer on the mean of an utterance's frames for speakers. Heads are removed in the order of a measure; what that order is
worth shows against random orders.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mockingjay import audio
from mockingjay.core.draw import Draw
from mockingjay.core.errors import DataError
from mockingjay.core.files import write_atomically
from mockingjay.core.learner import Learner
from mockingjay.core.representation import Representation
from mockingjay.core.types import Batch, Utterance, Waves
from mockingjay.downstream import fit
from mockingjay.downstream.features import device_of
from mockingjay.downstream.frozen import FrozenTraining
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.questions import Question
from mockingjay.downstream.scores import Scores, bounded

HELD_OUT = "held-out loss"
WHOLE = "whole"  # the condition without a restraint
# One rate and few updates: dozens of conditions are asked the same, and none is to be compared with other tables.
PROBES: Mapping[str, fit.Config] = {
    "frame": fit.Config(
        probe=Probe.Config(read="last", head="mlp1"),
        frozen=FrozenTraining.Config(learning_rates=(3e-3,), updates=150, rows=512, evaluations=5),
        unseen="drop",
    ),
    "utterance": fit.Config(
        probe=Probe.Config(read="last", head="linear"),
        frozen=FrozenTraining.Config(learning_rates=(1e-2,), updates=200, evaluations=10),
        unseen="drop",
    ),
}


@dataclass(frozen=True, slots=True)
class Pretext:
    """A pre-training task at hand: the learner that owns the representation, in one piece with it."""

    learner: Learner
    crop: float  # seconds it reads of an utterance


@dataclass(frozen=True, slots=True)
class Bench:
    """Asks a representation the same questions under different restraints, and keeps the answers.

    Attributes:
        representation: What is asked.
        questions: By the task's name.
        pretext: Scored too where it is given.
        held: What the pre-training task is scored on.
        seeds: Trainings of each probe.
        seed: The first of them.
        folder: Of the answers.
        name: Of the representation, for rows.
    """

    representation: Representation
    questions: Mapping[str, Question]
    pretext: Pretext | None
    held: Sequence[Utterance]
    seeds: int
    seed: int
    folder: Path
    name: str

    def ask(
        self, condition: str, restraint: Callable[[], AbstractContextManager[Any]] = nullcontext, read: str = "last"
    ) -> dict[str, Scores]:
        """Answer every question under a restraint; a condition that was asked before is not asked again.

        Args:
            condition: Names the file of the answers.
            restraint: Opens what restrains the representation.
            read: As in `Probe.Config`; the pre-training task is scored for `last` only.
        """
        place = self.folder / f"{condition}.json"
        if not place.is_file():
            with restraint():
                found = {name: self._probe(question, read) for name, question in self.questions.items()}
                if self.pretext is not None and read == "last":
                    found[HELD_OUT] = self._score(self.pretext)
            self._write(condition, found)
        known = json.loads(place.read_text("utf-8"))
        return {
            name: Scores(tuple(each["ids"]), np.array(each["earned"]), np.array(each["total"]))
            for name, each in known.items()
        }

    def begin(self) -> dict[str, Any]:
        """Ask about the whole representation, and find out which questions the labels answer."""
        found, refused = self.answers()
        if self.pretext is not None:
            found[HELD_OUT] = self._score(self.pretext)
        self._write(WHOLE, found)
        return {"refused": refused}

    def answers(self) -> tuple[dict[str, Scores], dict[str, str]]:
        """Answer every question once; of those that the labels turn out not to answer comes back why not."""
        found, refused = {}, {}
        for name, question in self.questions.items():
            try:
                found[name] = self._probe(question, "last")
            except DataError as error:
                refused[name] = f"Not asked: {error}."
        return found, refused

    def _write(self, condition: str, found: Mapping[str, Scores]) -> None:
        record = {
            name: {"ids": each.ids, "earned": each.earned.tolist(), "total": each.total.tolist()}
            for name, each in found.items()
        }
        write_atomically(self.folder / f"{condition}.json", json.dumps(record).encode())

    def _probe(self, question: Question, read: str) -> Scores:
        config = PROBES[question.task.resolution]
        changes = {"probe": config.probe.model_copy(update={"read": read}), "seeds": self.seeds, "seed": self.seed}
        parts = question.parts
        sets = (parts.train, parts.dev, parts.test)
        config = config.model_copy(update=changes)
        return fit.fit_probe(self.representation, question.task, *sets, config, self.name, question.data).scores

    @torch.no_grad()
    def _score(self, pretext: Pretext) -> Scores:
        """Score the pre-training task on each utterance, hidden the same every time."""
        learner = pretext.learner.eval()
        device, ids, sums, weights = device_of(learner_of(learner)), [], [], []
        for utterance in self.held:
            wave = audio.read(utterance.path, utterance.start, min(utterance.seconds, pretext.crop))
            loss = learner(Batch(Waves.pad([wave]), (utterance,)).to(device), 0.0, Draw(self.seed))
            if float(loss.weight) > 0:
                ids.append(utterance.id)
                sums.append(float(loss.sum))
                weights.append(float(loss.weight))
        return Scores(tuple(ids), np.array(sums), np.array(weights))


def learner_of(learner: Learner) -> Representation:
    """Find the representation inside a learner: the first of its parts that is one."""
    return next(part for part in learner.modules() if isinstance(part, Representation))


def levels(heads: int, steps: int) -> tuple[int, ...]:
    """Count how many heads are removed, from none to all in even steps."""
    return tuple(dict.fromkeys(round(share * heads) for share in np.linspace(0, 1, steps)))


def curve(found: Sequence[Mapping[str, Scores]], name: str, seed: int) -> list[dict[str, Any]]:
    """List a measure's values with their intervals along a curve."""
    return [{"value": each[name].value, "ci95": list(each[name].interval(seed=seed))} for each in found]


def area(
    ordered: Sequence[Mapping[str, Scores]],
    randoms: Sequence[Sequence[Mapping[str, Scores]]],
    removed: Sequence[float],
    name: str,
    seed: int,
) -> dict[str, Any]:
    """Compare the curve of an order with the mean curve of random orders, paired by utterance.

    Args:
        ordered: Scores along the curve.
        randoms: The same of each random order.
        removed: Shares of the heads, from 0 to 1.
        name: The measure.
        seed: Of the interval.

    Returns:
        The area by which the order is better on average over the shares, with its interval and verdict.
    """
    curves = [ordered, *randoms]
    sums = np.stack([part for each in curves for point in each for part in (point[name].earned, point[name].total)], 1)
    trapezoid = np.zeros(len(removed))
    widths = np.diff(np.asarray(removed, dtype=np.float64))
    trapezoid[:-1] += widths / 2
    trapezoid[1:] += widths / 2
    weights = np.array([1.0, *[-1 / len(randoms)] * len(randoms)])
    sign = -1 if name == HELD_OUT else 1

    def between(totals: Float[np.ndarray, "draws kinds"]) -> Float[np.ndarray, " draws"]:
        pairs = totals.reshape(len(totals), len(curves), len(removed), 2)
        return sign * (pairs[..., 0] / pairs[..., 1]) @ trapezoid @ weights

    low, high = bounded(sums, between, seed=seed)
    value = float(between(sums.sum(0)[None])[0])
    verdict = "holds" if low > 0 else "does not" if high < 0 else "undecided"
    return {"value": value, "ci95": [float(low), float(high)], "verdict": verdict}


def common(found: Iterable[Mapping[str, Scores]]) -> list[str]:
    """List the measures that every condition has."""
    names = [list(each) for each in found]
    return [name for name in names[0] if all(name in each for each in names)]
