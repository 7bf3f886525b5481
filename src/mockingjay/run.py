"""The whole way in one call: a folder of speech → a pre-trained encoder, probes beside honest baselines, and a page.

The baselines are probed first. What they took is kept back from the budget for the trained encoder's probes, and the
rest goes to pre-training. No utterance that a probe is tested on is ever trained on, not even without its labels.
"""

import json
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mockingjay.core.config import to_toml
from mockingjay.core.errors import ConfigError, DataError
from mockingjay.core.representation import Representation
from mockingjay.core.types import Utterance
from mockingjay.data.alignments import ARPABET_72_TO_41, TIMIT_61_TO_39
from mockingjay.data.manifest import Corpus
from mockingjay.data.scan import Health
from mockingjay.downstream import fit
from mockingjay.downstream.frozen import FrozenTraining
from mockingjay.downstream.partition import Partition, partition
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.storage import save_probe
from mockingjay.downstream.tasks import Label, Phone, Task
from mockingjay.encoders.encoder import random_encoder
from mockingjay.open import open_representation
from mockingjay.pretrain import Pretrained, examine, pretrain, recognise
from mockingjay.report.page import write_page
from mockingjay.report.run_report import run_page
from mockingjay.report.tables import write_results
from mockingjay.settings import Settings
from mockingjay.train.distributed import alone

VALENCE = {
    "negative": ("anger", "sadness", "fear", "disgust", "angry", "sad"),
    "positive": ("happiness", "joy", "happy"),
}
LABELLED = 0.5  # share of a corpus that must carry a label before it is asked for
UTTERANCES = 8  # of each speaker, before speakers are asked for
REPORT = 10.0  # seconds kept back from the budget for pictures and the page

# Frames are read by a linear layer. Utterances are read by the published recurrent head: a mean over time would be
# blind, for features normalised per utterance have the same mean in every utterance.
PROBES: Mapping[str, fit.Config] = {
    "frame": fit.Config(probe=Probe.Config(read="mix"), unseen="drop"),
    "utterance": fit.Config(
        probe=Probe.Config(read="mix", head="gru"),
        frozen=FrozenTraining.Config(learning_rates=(1e-3, 3e-3, 1e-2), updates=240, evaluations=8),
        unseen="drop",
    ),
}


@dataclass(frozen=True, slots=True)
class Question:
    """What the labels of one corpus allow to ask, and of which utterances."""

    task: Task
    data: str
    parts: Partition


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a whole run left; `pretrained.stopped` says whether a signal cut it short, and then there are no rows."""

    pretrained: Pretrained
    rows: tuple[Mapping[str, Any], ...]
    page: Path


def run(
    chosen: Settings,
    corpus: Corpus,
    out: Path,
    *,
    budget: float | None,
    device: str = "auto",
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
    command: Sequence[str] = (),
) -> Outcome:
    """Go the whole way; the same call again goes on where it was.

    Args:
        chosen: Resolved settings of the pre-training.
        corpus: As `open_corpus` read it.
        out: The run's folder.
        budget: Seconds for everything; none: `train.steps` of the settings.
        device: "auto", "cpu" or "cuda".
        seed: Of the probes' divisions and heads.
        say: Told a line at a time.
        command: What the user typed, for the page.

    Raises:
        ConfigError: torchrun has started several of it.
        MockingjayError: As scanning, probing and pre-training do.
    """
    if not alone():
        raise ConfigError(
            "run: started by torchrun as several processes, expected one; start it by itself, or use pretrain and probe"
        )
    began = time.monotonic()
    health = examine(corpus, chosen, out, say)
    asked = questions(health.corpus, seed, say)
    tested = {each.id for question in asked for each in question.parts.test}
    learnt = [each for each in health.corpus.utterances if each.id not in tested]
    recognise(chosen, out, learnt)
    for question in asked:
        question.parts.write(out / "splits" / f"{_slug(question)}.json")
    untrained = random_encoder(chosen.objective.encoder, seed)
    kind = chosen.objective.kind
    rows = [
        *probe("mel", "mel", open_representation("mel"), asked, out, say),
        *probe(f"random:{kind}", f"random:{out.absolute()}@{seed}", untrained, asked, out, say),
    ]
    probing = sum(row["seconds"] for row in rows if row["representation"].startswith("random:"))
    left = None
    if budget is not None:
        left = max(budget - (time.monotonic() - began) - probing - REPORT, 0.1 * budget)
    trained = pretrain(chosen, learnt, out, budget=left, device=device, say=say)
    if not trained.stopped:
        rows += probe(kind, str(out.absolute()), trained.encoder, asked, out, say)
        write_results(out / "results.json", rows)
        write_page(out / "report" / "index.html", page(trained, health, rows, command))
        write_results(out / "report" / "results.json", rows)
    return Outcome(trained, tuple(rows), out / "report" / "index.html")


def questions(corpus: Corpus, seed: int, say: Callable[[str], None] = lambda line: None) -> list[Question]:
    """Find what the labels allow to ask: phones, speakers, negative or positive emotion, sentiment, a label."""
    asked = []
    for name, part in _sub_corpora(corpus).items():
        for task in _tasks(part):
            try:
                asked.append(Question(task, name, partition(part, task, seed)))
            except DataError as error:
                say(f"not asked: {error}")
    return asked


def probe(
    name: str,
    opened: str,
    representation: Representation,
    asked: Sequence[Question],
    out: Path,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Fit one probe per question and keep them below `probes`; those that are there already are not fitted again.

    Args:
        name: For the rows.
        opened: What opens the representation again.
        representation: What is probed.
        asked: Questions; one that the labels turn out not to answer is left out and said.
        out: The run's folder.
        say: Told a line at a time.
    """
    rows = []
    for question in asked:
        folder = out / "probes" / f"{name.replace(':', '-')}-{_slug(question)}"
        card = folder / "probe.json"
        if not card.is_file():
            began = time.monotonic()
            parts, config = question.parts, PROBES[question.task.resolution]
            try:
                result = fit.fit_probe(
                    representation, question.task, parts.train, parts.dev, parts.test, config, name, question.data
                )
            except DataError as error:
                say(f"not asked: {error}")
                continue
            row = {**result.row, "seconds": time.monotonic() - began}
            save_probe(result.probe, folder, opened, row)
        row = json.loads(card.read_text("utf-8"))["row"]
        low, high = row["ci95"]
        say(
            f"{row['task']} of {row['data']}: {name} {100 * row['value']:.1f} % "
            f"[{100 * low:.1f}, {100 * high:.1f}], majority {100 * row['majority']:.1f} %"
        )
        rows.append(row)
    return rows


