"""Fit a probe and say what it reaches: rate and stopping chosen on dev, test measured once, several seeds, an interval.

The learning rate is the hidden variable of probing figures (67 % or 81 % from the rate alone, s3prl issue 268), so
every representation gets the same grid under the same budget of updates, and what dev said of each rate is kept. Every
seed trains with the best rate; the
figure is the mean over seeds of what test shows where dev was best.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from mockingjay.core import config
from mockingjay.core.errors import DataError
from mockingjay.core.representation import Representation
from mockingjay.core.types import Utterance
from mockingjay.data.quarantine import Quarantine
from mockingjay.downstream.decode import Decoder
from mockingjay.downstream.features import device_of
from mockingjay.downstream.finetune import LiveTraining
from mockingjay.downstream.frozen import FrozenTraining
from mockingjay.downstream.partition import usable
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.scores import Scores
from mockingjay.downstream.tasks import Targets, Task, Transcript
from mockingjay.downstream.training import Counts, Trained, Training
from mockingjay.downstream.transcribe import check_decoder, check_feasible, infeasible, other_counts

Sets = dict[Literal["train", "dev", "test"], tuple[Utterance, ...]]


class Config(config.Config):
    """How probes are fitted; the same for every representation that is to be compared."""

    probe: Probe.Config = Probe.Config()
    """What is read, what is trained."""
    frozen: FrozenTraining.Config = FrozenTraining.Config()
    """Training of a head on the states of a frozen representation, whether they fit in memory or not."""
    live: LiveTraining.Config = LiveTraining.Config()
    """Training through the representation."""
    seeds: int = Field(default=3, ge=1)
    """Trainings with fresh heads."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """The first of them."""
    unseen: Literal["refuse", "drop"] = "refuse"
    """What to do with classes of dev or test that training has not seen; units of sequences then count as errors."""
    decoder: Decoder = Decoder()
    """Of sequences; a search is measured beside the greedy reading."""
    memory: float = Field(default=8.0, gt=0)
    """GiB that hidden states of a frozen representation may take; what does not fit is computed anew in parts."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a probe reached.

    Attributes:
        row: One row of `results.json`.
        scores: Per test utterance, averaged over seeds; for paired comparisons.
        probe: Of the seed that was best on dev.
        dropped: Reason → ids of utterances that were left out.
        others: Rows of the same answers counted otherwise, as in words; of sequences only.
        infeasible: Training utterances with more units than steps, which nothing was learnt from; of sequences only.
    """

    row: Mapping[str, Any]
    scores: Scores
    probe: Probe
    dropped: Mapping[str, tuple[str, ...]]
    others: tuple[Mapping[str, Any], ...] = ()
    infeasible: tuple[str, ...] = ()


def fit_probe(
    representation: Representation,
    task: Task,
    train: Sequence[Utterance],
    dev: Sequence[Utterance],
    test: Sequence[Utterance],
    config: Config,
    name: str = "",
    data: str = "",
    quarantine: Quarantine | None = None,
) -> Result:
    """Train probes on a representation and measure them.

    Args:
        representation: Fine-tuning works on copies of it; otherwise its parameters stop asking for gradients.
        task: Learns its classes from `train` unless it knows them already, as in a sweep over fewer and fewer labels.
        train: What heads learn from.
        dev: What rate and stopping are chosen on.
        test: Measured once by the best of each seed.
        config: The same for all that is compared.
        name: Of the representation, for the row and for `save_probe`.
        data: Name of the corpus, for the row.
        quarantine: Takes in the files that cannot be read, within its budget; without it they are counted all the same.

    Raises:
        DataError: A set is empty, has one class only, or has classes that training has not seen; or too many files
            cannot be read.
        ConfigError: The representation has no such layer, the head cannot answer the task, or the decoder's files
            cannot be read.
    """
    return Fitting(representation, task, train, dev, test, config, name, data, quarantine).fit()


class Fitting:
    """What `fit_probe` needs, made ready once: probes with all labels, and with fewer, are then fitted on it.

    Attributes:
        sets: The utterances that can be used.
        task: With its classes learnt, from all of `train`.
    """

    def __init__(
        self,
        representation: Representation,
        task: Task,
        train: Sequence[Utterance],
        dev: Sequence[Utterance],
        test: Sequence[Utterance],
        config: Config,
        name: str = "",
        data: str = "",
        quarantine: Quarantine | None = None,
    ) -> None:
        """As `fit_probe`."""
        sets, self.dropped = _clean(representation, task, {"train": train, "dev": dev, "test": test})
        self.task = task if task.outputs else task.learn(sets["train"])
        check_decoder(self.task, sets["train"], config.decoder)
        self.sets, self.unseen = _seen(self.task, sets, config.unseen)
        self.representation, self.config, self.name, self.data = representation, config, name, data
        self.quarantine = quarantine if quarantine is not None else Quarantine()
        self._everything = [each for chosen in self.sets.values() for each in chosen]
        with self._forked():
            self._training = _training(representation, self.task, config, self.sets, self.quarantine)
        self.quarantine.check(len(self._everything))
        self._infeasible: set[str] = set()
        if self.task.resolution == "sequence":
            steps = self._training.steps()
            self._infeasible = infeasible(self.task, self.sets["train"], representation.grid, steps)

    def fit(self, train: Sequence[Utterance] | None = None, seed: int | None = None) -> Result:
        """Fit probes and measure them.

        Args:
            train: Some of the training utterances, to learn from these alone by as many updates; none: all.
            seed: Of the first training, instead of the config's.
        """
        training = self._training if train is None else self._training.fewer(train)
        sets: Sets = self.sets if train is None else {**self.sets, "train": tuple(train)}
        seed = self.config.seed if seed is None else seed
        check_feasible(self.task, sets["train"], self._infeasible)
        with self._forked():
            trained, trials = _choose(training, self.task, seed, self.config.seeds)
        counts = [training.measure(each.probe, "test") for each in trained]
        self.quarantine.check(len(self._everything))
        unread = tuple(each.id for each in self._everything if each.id in self.quarantine)
        dropped = self.dropped | ({"cannot be read": unread} if unread else {})
        scores = _scores(self.task, sets["test"], counts)
        best = max(trained, key=lambda each: self.task.merit(each.dev))
        row = {
            **self._row(sets, seed),
            **_figures(self.task, scores, counts, seed),
            "training": training.kind,
            "learning_rate": best.rate,
            "sweep": {f"{each.rate:g}": each.dev for each in trials},
            "dev": [each.dev for each in trained],
            "layers": _layers(best.probe),
            "unseen": self.unseen,
            "dropped": {reason: len(ids) for reason, ids in dropped.items()},
        }
        if not isinstance(self.task, Transcript):
            return Result(row, scores, best.probe, dropped)
        lost = tuple(each.id for each in sets["train"] if each.id in self._infeasible)
        row |= {"decoder": self.task.decoding, "infeasible": len(lost)}
        counted = other_counts(training, trained, best, sets["train"], self.config.decoder)
        others = tuple({**row, **_counted_otherwise(*each, sets["test"], seed)} for each in counted)
        return Result(row, scores, best.probe, dropped, others, lost)

    def _row(self, sets: Sets, seed: int) -> dict[str, Any]:
        """What is known of a result before anything is measured."""
        task, probe = self.task, self.config.probe
        readable = {part: [each for each in chosen if each.id not in self.quarantine] for part, chosen in sets.items()}
        pooled = {part: _pooled(self.representation, task, readable[part]) for part in ("train", "test")}
        return {
            "representation": self.name,
            "task": task.name,
            "seed": seed,
            "data": self.data,
            "read": probe.read,
            "tune": probe.tune,
            "weights": probe.weights,
            "lowest": probe.lowest,
            "head": probe.head,
            "classes": len(task.outputs),
            "points": int(pooled["test"].counts.sum()),
            "majority": task.constant(pooled["train"], pooled["test"]),
            "utterances": {part: len(chosen) for part, chosen in readable.items()},
        }

    def _forked(self) -> AbstractContextManager[None]:
        """Keep the caller's random state out of what seeds generators of its own."""
        device = device_of(self.representation)
        return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def _choose(training: Training, task: Task, seed: int, seeds: int) -> tuple[list[Trained], list[Trained]]:
    """Try the rates with the first seed, and train the other seeds with the one that dev likes best.

    Returns:
        One training of each seed at that rate, and the trial of every rate.
    """
    trials = [training.train(rate, seed) for rate in training.rates]
    first = max(trials, key=lambda each: task.merit(each.dev))
    return [first, *(training.train(first.rate, seed + index) for index in range(1, seeds))], trials


