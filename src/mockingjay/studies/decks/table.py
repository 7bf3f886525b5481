"""The decks' table: six rows and two controls on phones, speakers and sentiment, measured by us on the same speech.

What is known is handed out after the rows of every encoder. Finished cells are kept, pre-training goes on where it was,
and so the same call again goes on wherever it was stopped.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mockingjay.core.errors import CheckpointError, ConfigError, DataError, TrainingError
from mockingjay.data.manifest import Corpus
from mockingjay.downstream.questions import kept_scores, probe
from mockingjay.downstream.scores import Scores
from mockingjay.pretrain import Pretrained
from mockingjay.settings import Settings
from mockingjay.studies.decks.contestants import CONTESTANTS, Contestant, Ground, prepare
from mockingjay.studies.decks.profiles import ENCODERS, Profile
from mockingjay.studies.decks.statements import TABLE, Cell, judge, table_statements

Row = Mapping[str, Any]
_CARD, _WHAT = "table.json", "a table"


@dataclass(slots=True)
class Outcome:
    """What is known so far.

    Attributes:
        data: Name of the corpus.
        columns: The question of each column, as `(task, data)`.
        settings: Of each encoder; a budget has set the steps of those that are trained.
        rows: One per row of the table and column, with its `column` and the `published` figure in %.
        curves: Lines of metrics.jsonl by encoder.
        said: The decks' statements, as `judge` holds them to what was measured.
        failures: Why a row has no figures, in its own sentence.
        stopped: A signal's exit code where one has cut it short, else 0.
    """

    data: str
    columns: dict[str, tuple[str, str]]
    settings: dict[str, Settings]
    rows: list[Row] = field(default_factory=list)
    curves: dict[str, list[Row]] = field(default_factory=dict)
    said: list[Row] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    stopped: int = 0


def table(
    profile: Profile,
    corpus: Corpus,
    out: Path,
    *,
    device: str = "auto",
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Outcome]:
    """Measure the table.

    Args:
        profile: How large.
        corpus: As `open_profile` read it.
        out: The table's folder; each encoder's run lies in a folder below.
        device: "auto", "cpu", "cuda" or "cuda:<index>".
        seed: Of everything random.
        say: Told a line at a time.

    Raises:
        ConfigError: The folder holds another table, probes of other encoders too, or the profile does not fit together.
        CheckpointError: An encoder is damaged.
        DataError: Nothing can be used, or a question cannot be put.
        MachineError: No room, no permission, or another process is writing here.
    """
    ground = prepare(profile, corpus, out, seed, say)
    ground.claim(out, out, _CARD, _WHAT)
    columns = {column: (question.task.name, question.data) for column, question in ground.asked.items()}
    outcome = Outcome(ground.health.corpus.name, columns, dict(ground.settings))
    for encoder in ("mel", *ENCODERS):
        trained = None
        try:
            if encoder != "mel":
                say(f"{encoder}: pre-training")
                trained = ground.encode(encoder, out, device, say)
                if trained.stopped:
                    outcome.stopped = trained.stopped
                    yield outcome
                    return
                ground.recognise(out / _CARD, out, _WHAT)
                outcome.settings[encoder] = trained.settings
                outcome.curves[encoder] = _curve(out / encoder)
        except TrainingError as error:
            outcome.failures |= {each.name: str(error) for each in CONTESTANTS if each.encoder == encoder}
            say(f"{encoder} failed: {error}")
            continue
        for contestant in CONTESTANTS:
            if contestant.encoder == encoder:
                _measure(ground, contestant, trained, out, device, outcome, say)
        order = [each.name for each in CONTESTANTS]
        outcome.rows.sort(key=lambda row: order.index(row["representation"]))
        outcome.said = [judge(each, partial(_kept, ground, outcome, out), TABLE) for each in table_statements()]
        yield outcome


def _measure(
    ground: Ground,
    contestant: Contestant,
    trained: Pretrained | None,
    out: Path,
    device: str,
    outcome: Outcome,
    say: Callable[[str], None],
) -> None:
    """Fit a row's probes, or read them back."""
    opened, representation = ground.opened(contestant, out, trained, device)
    name = contestant.name
    try:
        for column, question in ground.asked.items():
            how = {question.task.resolution: contestant.fitting(ground.profile, question, ground.seed)}
            folder = out / "probes" / contestant.slug
            rows = probe(name, opened, representation, [question], folder, say, how)
            published = TABLE.get(name, {}).get(column)
            outcome.rows += [{**row, "column": column, "published": published} for row in rows]
    except (TrainingError, DataError, ConfigError, CheckpointError) as error:
        say(f"{name} failed: {error}")
        outcome.failures[name] = str(error)


def _kept(ground: Ground, outcome: Outcome, out: Path, cell: Cell) -> list[Scores]:
    """Look up what a cell earned; nothing where it is not among the rows, as when its encoder has failed."""
    name, column = cell
    if not any((row["representation"], row["column"]) == cell for row in outcome.rows):
        return []
    (contestant,) = (each for each in CONTESTANTS if each.name == name)
    scores = kept_scores(out / "probes" / contestant.slug, ground.asked[column].slug)
    return [] if scores is None else [scores]


def _curve(folder: Path) -> list[Row]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