def page(trained: Pretrained, health: Health, rows: Sequence[Mapping[str, Any]], command: Sequence[str]) -> Any:
    """Assemble the report's page from what lies in the run's folder."""
    out = trained.folder
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    weights = {
        f"{row['task']}, {row['data']}": [layer["weight"] for layer in row["layers"]]
        for row in rows
        if row["representation"] == trained.settings.objective.kind
    }
    known = health.as_dict()
    known["level_dBFS"] = known.pop("levels")
    known["durations"] = [each.seconds for each in health.corpus.utterances]
    return run_page(
        title=f"{trained.settings.objective.kind} on {health.corpus.name}",
        command=shlex.join(command),
        health=known,
        metrics=metrics,
        spectrogram=trained.picture,
        rows=rows,
        weights=weights,
        settings_toml=to_toml(trained.settings, comments=True),
        provenance=json.loads((out / "provenance.json").read_text("utf-8")),
    )


def _sub_corpora(corpus: Corpus) -> dict[str, list[Utterance]]:
    """Tell apart the corpora of a folder of several."""
    parts: dict[str, list[Utterance]] = {}
    for utterance in corpus.utterances:
        parts.setdefault(utterance.label("corpus") or corpus.name, []).append(utterance)
    return parts


def _tasks(utterances: Sequence[Utterance]) -> Iterator[Task]:
    enough = LABELLED * len(utterances)
    if sum(each.alignment is not None for each in utterances) > enough:
        yield Phone(Phone.Config(fold=_folding(utterances)))
    speakers = Counter(each.speaker for each in utterances if each.speaker)
    if len(speakers) > 1 and min(speakers.values()) >= UTTERANCES:
        yield Label(Label.Config(column="speaker"))
    for column, classes in {"emotion": VALENCE, "sentiment": {}, "label": {}}.items():
        task = Label(Label.Config(column=column, classes=classes))
        labelled = [name for each in utterances for name in task.names(each)]
        if len(labelled) > enough and len(set(labelled)) > 1:
            yield task


def _folding(utterances: Sequence[Utterance]) -> dict[str, str]:
    """Fold TIMIT's 61 phones to 39 and stressed vowels to plain ones; other inventories stay as they are."""
    phones = {phone for each in utterances for *_, phone in each.alignment or ()}
    for table in (TIMIT_61_TO_39, ARPABET_72_TO_41):
        if phones <= set(table):
            return {phone: table[phone] for phone in sorted(phones)}
    return {}


def _slug(question: Question) -> str:
    return f"{question.task.name.replace(':', '-')}-{question.data}"