def _training(
    representation: Representation, task: Task, config: Config, sets: Sets, quarantine: Quarantine
) -> Training:
    if config.probe.tune == "all":
        return LiveTraining(representation, task, config.probe, config.live, sets, quarantine)
    memory = config.memory * 2**30
    return FrozenTraining(representation, task, config.probe, config.frozen, sets, quarantine, memory)


def _clean(
    representation: Representation, task: Task, given: Mapping[Literal["train", "dev", "test"], Sequence[Utterance]]
) -> tuple[Sets, dict[str, tuple[str, ...]]]:
    sets: Sets = {}
    dropped: dict[str, tuple[str, ...]] = {}
    for part, utterances in given.items():
        sets[part], gone = usable(utterances, task, representation)
        for reason, ids in gone.items():
            dropped[reason] = dropped.get(reason, ()) + ids
        if not sets[part]:
            reasons = ", ".join(f"{len(ids)} {reason}" for reason, ids in gone.items()) or "none given"
            raise DataError(
                f"task {task.name}: the {part} set has no usable utterance ({reasons}), expected at least one; "
                "add labelled utterances or another split"
            )
    return sets, dropped


def _seen(task: Task, sets: Sets, unseen: Literal["refuse", "drop"]) -> tuple[Sets, dict[str, int]]:
    """Deal with classes that the task's table lacks; but for sequences, utterances of which nothing is left go."""
    lacking: Counter[str] = Counter()
    for part in ("dev", "test"):
        found = Counter(name for each in sets[part] for name in task.names(each) if name not in task.outputs)
        if found and unseen == "refuse":
            listed = ", ".join(f"{name!r} ({count} utterances)" for name, count in sorted(found.items())[:5])
            raise DataError(
                f"task {task.name}: {len(found)} classes occur in {part} but not in train: {listed}, "
                "expected each in train; "
                "divide the corpus otherwise, or leave them out with --set unseen=drop"
            )
        lacking += found
    known: Sets = {
        part: tuple(each for each in chosen if set(task.names(each)) & set(task.outputs))
        for part, chosen in sets.items()
    }
    for part, chosen in known.items():
        if not chosen:
            raise DataError(
                f"task {task.name}: no utterance of {part} has a class that training has seen, expected at least one; "
                "divide the corpus otherwise"
            )
    if task.resolution == "sequence":  # whatever is said for units that training has not had, they are errors
        known = {part: tuple(each for each in chosen if task.names(each)) for part, chosen in sets.items()}
    return known, dict(sorted(lacking.items()))


