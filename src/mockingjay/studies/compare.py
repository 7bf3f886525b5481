"""Objectives at equal compute, and what each makes a network learn: the design of the auxiliary task decides.

Every objective pre-trains for the same time on the same utterances, and every encoder, trained and untrained, is asked
the same questions by the same probes, with log-mel beside them. Nothing that a question is tested on is trained on.
What is known is handed out after every objective, so that a long comparison can be read while it runs; the same call
again goes on where it was.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from mockingjay.core.draw import address
from mockingjay.core.errors import CheckpointError, ConfigError, DataError, TrainingError
from mockingjay.core.types import SAMPLE_RATE, Utterance
from mockingjay.data.manifest import Corpus
from mockingjay.data.splits import hold_out
from mockingjay.downstream import fit
from mockingjay.downstream.features import device_of
from mockingjay.downstream.frozen import FrozenTraining
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.questions import Question, difference, learnable, probe, prosody, questions
from mockingjay.encoders.encoder import random_encoder
from mockingjay.open import open_representation
from mockingjay.pretrain import Pretrained, examined, pretrain
from mockingjay.settings import Settings
from mockingjay.studies.cards import check_card, check_run, tested, write_card
from mockingjay.train.distributed import device_called
from mockingjay.train.validation import predictors

Row = Mapping[str, Any]
UTTERANCES = 480  # asked of each question: twenty objectives and their untrained encoders have to be probed

# The probes of `run` with fewer rates and updates, for the same reason; all that is compared gets the same.
PROBES: Mapping[str, fit.Config] = {
    "frame": fit.Config(
        probe=Probe.Config(read="mix"),
        frozen=FrozenTraining.Config(learning_rates=(3e-3, 1e-2, 3e-2), updates=300, rows=1024, evaluations=6),
        unseen="drop",
    ),
    "utterance": fit.Config(
        probe=Probe.Config(read="mix", head="gru"),
        frozen=FrozenTraining.Config(learning_rates=(1e-3, 3e-3, 1e-2), updates=160, evaluations=8),
        unseen="drop",
    ),
}


@dataclass(slots=True)
class Comparison:
    """What is known so far.

    Attributes:
        data: Name of the corpus.
        contestants: Settings by name; those without a curve are still to come, unless they failed.
        rows: One per representation and question, and one per objective on held-out speech.
        curves: Lines of metrics.jsonl by name.
        failures: Why a contestant has no result, in its own sentence.
        stopped: A signal's exit code where one has cut the comparison short, else 0.
    """

    data: str
    contestants: dict[str, Settings]
    rows: list[Row] = field(default_factory=list)
    curves: dict[str, list[Row]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    stopped: int = 0

    @property
    def finished(self) -> bool:
        """Whether every contestant has been trained and probed, or has failed."""
        return self.contestants.keys() == self.curves.keys() | self.failures.keys() and not self.stopped


def compare(
    contestants: Mapping[str, Settings],
    corpus: Corpus,
    out: Path,
    *,
    budget: float | None,
    device: str = "auto",
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Comparison]:
    """Compare objectives; what is known is handed out after the baselines and after each objective.

    Args:
        contestants: Resolved settings by name; the names become folders.
        corpus: As `open_corpus` read it.
        out: The comparison's folder.
        budget: Seconds of pre-training for each; none: `train.steps` of the settings.
        device: "auto", "cpu", "cuda" or "cuda:<index>".
        seed: Of the probes' divisions and heads.
        say: Told a line at a time.

    Raises:
        ConfigError: The folder holds another comparison, or a contestant's folder another run.
        DataError: Nothing can be used, or too little.
        MachineError: No room, no permission, or another process is writing here.
    """
    plain, serving = _serving(contestants)
    place = device_called(device)
    with examined(corpus, serving, out, say) as health:
        known = questions(health.corpus, seed, say)
        known += prosody(health.corpus, known, seed)
        asked = [question.at_most(UTTERANCES) for question in _widest(known)]
        learnt = learnable(health, known)
        _recognise(contestants, learnt, asked, out, budget, seed)
        comparison = Comparison(health.corpus.name, dict(contestants))
        train = partial(pretrain, budget=budget, device=device, say=say)
        ask = partial(probe, asked=asked, say=say, probes=PROBES)
        own = {plain: out / "probes" / plain.replace(":", "-")}
        comparison.rows += ask(plain, plain, open_representation(plain).to(place), folder=own[plain])
        yield comparison
        for number, name in enumerate(contestants, 1):
            say(f"{name}: {number} of {len(contestants)}")
            _try(comparison, name, learnt, out, own, train, ask, seed, say)
            yield comparison
            if comparison.stopped:
                return


def _try(
    comparison: Comparison,
    name: str,
    learnt: Sequence[Utterance],
    out: Path,
    own: Mapping[str, Path],
    train: Callable[[Settings, Sequence[Utterance], Path], Pretrained],
    ask: Callable[..., list[dict[str, Any]]],
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Train a contestant, ask it and its untrained encoder, and add to the comparison what came of it."""
    chosen = comparison.contestants[name]
    try:
        trained = train(chosen, learnt, out / name)
        if trained.stopped:
            comparison.stopped = trained.stopped
            return
        comparison.contestants[name] = trained.settings  # a budget has set the steps
        run = str((out / name).absolute())
        opened = f"random:{run}@{seed}"
        shape = address(chosen.objective.encoder.model_dump_json(), seed)  # objectives of one shape share it
        probes = out / "probes"
        places = {**own, f"random:{name}": probes / f"random-{shape:016x}", name: probes / name}
        untrained = open_representation(opened).to(device_of(trained.encoder))
        rows = ask(f"random:{name}", opened, untrained, folder=places[f"random:{name}"])
        rows += ask(name, run, trained.encoder, folder=places[name])
    except (TrainingError, DataError, ConfigError, CheckpointError) as error:
        say(f"{name} failed: {error}")
        comparison.failures[name] = str(error)
        comparison.rows.append(_failed(name, str(error), comparison.data, seed))
        return
    curve = [json.loads(line) for line in (out / name / "metrics.jsonl").read_text("utf-8").splitlines()]
    comparison.curves[name] = curve
    comparison.rows += [_beside(row, places) for row in rows]
    comparison.rows.append(_held_out(name, trained, curve, learnt, comparison.data, seed))


