"""Train, dev and test for a task: given by the corpus where it says so, otherwise drawn by rule and written down.

Test speakers are new wherever the task allows it, so that no probe can win by recognising a voice; a speaker task needs
every speaker in every part. dev is always distinct from test: what is chosen on dev is never measured on it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mockingjay.core.draw import address
from mockingjay.core.errors import DataError
from mockingjay.core.files import write_atomically
from mockingjay.core.representation import Representation
from mockingjay.core.types import SAMPLE_RATE, Utterance
from mockingjay.data.scan import check_reads
from mockingjay.data.splits import role, split
from mockingjay.downstream.tasks import Task

PARTS = ("train", "dev", "test")
ENOUGH = 80  # test utterances: what a corpus has for training means little beside an interval too wide to say anything


@dataclass(frozen=True, slots=True)
class Partition:
    """Three sets without common utterances.

    Attributes:
        train: What heads learn from.
        dev: What rates and stopping are chosen on.
        test: What is measured, once.
        rule: How they were made: `given` by the corpus, drawn by `speaker`, where an utterance without one goes by
            itself, or by `utterance`.
        dropped: Reason → ids of what is in none of them.
    """

    train: tuple[Utterance, ...]
    dev: tuple[Utterance, ...]
    test: tuple[Utterance, ...]
    rule: Literal["given", "speaker", "utterance"]
    dropped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the ids of each set, the rule and what was dropped as JSON.

        Raises:
            MachineError: The file cannot be written.
        """
        sets = {name: [each.id for each in getattr(self, name)] for name in ("train", "dev", "test")}
        record = {"rule": self.rule, **sets, "dropped": self.dropped}
        write_atomically(path, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def partition(utterances: Sequence[Utterance], task: Task, seed: int = 0) -> Partition:
    """Divide a corpus for a task.

    The `split` column decides where it names both train and test (a first word of train, dev, valid, test or eval, as
    in `dev-clean`); a missing dev is cut from train. Otherwise shares of 80, 10 and 10 % are drawn, and up to 40 % for
    the test of a corpus that is small; by speaker where test speakers should be new and three or more are known, and
    then an utterance without a speaker goes by itself; else by utterance, within each class. A given split whose test
    speakers are not all in train cannot serve a speaker task: then the split is drawn.

    Args:
        utterances: Of the whole corpus.
        task: Unlabelled utterances are left out with a count.
        seed: Addresses the draw.

    Raises:
        DataError: Nothing is labelled, or a part would be empty.
    """
    labelled, dropped = _labelled(utterances, task)
    given = {name: [each for each in labelled if role(each.split) == name] for name in PARTS}
    serves = (
        given["train"]
        and given["test"]
        and (task.new_speakers or _classes(given["test"], task) <= _classes(given["train"], task))
    )
    if not serves:
        sets, rule = _draw(labelled, task, seed, shares(len(labelled)))
    else:
        rule = "given"
        dropped |= _nonempty({"in no split": tuple(each.id for each in labelled if role(each.split) is None)})
        if not given["dev"]:
            drawn, _ = _draw(given["train"], task, seed, {"train": 0.9, "dev": 0.1})
            given |= drawn
        sets = {name: tuple(chosen) for name, chosen in given.items()}
    for name, chosen in sets.items():
        if not chosen:
            raise DataError(
                f"task {task.name}: {name} is empty after dividing {len(labelled)} labelled ones, "
                "expected at least one; "
                "give more of them, or a split column"
            )
    return Partition(**sets, rule=rule, dropped=dropped)


def shares(utterances: int) -> dict[str, float]:
    """Share out a corpus: a tenth to dev; a tenth to test, or what gives `ENOUGH` utterances, 40 % at most."""
    test = min(max(0.1, ENOUGH / utterances), 0.4)
    return {"train": 0.9 - test, "dev": 0.1, "test": test}


def usable(
    utterances: Sequence[Utterance], task: Task, representation: Representation
) -> tuple[tuple[Utterance, ...], dict[str, tuple[str, ...]]]:
    """Keep the labelled utterances that are long enough to give one step; the others come back as reason → ids.

    Raises:
        DataError: The files hold sound where the representation reads features, or the other way round.
    """
    check_reads((each.path for each in utterances), representation.reads)
    needed = representation.receptive / SAMPLE_RATE
    short = tuple(each.id for each in utterances if round(each.seconds * SAMPLE_RATE) < representation.receptive)
    gone = set(short)
    bare = tuple(each.id for each in utterances if each.id not in gone and not task.names(each))
    gone.update(bare)
    return tuple(each for each in utterances if each.id not in gone), _nonempty(
        {f"shorter than {needed:.3f} s": short, "no label": bare}
    )


def _labelled(utterances: Sequence[Utterance], task: Task) -> tuple[list[Utterance], dict[str, tuple[str, ...]]]:
    labelled = [each for each in utterances if task.names(each)]
    bare = tuple(each.id for each in utterances if not task.names(each))
    if not labelled:
        first = f": first {bare[0]!r}" if bare else ""
        raise DataError(
            f"task {task.name}: {len(bare)} of {len(utterances)} utterances have no label{first}, expected labels; "
            "add them to the manifest or choose another task"
        )
    return labelled, _nonempty({"no label": bare})


def _draw(
    utterances: Sequence[Utterance], task: Task, seed: int, shares: Mapping[str, float]
) -> tuple[dict[str, tuple[Utterance, ...]], Literal["speaker", "utterance"]]:
    speakers = {each.speaker for each in utterances} - {None}
    if task.new_speakers and len(speakers) >= len(shares):
        return split(utterances, shares, seed, "speaker"), "speaker"
    if task.resolution != "utterance":
        return split(utterances, shares, seed, "utterance"), "utterance"
    return _within_classes(utterances, task, seed, shares), "utterance"


def _within_classes(
    utterances: Sequence[Utterance], task: Task, seed: int, shares: Mapping[str, float]
) -> dict[str, tuple[Utterance, ...]]:
    """Divide every class by the same shares; each part but the first gets at least one where the class has enough."""
    sets: dict[str, list[Utterance]] = {name: [] for name in shares}
    for label in sorted(_classes(utterances, task)):
        members = [each for each in utterances if label in task.names(each)]
        members.sort(key=lambda each: address(seed, "partition", each.id))
        first, *others = shares
        for name in others:
            count = max(1, round(shares[name] * len(members))) if len(members) > 1 else 0
            sets[name] += members[:count]
            members = members[count:]
        sets[first] += members
    return {name: tuple(chosen) for name, chosen in sets.items()}


def _classes(utterances: Sequence[Utterance], task: Task) -> set[str]:
    return {name for each in utterances for name in task.names(each)}


def _nonempty(dropped: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {reason: ids for reason, ids in dropped.items() if ids}
