"""SUPERB in small: its heads and metrics on whatever labelled speech there is.

S.-w. Yang et al., "SUPERB: Speech processing Universal PERformance Benchmark", Interspeech 2021, arXiv 2105.01051: the
representation is frozen, a softmax-weighted sum of all its layers is read by one light head per task, and nothing but
the learning rate is tuned. Heads are those of its code:

| task | labels | head | metric |
|---|---|---|---|
| PR | phones, by alignment | 256, linear, every step; CTC | PER |
| ASR | text | 1024, two bidirectional LSTM layers of 1024, linear; CTC | WER |
| KS | a word to each short utterance | 256, mean over time, linear | accuracy |
| SID | speakers | 256, mean over time, linear | accuracy |
| ER | emotions | 256, mean over time, linear | accuracy |

Differs from SUPERB, so that no figure here is one of its leaderboard: other data, divided here; AdamW with a cosine
schedule and early stopping instead of up to 200 000 updates; the sum is standardised by dimension before the head,
whose mixing weights learn at a rate of their own; keywords are not balanced, whole utterances are read instead of 8 s
of a speaker, and emotions are divided once instead of in five folds. Each figure is the mean of several seeds.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import Field

from mockingjay.core.config import Config as Table
from mockingjay.core.errors import ConfigError, DataError
from mockingjay.core.representation import Representation
from mockingjay.core.types import Utterance
from mockingjay.data.manifest import Corpus
from mockingjay.downstream import fit
from mockingjay.downstream.frozen import FrozenTraining
from mockingjay.downstream.heads import HeadKind
from mockingjay.downstream.partition import partition
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.questions import LABELLED, UTTERANCES, Question, probe
from mockingjay.downstream.tasks import Label, Task, Transcript
from mockingjay.studies.cards import check_card, write_card

SAID = "SUPERB-style, not a leaderboard score"
WORDS = ("keyword", "word", "command", "label")  # columns in which keywords are looked for
SHORT = 2.0  # seconds; the median of utterances that are single words
BATCH = 32  # utterances (code)


class Config(Table):
    """How heads are trained."""

    learning_rates: tuple[float, ...] = Field(default=(1e-5, 1e-4, 1e-3, 1e-2, 1e-1), min_length=1)
    """Tried with the first seed; dev decides. Five values of a logarithmic grid, as in the paper."""
    updates: int = Field(default=500, ge=1)
    """Most optimiser steps of a training (ours)."""
    seeds: int = Field(default=3, ge=1)
    """Trainings with fresh heads."""
    recogniser: HeadKind = "blstm1024"
    """ASR's head; `blstm`, with 128 cells a direction, is one that a CPU can train."""


@dataclass(frozen=True, slots=True)
class Part:
    """One task of the suite, as a corpus's labels have it."""

    code: str
    question: Question
    head: HeadKind