def _figures(task: Task, scores: Scores, counts: Sequence[Counts], seed: int) -> dict[str, Any]:
    return {
        "metric": task.metric,
        "value": scores.value,
        "ci95": list(scores.interval(seed=seed)),
        "n": len(scores.ids),
        "values": [each.value for each in counts],
    }


def _counted_otherwise(
    task: Transcript, counts: Sequence[Counts], test: Sequence[Utterance], seed: int
) -> dict[str, Any]:
    own = {"decoder": task.decoding, "points": int(counts[0].total.sum()), "dev": None}
    return {**_figures(task, _scores(task, test, counts), counts, seed), **own}


def _scores(task: Task, test: Sequence[Utterance], counts: Sequence[Counts]) -> Scores:
    """Average over seeds, of the utterances in which something was scored."""
    earned = np.mean([each.earned for each in counts], axis=0)
    scored = counts[0].total > 0
    ids = tuple(utterance.id for utterance, keep in zip(test, scored) if keep)
    return Scores(ids, earned[scored], counts[0].total[scored], task.better)


def _pooled(representation: Representation, task: Task, utterances: Sequence[Utterance]) -> Targets:
    """All label points of a set: an utterance is one step, on which all of its points fall."""
    return Targets.join([task.targets(each, representation.grid, 1) for each in utterances])


def _layers(probe: Probe) -> list[dict[str, int | float]]:
    weights, norms = probe.mix.weights.tolist(), probe.mix.norms.tolist()
    return [
        {"layer": layer, "weight": weight, "norm": norm}
        for layer, weight, norm in zip(probe.mix.layers, weights, norms)
    ]
