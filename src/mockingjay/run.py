"""The whole way in one call: a folder of speech → a pre-trained encoder, probes beside honest baselines, and a page.

The baselines are probed first. What they took is kept back from the budget for the trained encoder's probes, and the
rest goes to pre-training. No utterance that a probe is tested on is ever trained on, not even without its labels.
"""

import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mockingjay.core.config import to_toml
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Utterance
from mockingjay.data.batches import Once
from mockingjay.data.manifest import Corpus
from mockingjay.data.scan import Health
from mockingjay.data.splits import hold_out
from mockingjay.downstream.questions import Question, learnable, probe, questions
from mockingjay.downstream.recognise import teach
from mockingjay.encoders.encoder import Encoder, random_encoder
from mockingjay.encoders.frontends import Recogniser
from mockingjay.objectives import OBJECTIVES
from mockingjay.open import open_representation
from mockingjay.pretrain import Pretrained, examined, pretrain
from mockingjay.report.page import write_page
from mockingjay.report.run_report import run_page
from mockingjay.report.tables import write_results
from mockingjay.rounds import recognise, resolved
from mockingjay.settings import Settings
from mockingjay.train.distributed import alone, device_called

REPORT = 10.0  # seconds kept back from the budget for pictures and the page


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
        device: "auto", "cpu", "cuda" or "cuda:<index>".
        seed: Of the probes' divisions and heads.
        say: Told a line at a time.
        command: What the user typed, for the page.

    Raises:
        ConfigError: torchrun has started several of it.
        MockingjayError: As scanning, probing and pre-training do.
    """
    if not alone():
        raise ConfigError(
            "run: started by torchrun as several processes, expected one; start it by itself, or use pretrain, which "
            "several share"
        )
    began, chosen, place = time.monotonic(), resolved(chosen), device_called(device)
    with examined(corpus, chosen, out, say) as health:  # nobody else writes there until the page is written
        asked = questions(health.corpus, seed, say)
        learnt = learnable(health, asked)
        recognise(chosen, out, learnt)
        for question in asked:
            question.parts.write(out / "splits" / f"{question.slug}.json")
        rows = _baselines(chosen, learnt, asked, out, place, seed, say)
        probing = sum(row["seconds"] for row in rows if row["representation"].startswith("random:"))
        left = None
        if budget is not None:
            left = max(budget - (time.monotonic() - began) - probing - REPORT, 0.1 * budget)
        trained = pretrain(chosen, learnt, out, budget=left, device=device, say=say, hold=nullcontext)
        if not trained.stopped:
            kind = chosen.objective.kind
            rows += probe(kind, str(out.absolute()), trained.encoder, asked, out / "probes" / kind, say)
            write_results(out / "results.json", rows)
            write_page(out / "report" / "index.html", page(trained, health, rows, command))
            write_results(out / "report" / "results.json", rows)
    return Outcome(trained, tuple(rows), out / "report" / "index.html")


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
        measure=OBJECTIVES[trained.settings.objective.kind].measure(trained.settings.objective),
        spectrogram=trained.picture,
        rows=rows,
        weights=weights,
        settings_toml=to_toml(trained.settings, comments=True),
        provenance=json.loads((out / "provenance.json").read_text("utf-8")),
    )


def _baselines(
    chosen: Settings,
    learnt: Sequence[Utterance],
    asked: Sequence[Question],
    out: Path,
    place: torch.device,
    seed: int,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Probe what has learnt nothing: features as they are, and the encoder that the run begins with."""
    kind, probes = chosen.objective.kind, out / "probes"
    untrained = _untrained(chosen, learnt, place, seed)
    features = "mel" if untrained.reads is None else f"precomputed:{untrained.reads}"
    plain = open_representation(features).to(place)
    return [
        *probe(features, features, plain, asked, probes / features.replace(":", "-"), say),
        *probe(f"random:{kind}", f"random:{out.absolute()}@{seed}", untrained, asked, probes / f"random-{kind}", say),
    ]


def _untrained(chosen: Settings, utterances: Sequence[Utterance], place: torch.device, seed: int) -> Encoder:
    """Make the encoder a run begins with: random weights, and a frontend that has seen what the run will show it."""
    encoder = random_encoder(chosen.objective.encoder, seed)
    if isinstance(encoder.frontend, Recogniser):
        teach(encoder.frontend, open_representation)
    encoder.to(place)
    train = hold_out(utterances, chosen.upkeep.held_out, chosen.batches.seed)["train"]
    encoder.frontend.fit(batch.waves for batch in Once(train, chosen.batches, place))
    return encoder
