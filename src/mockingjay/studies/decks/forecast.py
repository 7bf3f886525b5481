"""How long a table or a sweep over labels will take, from a few steps of each encoder on this very machine and speech.

An encoder's own step stands for its objective's, whose head and targets add a tenth at most.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias

from mockingjay.core.draw import Draw
from mockingjay.core.files import write_atomically
from mockingjay.core.learner import Learner
from mockingjay.core.types import Batch, Loss
from mockingjay.data.batches import BatchPlan, Loader
from mockingjay.downstream import fit
from mockingjay.downstream.features import bytes_needed
from mockingjay.downstream.frozen import passes
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.questions import Question
from mockingjay.encoders.encoder import Encoder, random_encoder
from mockingjay.open import encoder_folder
from mockingjay.studies.decks.contestants import CONTESTANTS, Contestant, Ground
from mockingjay.studies.decks.profiles import ENCODERS
from mockingjay.train.distributed import joined
from mockingjay.train.estimate import Estimate, estimate

_STEPS = 3
FORWARD = 1 / 3  # of a training step; backward costs twice as much
Study: TypeAlias = Literal["table", "labels"]


@dataclass(frozen=True, slots=True)
class Forecast:
    """What will take how long.

    Attributes:
        hours: Of what, as a sentence begins.
        memory: Bytes at the peak of a pre-training step, of the device on CUDA.
    """

    hours: dict[str, float]
    memory: int

    @property
    def total(self) -> float:
        """Hours in all."""
        return sum(self.hours.values())


def forecast(
    ground: Ground, study: Study, out: Path, encoders: Path, device: str, say: Callable[[str], None]
) -> Forecast:
    """Foretell the hours of a study, and write them to forecast.json.

    Encoders that are trained already cost nothing. Probes of features as they are cost little beside the rest and are
    left out, as are heads on states in memory; so is reading, which goes on beside training.

    Args:
        ground: As `prepare` made it: paths and labels have been checked.
        study: The table, or the sweep over labels with what it trains of the table's encoders.
        out: The study's folder.
        encoders: The folder of the runs.
        device: "auto", "cpu", "cuda" or "cuda:<index>".
        say: Told a line at a time.

    Raises:
        DataError: The corpus cannot feed a plan.
        MachineError: The device is not there.
    """
    hours: dict[str, float] = {}
    memory = 0
    for encoder in ENCODERS:
        chosen, budget = ground.settings[encoder], ground.profile.budget(encoder)
        say(f"{encoder}: timing a few steps")
        cost = _step(ground, encoder, device)
        memory = max(memory, cost.memory)
        if encoder_folder(encoders / encoder) is None:
            seconds = budget if budget is not None else chosen.train.steps * cost.seconds
            hours[f"pre-training {encoder}, {chosen.train.steps:,} steps of {cost.seconds:.3g} s"] = seconds / 3600
        audio = cost.seconds / chosen.batches.seconds  # seconds of training per second of audio
        for contestant in CONTESTANTS:
            if contestant.encoder == encoder:
                spent = sum(_probing(ground, contestant, each, audio) for each in _trials(ground, contestant, study))
                hours[f"probing {contestant.name}"] = spent / 3600
    found = Forecast(hours, memory)
    write_atomically(out / "forecast.json", (json.dumps(hours | {"total": found.total}, indent=1) + "\n").encode())
    return found


class _Bare(Learner):
    """An encoder that learns nothing in particular."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        last = self.encoder(batch.waves).last.float()
        return Loss(last.square().sum(), last.new_tensor(float(last.numel())))


def _step(ground: Ground, encoder: str, device: str) -> Estimate:
    """Time steps of an encoder's plan; the first warms up."""
    chosen = ground.settings[encoder]
    with joined(device) as group:
        plan = BatchPlan(ground.learnt, chosen.batches, chosen.train.accumulate)
        learner = _Bare(random_encoder(chosen.objective.encoder, ground.seed)).to(group.device)
        with closing(Loader(plan, workers=0).steps()) as steps:
            return estimate(learner, chosen.train, islice(steps, _STEPS), group.device, group)


@dataclass(frozen=True, slots=True)
class _Trials:
    """What a row takes in a column, where it goes through the encoder every time."""

    question: Question
    how: fit.Config
    trainings: int
    tests: int


def _trials(ground: Ground, contestant: Contestant, study: Study) -> Iterator[_Trials]:
    """Count a row's trainings and tests; in a sweep frozen rows try all rates on every draw of labels."""
    sweep = ground.profile.labels
    draws = len(sweep.shares) * sweep.seeds
    for column, question in ground.asked.items():
        how, tuned = contestant.fitting(ground.profile, question, ground.seed), contestant.tune == "all"
        rates = len(how.live.learning_rates if tuned else how.frozen.learning_rates)
        if study == "table":
            yield _Trials(question, how, rates + how.seeds - 1, how.seeds)
        elif column in sweep.columns:
            yield _Trials(question, how, rates + draws - 1 if tuned else rates * draws, draws)


def _probing(ground: Ground, contestant: Contestant, trials: _Trials, audio: float) -> float:
    """Seconds that the trainings of a row take in a column, and the looks at dev and test."""
    how, parts = trials.how, trials.question.parts
    train, dev, test = (sum(each.seconds for each in part) for part in (parts.train, parts.dev, parts.test))
    shape = random_encoder(ground.settings[contestant.encoder].objective.encoder, ground.seed)
    probe = Probe(shape, trials.question.task.learn(parts.train), how.probe)
    if contestant.tune == "all":
        epochs = trials.trainings * how.live.epochs
        return (epochs * train + (epochs * dev + trials.tests * test) * FORWARD) * audio
    if bytes_needed(probe, [*parts.train, *parts.dev, *parts.test]) <= how.memory * 2**30:
        return (train + dev + test) * audio * FORWARD
    # With fewer labels heads are trained by as many updates, and so for as long.
    looks = trials.trainings * (how.frozen.evaluations + 1) * dev + trials.tests * test
    return (trials.trainings * passes(probe, parts.train, how.frozen) * train + looks) * audio * FORWARD
