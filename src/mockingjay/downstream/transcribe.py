"""What probes are asked besides a figure: their errors; of sequences also what cannot be learnt, and other readings."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mockingjay.core.errors import ConfigError, DataError
from mockingjay.core.files import write_atomically
from mockingjay.core.types import Grid, Utterance
from mockingjay.data.quarantine import Quarantine
from mockingjay.downstream.decode import Decoder
from mockingjay.downstream.edits import confusions, lined_up
from mockingjay.downstream.features import represent
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.tasks import Targets, Task, Transcript
from mockingjay.downstream.tasks.task import Naming
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

    Where units make words, `confusions` of these stand under `words`.

    Raises:
        DataError: A file cannot be read, and there is no quarantine to take it in.
    """
    task, ids, meant, said = probe.task, [], [], []
    assert isinstance(task, Transcript)
    for chosen, targets, logits, lengths in _answers(probe, utterances, quarantine):
        ids += [each.id for each in chosen]
        meant += task.meant(targets)
        said += task.said(logits, lengths)
    pairs = lined_up(meant, said)
    about = {"task": task.name, "metric": task.metric, "decoder": task.decoding, **confusions(pairs)}
    if task.in_words():
        words = ([task.write(units).split() for units in texts] for texts in (meant, said))
        about["words"] = confusions(lined_up(*words))
    wrong = [sum(one != other for one, other in each) / max(1, len(units)) for each, units in zip(pairs, meant)]
    worst = sorted(range(len(ids)), key=lambda place: (-wrong[place], ids[place]))[:WORST]
    return about | {"worst": [{"id": ids[place], "meant and said": pairs[place]} for place in worst]}


@torch.no_grad()
def confused(probe: Probe, utterances: Sequence[Utterance], quarantine: Quarantine | None = None) -> dict[str, Any]:
    """Say which classes a probe takes for which.

    Returns:
        `points` that have a label, the `hits` among them, and `pairs`: lists of the class meant, the class said and how
        often, the right ones among them, from the commonest.

    Raises:
        DataError: A file cannot be read, and there is no quarantine to take it in.
    """
    names, found = probe.task.outputs, Counter[int]()
    for _, targets, logits, _ in _answers(probe, utterances, quarantine):
        places = (targets.answers * len(names) + logits.argmax(-1, keepdim=True)).cpu().numpy()
        counts = targets.counts.cpu().numpy()
        every, which = np.unique(places[counts > 0], return_inverse=True)
        found.update(dict(zip(every.tolist(), np.bincount(which, counts[counts > 0]).astype(int).tolist())))
    pairs = [(*divmod(place, len(names)), count) for place, count in sorted(found.items(), key=lambda each: -each[1])]
    return {
        "task": probe.task.name,
        "metric": probe.task.metric,
        "points": found.total(),
        "hits": sum(count for meant, said, count in pairs if meant == said),
        "pairs": [[names[meant], names[said], count] for meant, said, count in pairs],
    }


def keep_errors(probe: Probe, test: Sequence[Utterance], folder: Path, quarantine: Quarantine | None = None) -> None:
    """Write `errors.json` beside a probe whose answers can be confused; beside one of values there is none.

    Raises:
        MachineError: The file cannot be written.
    """
    path = folder / "errors.json"
    if isinstance(probe.task, Transcript | Naming):
        about = (errors_of if isinstance(probe.task, Transcript) else confused)(probe, test, quarantine)
        write_atomically(path, f"{json.dumps(about, indent=1, ensure_ascii=False)}\n".encode())
    else:
        path.unlink(missing_ok=True)  # another probe's, that was in this folder before


def _answers(
    probe: Probe, utterances: Sequence[Utterance], quarantine: Quarantine | None
) -> Iterator[tuple[list[Utterance], Targets, Float[Tensor, "batch guesses classes"], Int[Tensor, " batch"]]]:
    """Hand out utterances with what is to be said of them, the logits, and how many rows of these are theirs."""
    probe.eval()
    for indices, hidden in represent(probe.representation, utterances, quarantine):
        chosen = [utterances[index] for index in indices]
        stack, lengths = probe.head.thin(probe.mix.take(hidden), hidden.lengths)
        logits = probe.answer(stack, lengths)
        yield chosen, probe.targets(chosen, hidden.lengths, logits), logits, lengths