def parts(
    corpus: Corpus,
    config: Config,
    seed: int = 0,
    only: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> list[Part]:
    """Find which tasks the labels of a corpus allow.

    Args:
        corpus: As opened.
        config: Says which head recognises.
        seed: Of the divisions.
        only: Tasks to ask, by their codes; none: all that can be.
        say: Told what cannot be asked, and why.

    Raises:
        ConfigError: A code is unknown.
        DataError: No task can be asked.
    """
    unknown = [code for code in only if code not in _FINDERS]
    if unknown:
        raise ConfigError(
            f"--tasks {unknown[0]}: no such task, expected some of {', '.join(_FINDERS)}; choose among them"
        )
    found = []
    for code in only or _FINDERS:
        task = _FINDERS[code](corpus.utterances)
        if task is None:
            say(f"{code}: not asked, for want of labels")
            continue
        try:
            divided = partition(corpus.utterances, task, seed)
        except DataError as error:
            say(f"{code}: not asked: {error}")
            continue
        head: HeadKind = config.recogniser if code == "ASR" else "linear256"
        found.append(Part(code, Question(task, corpus.name, divided), head))
    if not found:
        raise DataError(
            f"{corpus.name}: its labels allow none of {', '.join(only or _FINDERS)}, expected alignments, text, "
            f"speakers with {UTTERANCES} utterances each, an emotion column, or short utterances with a label; add some"
        )
    return found


def superb(
    name: str,
    opened: str,
    representation: Representation,
    asked: Sequence[Part],
    out: Path,
    config: Config,
    *,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[list[dict[str, Any]]]:
    """Fit every task's head, and hand out the rows that are known after each; the same call again goes on.

    Args:
        name: Of the representation, for the rows.
        opened: What opens it again.
        representation: Stays where it lives.
        asked: From `parts`.
        out: Where heads are kept.
        config: How they are trained.
        seed: Of the first training.
        say: Told a line at a time.

    Raises:
        ConfigError: The folder holds another suite.
        DataError: Too many files cannot be read.
        MachineError: The folder cannot be written.
    """
    for part in asked:
        card = out / part.code / "superb.json"
        ours = _card(opened, part, config, seed)
        check_card(card, ours, "heads")
        write_card(card, ours)
    rows: list[dict[str, Any]] = []
    for part in asked:
        task = part.question.task
        part.question.parts.write(out / part.code / "splits.json")
        fitted = {task.resolution: _fit(part.head, config, seed)}
        for row in probe(name, opened, representation, [part.question], out / part.code / "head", say, fitted):
            rows.append({**row, "task": f"superb:{part.code}", "asked": row["task"], "suite": SAID})
        yield rows


def _fit(head: HeadKind, config: Config, seed: int) -> fit.Config:
    frozen = FrozenTraining.Config(
        learning_rates=config.learning_rates, updates=config.updates, utterances=BATCH, sequences=BATCH
    )
    read = Probe.Config(read="mix", head=head)
    return fit.Config(probe=read, frozen=frozen, seeds=config.seeds, seed=seed, unseen="drop")


def _card(opened: str, part: Part, config: Config, seed: int) -> dict[str, Any]:
    sets = part.question.parts
    ids = "\n".join(each.id for chosen in (sets.train, sets.dev, sets.test) for each in chosen)
    return {
        "representation": opened,
        "head": part.head,
        "settings": config.model_dump(mode="json"),
        "seed": seed,
        "utterances": hashlib.sha256(ids.encode("utf-8", "surrogateescape")).hexdigest(),
    }


def _phones(utterances: Sequence[Utterance]) -> Task | None:
    return Transcript(Transcript.Config()) if _many(utterances, lambda each: each.alignment) else None


def _text(utterances: Sequence[Utterance]) -> Task | None:
    words = Transcript.Config(kind="text", count="words")
    return Transcript(words) if _many(utterances, lambda each: each.text) else None


def _keywords(utterances: Sequence[Utterance]) -> Task | None:
    if median(each.seconds for each in utterances) > SHORT:
        return None
    return next((task for column in WORDS if (task := _label(utterances, column)) is not None), None)


def _speakers(utterances: Sequence[Utterance]) -> Task | None:
    voices = [each.speaker for each in utterances if each.speaker]
    several = len(set(voices)) > 1 and len(voices) >= UTTERANCES * len(set(voices))
    return Label(Label.Config(column="speaker")) if several else None


def _emotions(utterances: Sequence[Utterance]) -> Task | None:
    return _label(utterances, "emotion")


def _label(utterances: Sequence[Utterance], column: str) -> Task | None:
    several = len({each.label(column) for each in utterances if each.label(column)}) > 1
    labelled = several and _many(utterances, lambda each: each.label(column))
    return Label(Label.Config(column=column)) if labelled else None


def _many(utterances: Sequence[Utterance], has: Callable[[Utterance], object]) -> bool:
    return sum(bool(has(each)) for each in utterances) > LABELLED * len(utterances)


_FINDERS: Mapping[str, Callable[[Sequence[Utterance]], Task | None]] = {
    "PR": _phones,
    "KS": _keywords,
    "SID": _speakers,
    "ER": _emotions,
    "ASR": _text,
}
