"""What sequence probes are asked besides a rate: what cannot be learnt, other readings, which errors are made."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from mockingjay.core.errors import ConfigError, DataError
from mockingjay.core.files import write_atomically
from mockingjay.core.types import Grid, Utterance
from mockingjay.data.quarantine import Quarantine
from mockingjay.downstream.decode import Decoder
from mockingjay.downstream.edits import confusions, lined_up
from mockingjay.downstream.features import represent
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.tasks import Targets, Task, Transcript
from mockingjay.downstream.tasks.transcript import feasible
from mockingjay.downstream.training import Counts, Trained, Training

WORST = 20  # utterances that are shown unit by unit


def infeasible(
    task: Task, utterances: Sequence[Utterance], grid: Grid, steps: Int[np.ndarray, " utterances"]
) -> set[str]:
    """Name the utterances with more units than steps, or with units that the task does not know.

    Args:
        task: Of sequences.
        utterances: To learn from.
        grid: The representation's.
        steps: Of each utterance; 0 where it cannot be read, which is told elsewhere.
    """
    wanted = Targets.pad([task.targets(each, grid, int(count)) for each, count in zip(utterances, steps)], 1)
    can = feasible(wanted, torch.from_numpy(steps))
    return {each.id for each, possible, count in zip(utterances, can.tolist(), steps) if count and not possible}


def check_feasible(task: Task, train: Sequence[Utterance], lost: set[str]) -> None:
    """Refuse a training set of which nothing can be learnt.

    Raises:
        DataError: No utterance has as many steps as it has units.
    """
    if all(each.id in lost for each in train):
        raise DataError(
            f"task {task.name}: each of {len(train)} training utterances has more units than the representation has "
            f"steps (first {train[0].id!r}), expected a step for each unit at least; choose a representation with "
            "shorter steps"
        )


def check_decoder(task: Task, train: Sequence[Utterance], decoder: Decoder) -> None:
    """Refuse a language model of words that cannot be searched with, before anything is trained.

    Raises:
        ConfigError: The task is not of text, or a file cannot be read.
        DataError: The model is none or knows no word, or no word can be spelt.
        MachineError: flashlight-text is not installed.
    """
    if not decoder.language:
        return
    if not isinstance(task, Transcript) or task.config.kind != "text":
        raise ConfigError(
            f"decoder.language: {decoder.language!r} for task {task.name}, expected task text, whose units make words; "
            "leave it out"
        )
    task.searched(decoder, train)


def other_counts(
    training: Training, trained: Sequence[Trained], best: Trained, train: Sequence[Utterance], decoder: Decoder
) -> Iterator[tuple[Transcript, list[Counts]]]:
    """Measure trained probes on test in other ways: in words, and by a beam search where one is asked for.

    The search's weight is chosen on dev with the best probe, which answers by that search from then on.
    """
    task = best.probe.task
    assert isinstance(task, Transcript)
    tasks = [task.in_words()]
    if decoder.beam:
        found = task.searched(decoder, train)
        looks = [training.measure(best.probe, "dev", each).value for each in found] if len(found) > 1 else [0.0]
        chosen = found[int(np.argmin(looks))]
        tasks += [chosen, chosen.in_words()]
    for each in tasks:
        if each is not None:
            yield each, [training.measure(one.probe, "test", each) for one in trained]
    if decoder.beam:
        best.probe.task = chosen


@torch.no_grad()
def errors_of(probe: Probe, utterances: Sequence[Utterance], quarantine: Quarantine | None = None) -> dict[str, Any]:
    """Say which errors a sequence probe makes: `confusions` of its units, and the worst utterances unit by unit.

    Raises:
        DataError: A file cannot be read, and there is no quarantine to take it in.
    """
    task, ids, meant, said = probe.task, [], [], []
    assert isinstance(task, Transcript)
    probe.eval()
    for indices, hidden in represent(probe.representation, utterances, quarantine):
        stack, lengths = probe.head.thin(probe.mix.take(hidden), hidden.lengths)
        logits = probe.answer(stack, lengths)
        ids += [utterances[index].id for index in indices]
        meant += task.meant(probe.targets([utterances[index] for index in indices], hidden.lengths, logits))
        said += task.said(logits, lengths)
    pairs = lined_up(meant, said)
    about = {"task": task.name, "metric": task.metric, "decoder": task.decoding, **confusions(pairs)}
    wrong = [sum(one != other for one, other in each) / max(1, len(units)) for each, units in zip(pairs, meant)]
    worst = sorted(range(len(ids)), key=lambda place: (-wrong[place], ids[place]))[:WORST]
    return about | {"worst": [{"id": ids[place], "meant and said": pairs[place]} for place in worst]}


def keep_errors(probe: Probe, test: Sequence[Utterance], folder: Path, quarantine: Quarantine | None = None) -> None:
    """Write `errors.json` beside a sequence probe; nothing beside others.

    Raises:
        MachineError: The file cannot be written.
    """
    if isinstance(probe.task, Transcript):
        text = json.dumps(errors_of(probe, test, quarantine), indent=1, ensure_ascii=False)
        write_atomically(folder / "errors.json", f"{text}\n".encode())
