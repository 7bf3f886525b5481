"""What the labels of a corpus allow to ask of any representation, and the asking.

Every representation gets the same questions, the same probes and the same division into train, dev and test; what is
answered is kept, so that nothing is fitted twice.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mockingjay.audio import holds_features
from mockingjay.core.draw import address
from mockingjay.core.errors import DataError
from mockingjay.core.files import write_atomically
from mockingjay.core.representation import Representation
from mockingjay.core.types import Utterance
from mockingjay.data.manifest import Corpus
from mockingjay.data.phones import folding_of
from mockingjay.data.scan import Health
from mockingjay.downstream import fit
from mockingjay.downstream.frozen import FrozenTraining
from mockingjay.downstream.partition import Partition, partition
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.scores import Difference, Scores, paired_difference
from mockingjay.downstream.storage import save_probe
from mockingjay.downstream.tasks import Label, Phone, Task, Value, open_task

VALENCE = {
    "negative": ("anger", "sadness", "fear", "disgust", "angry", "sad"),
    "positive": ("happiness", "joy", "happy"),
}
LABELLED = 0.5  # share of a corpus that must carry a label before it is asked for
UTTERANCES = 8  # of each speaker, before speakers are asked for

# Frames are read by a linear layer. Utterances are read by the published recurrent head: a mean over time would be
# blind, for features normalised per utterance have the same mean in every utterance.
PROBES: Mapping[str, fit.Config] = {
    "frame": fit.Config(probe=Probe.Config(read="mix"), unseen="drop"),
    "sequence": fit.Config(probe=Probe.Config(read="mix"), unseen="drop"),
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

    def at_most(self, utterances: int) -> "Question":
        """Ask fewer: half of them to learn from, an eighth to choose on, the rest to be tested on."""
        counts = {"train": utterances // 2, "dev": utterances // 8}
        counts["test"] = utterances - sum(counts.values())
        chosen = {
            name: tuple(sorted(getattr(self.parts, name), key=lambda each: address("asked", each.id))[:count])
            for name, count in counts.items()
        }
        return replace(self, parts=replace(self.parts, **chosen))

    @property
    def slug(self) -> str:
        """A name for files."""
        return slug(self.task.name, self.data)


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


def question(
    corpus: Corpus, name: str, data: Sequence[str] = (), *, seed: int = 0, fold: bool = True, least: int = 1
) -> Question:
    """Put one question by its task's name, phones folded and emotions parted as `questions` has them.

    Args:
        corpus: As opened.
        name: As `open_task` takes it.
        data: Of a folder of several corpora those to ask; none: all of it.
        seed: Of the division.
        fold: Whether phones of a known inventory are folded.
        least: Utterances a class must have; those of other classes are left out.

    Raises:
        ConfigError: There is no such task.
        DataError: There is no such corpus, or its labels do not allow the question.
    """
    parts = _sub_corpora(corpus)
    unknown = [each for each in data if each not in parts]
    if unknown:
        raise DataError(
            f"{corpus.name}: holds no corpus {unknown[0]!r}, expected one of {', '.join(parts)}; check the path or name"
        )
    utterances = [each for part in data or parts for each in parts[part]]
    task = open_task(name)
    if isinstance(task, Phone) and fold and not task.config.folding:
        task = Phone(Phone.Config(fold=_folding(utterances)))
    elif name == "label:emotion":
        task = Label(Label.Config(column="emotion", classes=VALENCE))
    counts = Counter(label for each in utterances for label in task.names(each))
    utterances = [each for each in utterances if any(counts[label] >= least for label in task.names(each))]
    return Question(task, "+".join(data) or corpus.name, partition(utterances, task, seed))


def prosody(corpus: Corpus, asked: Sequence[Question], seed: int) -> list[Question]:
    """Ask for pitch and energy, of the utterances whose phones are asked where there are any.

    Audio labels itself, so of a folder of several corpora the largest is asked; features made elsewhere do not.
    """
    parts = _sub_corpora(corpus)
    spoken = [each.data for each in asked if each.task.name == "phone"]
    name = max(spoken or parts, key=lambda name: len(parts[name]))
    if any(holds_features(each.path) for each in parts[name]):
        return []
    tasks = [Value(Value.Config(kind=kind)) for kind in ("pitch", "energy")]
    return [Question(task, name, partition(parts[name], task, seed)) for task in tasks]


def learnable(health: Health, asked: Sequence[Question]) -> list[Utterance]:
    """Leave out what any question is tested on, and the same audio under other names."""
    tested = {each.id for question in asked for each in question.parts.test}
    tested.update(id for alike in health.duplicates if tested & set(alike) for id in alike)
    return [each for each in health.corpus.utterances if each.id not in tested]


def probe(
    name: str,
    opened: str,
    representation: Representation,
    asked: Sequence[Question],
    folder: Path,
    say: Callable[[str], None],
    probes: Mapping[str, fit.Config] | None = None,
) -> list[dict[str, Any]]:
    """Fit one probe per question and keep each in a folder; those that are there already are not fitted again.

    Args:
        name: For the rows.
        opened: What opens the representation again.
        representation: What is probed.
        asked: Questions; one that the labels turn out not to answer is left out and said.
        folder: Where the probes are kept, each in a folder whose name begins like this one.
        say: Told a line at a time.
        probes: How to fit them, by resolution; none: `PROBES`.
    """
    rows = []
    for question in asked:
        place = folder.with_name(f"{folder.name}-{question.slug}")
        card = place / "probe.json"
        if not card.is_file():
            began = time.monotonic()
            parts, config = question.parts, (probes or PROBES)[question.task.resolution]
            try:
                result = fit.fit_probe(
                    representation, question.task, parts.train, parts.dev, parts.test, config, name, question.data
                )
            except DataError as error:
                say(f"not asked: {error}")
                continue
            row = {**result.row, "seconds": time.monotonic() - began}
            keep_scores(result.scores, place)
            save_probe(result.probe, place, opened, row)
        row = {**json.loads(card.read_text("utf-8"))["row"], "representation": name}
        say(_sentence(row))
        rows.append(row)
    return rows


def difference(row: Mapping[str, Any], first: Path, second: Path) -> Difference | None:
    """Pair two kept probes of a row's question, the first less the second; None where they were tested on others.

    Args:
        row: Says which question.
        first: As `probe` was given it.
        second: Likewise, of another representation.
    """
    one, other = (kept_scores(folder, slug(row["task"], row["data"])) for folder in (first, second))
    return paired_difference(one, other) if one and other and set(one.ids) == set(other.ids) else None


def keep_scores(scores: Scores, folder: Path) -> None:
    """Write `scores.json` beside a probe: what it earned of each test utterance, for paired comparisons.

    Raises:
        MachineError: The file cannot be written.
    """
    write_atomically(folder / "scores.json", json.dumps(asdict(scores), default=list).encode())


def kept_scores(folder: Path, slug: str) -> Scores | None:
    """Read what a kept probe earned of each test utterance; None where there is no such probe.

    Args:
        folder: As `probe` was given it.
        slug: The question's.
    """
    file = folder.with_name(f"{folder.name}-{slug}") / "scores.json"
    if not file.is_file():
        return None
    return read_scores(json.loads(file.read_text("utf-8")))


def read_scores(known: Mapping[str, Any]) -> Scores:
    """Rebuild scores from their JSON."""
    figures = np.array(known["earned"]), np.array(known["total"])
    return Scores(tuple(known["ids"]), *figures, known.get("better", "higher"))


def slug(task: str, data: str) -> str:
    """Name a question for files."""
    return f"{task.replace(':', '-')}-{data}"


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
    return folding_of({phone for each in utterances for *_, phone in each.alignment or ()})


def _sentence(row: Mapping[str, Any]) -> str:
    begin = f"{row['task']} of {row['data']}: {row['representation']}"
    value, (low, high), majority = row["value"], row["ci95"], row["majority"]
    if row["metric"] != "accuracy":
        return f"{begin} {row['metric']} {value:.3f} [{low:.3f}, {high:.3f}]"
    return f"{begin} {100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}], majority {100 * majority:.1f} %"