def _beside(row: Row, places: Mapping[str, Path]) -> Row:
    """Add how much a row is better than features as they are, and trained than untrained, paired by utterance."""
    own, plain = row["representation"], next(iter(places))
    rivals = [name for name in places if name != own and (name == plain or not own.startswith("random:"))]
    found = {name: difference(row, places[own], places[name]) for name in rivals}
    return {**row, "over": {name: asdict(each) | {"verdict": each.verdict} for name, each in found.items() if each}}


def _serving(contestants: Mapping[str, Settings]) -> tuple[str, Settings]:
    """Name the features that all encoders are measured against, and the settings by which a corpus serves all of them.

    Raises:
        ConfigError: No corpus can be read by all of them.
    """
    shapes = {name: random_encoder(chosen.objective.encoder, 0) for name, chosen in contestants.items()}
    reads = {shape.reads for shape in shapes.values()}
    if len(reads) > 1:
        widths = ", ".join(sorted("audio" if each is None else f"features of {each} values" for each in reads))
        raise ConfigError(
            f"compare: the objectives read {widths}, expected all to read the same; leave out those that cannot"
        )
    least = {
        name: max(each.batches.minimum, shapes[name].receptive / SAMPLE_RATE) for name, each in contestants.items()
    }
    (width,) = reads
    features = "mel" if width is None else f"precomputed:{width}"
    return features, contestants[max(least, key=least.__getitem__)]  # what serves this one serves all


def _widest(asked: Sequence[Question]) -> list[Question]:
    """Ask every question once, of the corpus with most to test it on."""
    best: dict[str, Question] = {}
    for question in asked:
        name = question.task.name
        if name not in best or len(question.parts.test) > len(best[name].parts.test):
            best[name] = question
    return list(best.values())


def _recognise(
    contestants: Mapping[str, Settings],
    learnt: Sequence[Utterance],
    asked: Sequence[Question],
    out: Path,
    budget: float | None,
    seed: int,
) -> None:
    """Refuse a folder that holds another comparison, or else make it this one's."""
    ours = {"budget": budget, "seed": seed, "tested": tested(asked)}
    card = out / "comparison.json"
    check_card(card, ours, "a comparison")
    for name, chosen in contestants.items():
        check_run(out / name, chosen, learnt, budget)
    write_card(card, ours)
    for question in asked:
        question.parts.write(out / "splits" / f"{question.slug}.json")


def _held_out(
    name: str, trained: Pretrained, curve: Sequence[Row], learnt: Sequence[Utterance], data: str, seed: int
) -> Row:
    """The objective on speech it has not heard, beside what learns nothing."""
    last = next(line for line in reversed(curve) if line.get("validation"))
    upkeep, batches = trained.settings.upkeep, trained.settings.batches
    return {
        **_of_objective(name, data, seed),
        "value": last["validation"]["model"],
        "n": len(hold_out(learnt, upkeep.held_out, batches.seed)["valid"]),
        "predictors": predictors(last["validation"]),
        "steps": trained.steps,
        "seconds": trained.steps * fmean(line["seconds"] for line in curve if "seconds" in line),
        "parameters": sum(each.numel() for each in trained.encoder.parameters()),
    }


def _failed(name: str, sentence: str, data: str, seed: int) -> Row:
    return {**_of_objective(name, data, seed), "failed": sentence}


def _of_objective(name: str, data: str, seed: int) -> dict[str, Any]:
    row = {"representation": name, "task": "objective", "metric": "held-out loss", "value": None, "ci95": None, "n": 0}
    return {**row, "seed": seed, "data": data}
