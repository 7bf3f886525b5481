"""Fewer and fewer labels: every row of the table on nested shares of the training labels and always the same test set.

Encoders are the table's. A share is of the seconds of labelled speech; a smaller one lies inside every larger one, and
each seed draws its own. Heads are trained by as many updates whatever the share, stopped on the same dev set (the
legacy release keeps 500 000 updates too), so that with few labels they see these more often. A fine-tuned row keeps the
learning rate that dev chose with the largest share; the others choose anew every time.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from mockingjay.core import config
from mockingjay.core.draw import address
from mockingjay.core.files import write_atomically
from mockingjay.core.types import Utterance
from mockingjay.data.manifest import Corpus
from mockingjay.downstream.fit import Fitting
from mockingjay.downstream.questions import Question, read_scores
from mockingjay.downstream.scores import Scores
from mockingjay.downstream.tasks import Task
from mockingjay.settings import Settings
from mockingjay.studies.decks.contestants import CONTESTANTS, Contestant, Ground, prepare
from mockingjay.studies.decks.profiles import ENCODERS, Profile
from mockingjay.studies.decks.statements import AVERAGE, FEWER, Cell, averaged, fewer_statements, figure, judge, percent

Row = Mapping[str, Any]
_CARD, _WHAT = "labels.json", "a sweep over labels"

Known = dict[tuple[str, str, float], list[tuple[Row, Scores]]]  # (row, column, share) → per seed


@dataclass(slots=True)
class Outcome:
    """What is known so far.

    Attributes:
        data: Name of the corpus.
        settings: Of each encoder.
        rows: One per row of the table, column and share, averaged over seeds.
        points: One per seed of these.
        said: The decks' statements, as `judge` holds them to what was measured.
        stopped: A signal's exit code where one has cut it short, else 0.
    """

    data: str
    settings: dict[str, Settings]
    rows: list[Row] = field(default_factory=list)
    points: list[Row] = field(default_factory=list)
    said: list[Row] = field(default_factory=list)
    stopped: int = 0


def labels(
    profile: Profile,
    corpus: Corpus,
    out: Path,
    encoders: Path,
    *,
    device: str = "auto",
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Outcome]:
    """Measure the sweep; what is known is handed out after the rows of every encoder.

    Args:
        profile: How large.
        corpus: As `open_profile` read it.
        out: The sweep's folder; every finished cell is kept there.
        encoders: The table's folder, whose encoders are used, and trained where they are missing.
        device: "auto", "cpu", "cuda" or "cuda:<index>".
        seed: Of everything random.
        say: Told a line at a time.

    Raises:
        ConfigError: A folder holds something else, cells of other encoders too, or the profile does not fit together.
        CheckpointError: An encoder is damaged.
        DataError: Nothing can be used, or a question cannot be put.
        MachineError: No room, no permission, or another process is writing here.
        TrainingError: A step was not finite.
    """
    ground = prepare(profile, corpus, encoders, seed, say)
    ground.claim(out, encoders, _CARD, _WHAT)
    outcome, known = Outcome(ground.health.corpus.name, dict(ground.settings)), Known()
    for encoder in ("mel", *ENCODERS):
        trained = None
        if encoder != "mel":
            trained = ground.encode(encoder, encoders, device, say)
            if trained.stopped:
                outcome.stopped = trained.stopped
                yield outcome
                return
            ground.recognise(out / _CARD, encoders, _WHAT)
            outcome.settings[encoder] = trained.settings
        for contestant in CONTESTANTS:
            if contestant.encoder == encoder:
                _, representation = ground.opened(contestant, encoders, trained, device)
                for column in profile.labels.columns:
                    ready = partial(_ready, ground, contestant, ground.asked[column], representation)
                    known |= _swept(ground, contestant, column, ready, out, say)
        _gather(ground, known, outcome)
        yield outcome


def nested(
    utterances: Sequence[Utterance], task: Task, shares: Sequence[float], seed: int
) -> dict[float, tuple[Utterance, ...]]:
    """Take shares of labelled speech, each the fewest utterances of one order that reach it.

    The order begins with one drawn; then come those that name most classes not yet named per second, until all are
    named; then the others, drawn so that classes keep their proportions where an utterance has just one. So every
    class is there that can be.

    Args:
        utterances: With labels.
        task: Says which classes they name.
        shares: Of the seconds.
        seed: Another seed draws others.
    """
    drawn = sorted(utterances, key=lambda each: (address(seed, "nested", each.id), each.id))
    names = {each.id: frozenset(task.names(each)) for each in drawn}
    order, lacking = [drawn[0]], frozenset().union(*names.values()) - names[drawn[0].id]
    left = drawn[1:]
    while lacking:
        best = max(left, key=lambda each: len(names[each.id] & lacking) / each.seconds)
        left.remove(best)
        order.append(best)
        lacking -= names[best.id]
    order += _in_proportion(left, names)
    reached = np.cumsum([each.seconds for each in order])
    counts = {share: int(np.searchsorted(reached, share * reached[-1] * (1 - 1e-9))) + 1 for share in shares}
    return {share: tuple(order[:count]) for share, count in counts.items()}


def _in_proportion(left: Sequence[Utterance], names: Mapping[str, frozenset[str]]) -> list[Utterance]:
    """Spread each class evenly over a row, where every utterance is of one class; else leave the row as drawn."""
    if any(len(names[each.id]) > 1 for each in left):
        return list(left)
    sizes, seen = Counter(names[each.id] for each in left), Counter()
    places = {}
    for each in left:
        places[each.id] = (seen[names[each.id]] + 0.5) / sizes[names[each.id]]
        seen[names[each.id]] += 1
    return sorted(left, key=lambda each: places[each.id])


def _ready(
    ground: Ground, contestant: Contestant, question: Question, representation: Any, rate: float | None
) -> Fitting:
    """Make one training at a time ready, at a rate of fine-tuning where that is known."""
    how = config.overlay(contestant.fitting(ground.profile, question, ground.seed), {"seeds": 1})
    if rate is not None:
        how = config.overlay(how, {"live": {"learning_rates": (rate,)}})
    parts = question.parts
    sets = (parts.train, parts.dev, parts.test)
    return Fitting(representation, question.task, *sets, how, contestant.name, question.data)


def _swept(
    ground: Ground,
    contestant: Contestant,
    column: str,
    ready: Callable[[float | None], Fitting],
    out: Path,
    say: Callable[[str], None],
) -> Known:
    """Measure a row's cells in a column, or read them back; nothing is represented where all are there."""
    question, sweep, known = ground.asked[column], ground.profile.labels, Known()
    folder = out / "cells" / f"{contestant.slug}-{question.slug}"
    fitting, rate = None, None
    for seed in range(ground.seed, ground.seed + sweep.seeds):
        chosen = nested(question.parts.train, question.task, sweep.shares, seed)
        ids = {percent(share): [each.id for each in some] for share, some in chosen.items()}
        write_atomically(out / "splits" / f"{question.slug}-seed-{seed}.json", json.dumps(ids, indent=1).encode())
        for share, some in chosen.items():
            card = folder / f"{len(some)}-of-{len(question.parts.train)}-seed-{seed}.json"
            cell = json.loads(card.read_text("utf-8")) if card.is_file() else None
            if cell is None or rate not in (None, cell["row"]["learning_rate"]):  # shares may have been added
                fitting, kept = fitting or ready(rate), set(ids[percent(share)])
                result = fitting.fit([each for each in fitting.sets["train"] if each.id in kept], seed)
                cell = {"row": result.row, "scores": asdict(result.scores)}
                write_atomically(card, json.dumps(cell, default=list).encode())
                cell = json.loads(card.read_text("utf-8"))
            if contestant.tune == "all" and rate is None:  # chosen with the largest share, kept for the others
                rate, fitting = cell["row"]["learning_rate"], None
            classes = len({name for each in some for name in question.task.names(each)})
            more = {"seconds": sum(each.seconds for each in some), "heard": classes, "column": column, "share": share}
            known.setdefault((contestant.name, column, share), []).append(
                ({**cell["row"], **more}, read_scores(cell["scores"]))
            )
            value = 100 * cell["row"]["value"]
            say(f"{contestant.name}, {percent(share)} of the labels of {column}, seed {seed}: {value:.1f} %")
    return known


