"""Fit a probe and say what it reaches: rate and stopping chosen on dev, test measured once, several seeds, an interval.

The learning rate is the hidden variable of probing figures (67 % or 81 % from the rate alone, s3prl issue 268), so
every representation gets the same grid under the same budget of updates. Every seed trains with the best rate; the
figure is the mean over seeds of the test accuracy where dev was best.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field

from mockingjay.core import config
from mockingjay.core.errors import DataError
from mockingjay.core.representation import Representation
from mockingjay.core.types import Utterance
from mockingjay.downstream.features import bytes_needed, device_of
from mockingjay.downstream.finetune import LiveTraining
from mockingjay.downstream.frozen import FrozenTraining
from mockingjay.downstream.partition import usable
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.scores import Scores
from mockingjay.downstream.tasks import Task
from mockingjay.downstream.training import Counts, Trained, Training

Sets = dict[Literal["train", "dev", "test"], tuple[Utterance, ...]]


class Config(config.Config):
    """How probes are fitted; the same for every representation that is to be compared."""

    probe: Probe.Config = Probe.Config()
    """What is read, what is trained."""
    frozen: FrozenTraining.Config = FrozenTraining.Config()
    """Training of a head on cached states of a frozen representation."""
    live: LiveTraining.Config = LiveTraining.Config()
    """Training through the representation."""
    seeds: int = Field(default=3, ge=1)
    """Trainings with fresh heads."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """The first of them."""
    unseen: Literal["refuse", "drop"] = "refuse"
    """What to do with classes of dev or test that training has not seen."""
    memory: float = Field(default=8.0, gt=0)
    """GiB that cached hidden states may take; beyond it they are computed anew in every pass."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a probe reached.

    Attributes:
        row: One row of `results.json`.
        scores: Per test utterance, averaged over seeds; for paired comparisons.
        probe: Of the seed that was best on dev.
        dropped: Reason → ids of utterances that were left out.
    """

    row: Mapping[str, Any]
    scores: Scores
    probe: Probe
    dropped: Mapping[str, tuple[str, ...]]


def fit_probe(
    representation: Representation,
    task: Task,
    train: Sequence[Utterance],
    dev: Sequence[Utterance],
    test: Sequence[Utterance],
    config: Config,
    name: str = "",
    data: str = "",
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

    Raises:
        DataError: A set is empty, has one class only, or has classes that training has not seen; or a file is bad.
        ConfigError: The representation has no such layer, or the head cannot answer the task.
    """
    sets, dropped = _clean(representation, task, {"train": train, "dev": dev, "test": test})
    task = task if task.outputs else task.learn(sets["train"])
    sets, unseen = _seen(task, sets, config.unseen)
    device = device_of(representation)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        training = _training(representation, task, config, sets)
        trained = _choose(training, config)
    counts = [training.measure(each.probe, "test") for each in trained]
    scores = _scores(sets["test"], counts)
    best = max(trained, key=lambda each: each.dev)
    low, high = scores.interval(seed=config.seed)
    row = {
        "representation": name,
        "task": task.name,
        "metric": "accuracy",
        "value": scores.accuracy,
        "ci95": [low, high],
        "n": len(scores.ids),
        "seed": config.seed,
        "data": data,
        "read": config.probe.read,
        "tune": config.probe.tune,
        "head": config.probe.head,
        "classes": len(task.outputs),
        "points": int(scores.total.sum()),
        "majority": _majority(representation, task, sets),
        "learning_rate": best.rate,
        "values": [each.accuracy for each in counts],
        "dev": [each.dev for each in trained],
        "utterances": {part: len(chosen) for part, chosen in sets.items()},
        "layers": _layers(best.probe),
        "unseen": unseen,
        "dropped": {reason: len(ids) for reason, ids in dropped.items()},
    }
    return Result(row, scores, best.probe, dropped)


def _choose(training: Training, config: Config) -> list[Trained]:
    """Try the rates with the first seed, and train the other seeds with the one that dev likes best."""
    trials = [training.train(rate, config.seed) for rate in training.rates]
    first = max(trials, key=lambda each: each.dev)
    return [first, *(training.train(first.rate, config.seed + index) for index in range(1, config.seeds))]


def _training(representation: Representation, task: Task, config: Config, sets: Sets) -> Training:
    if config.probe.tune == "all":
        return LiveTraining(representation, task, config.probe, config.live, sets, config.live.learning_rates)
    everything = [each for chosen in sets.values() for each in chosen]
    if bytes_needed(Probe(representation, task, config.probe), everything) > config.memory * 2**30:
        return LiveTraining(representation, task, config.probe, config.live, sets, config.frozen.learning_rates)
    return FrozenTraining(representation, task, config.probe, config.frozen, sets)


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
    """Deal with classes that the task's table lacks; utterances of which nothing is left go."""
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
    kept: Sets = {
        part: tuple(each for each in chosen if set(task.names(each)) & set(task.outputs))
        for part, chosen in sets.items()
    }
    for part, chosen in kept.items():
        if not chosen:
            raise DataError(
                f"task {task.name}: no utterance of {part} has a class that training has seen, expected at least one; "
                "divide the corpus otherwise"
            )
    return kept, dict(sorted(lacking.items()))


def _scores(test: Sequence[Utterance], counts: Sequence[Counts]) -> Scores:
    """Average over seeds, of the utterances in which something was scored."""
    correct = np.mean([each.correct for each in counts], axis=0)
    scored = counts[0].total > 0
    ids = tuple(utterance.id for utterance, keep in zip(test, scored) if keep)
    return Scores(ids, correct[scored], counts[0].total[scored])


def _majority(representation: Representation, task: Task, sets: Sets) -> float:
    """Accuracy on test of always guessing the class most frequent in training."""
    points = {part: _points(representation, task, sets[part]) for part in ("train", "test")}
    return float(points["test"][points["train"].argmax()] / points["test"].sum())


def _points(
    representation: Representation, task: Task, utterances: Sequence[Utterance]
) -> Float[np.ndarray, " classes"]:
    """Label points of each class."""
    sums = np.zeros(len(task.outputs))
    for utterance in utterances:
        wanted = task.targets(utterance, representation.grid, 1)  # one step, on which all points fall
        np.add.at(sums, wanted.classes.numpy().ravel(), wanted.counts.numpy().ravel())
    return sums


def _layers(probe: Probe) -> list[dict[str, int | float]]:
    weights, norms = probe.mix.weights.tolist(), probe.mix.norms.tolist()
    return [
        {"layer": layer, "weight": weight, "norm": norm}
        for layer, weight, norm in zip(probe.mix.layers, weights, norms)
    ]