def _gather(ground: Ground, known: Known, outcome: Outcome) -> None:
    """Average over seeds, and judge anew what is said."""
    sweep = ground.profile.labels
    order = [each.name for each in CONTESTANTS]
    cells = sorted(known.items(), key=lambda item: (item[0][1], order.index(item[0][0]), -item[0][2]))
    outcome.rows = [_averaged(name, column, share, seeds) for (name, column, share), seeds in cells]
    outcome.points = [row for _, seeds in cells for row, _ in seeds]
    outcome.said = [each for column in sweep.columns for each in _judged(known, column, sweep.shares)]


def _judged(known: Known, column: str, shares: Sequence[float]) -> list[Row]:
    """Hold a column to what the decks say of phones; asked of anything else the statements are ours."""
    source, published = ({}, FEWER) if column == "phone" else ({"source": "ours"}, {})
    measured = partial(_measured, known, column, shares)
    return [{**judge(each, measured, published), **source, "column": column} for each in fewer_statements(shares)]


def _averaged(name: str, column: str, share: float, seeds: Sequence[tuple[Row, Scores]]) -> Row:
    rows, scores = [row for row, _ in seeds], averaged([each for _, each in seeds])
    weights = [
        {"layer": layers[0]["layer"], **{key: fmean(each[key] for each in layers) for key in ("weight", "norm")}}
        for layers in zip(*(row["layers"] for row in rows))
    ]
    return {
        **rows[0],
        "representation": name,
        "value": scores.value,
        "ci95": list(scores.interval(seed=rows[0]["seed"])),
        "values": [each.value for _, each in seeds],
        "majority": fmean(row["majority"] for row in rows),
        "share": share,
        "seconds": fmean(row["seconds"] for row in rows),
        "heard": fmean(row["heard"] for row in rows),
        "layers": weights,
        "published": figure(FEWER, (name, percent(share))) if column == "phone" else None,
    }


def _measured(known: Known, column: str, shares: Sequence[float], cell: Cell) -> list[Scores]:
    """Look up what a cell earned, per seed; on average over the shares only where all of them are measured."""
    name, place = cell
    found = [[scores for _, scores in known.get((name, column, share), [])] for share in shares]
    if place == AVERAGE:
        return [averaged(each) for each in zip(*found, strict=True)] if all(found) else []
    return next(scores for share, scores in zip(shares, found) if percent(share) == place)
