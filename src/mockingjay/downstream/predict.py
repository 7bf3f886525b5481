"""Ask a trained probe about new files."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from mockingjay import audio
from mockingjay.core.errors import DataError
from mockingjay.core.representation import Representation
from mockingjay.core.types import SAMPLE_RATE, Waves
from mockingjay.data.scan import check_reads
from mockingjay.downstream.features import device_of
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.storage import load_probe
from mockingjay.downstream.tasks import Transcript


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a probe says of one file.

    Attributes:
        path: The file.
        seconds: Its length.
        label: The likeliest class of an utterance task; None of others.
        probability: Of that class.
        segments: (start s, end s, class) of a frame task, from 0 to the end without gaps; empty of others.
        text: What a sequence task makes of it, phones with blanks between; None of others.
    """

    path: str
    seconds: float
    label: str | None = None
    probability: float | None = None
    segments: tuple[tuple[float, float, str], ...] = ()
    text: str | None = None


def predict(
    folder: Path, files: Iterable[str | os.PathLike[str]], open_representation: Callable[[str], Representation]
) -> Iterator[Prediction]:
    """Predict for files, one after the other.

    Args:
        folder: What `save_probe` wrote.
        files: Audio, or features where the representation reads them.
        open_representation: Turns the stored name into the representation.

    Raises:
        CheckpointError: The folder holds no whole probe.
        DataError: A file is missing, bad, too short, or sound where features are read or the reverse.
    """
    probe = load_probe(folder, open_representation)
    for file in files:
        check_reads([os.fspath(file)], probe.representation.reads)
        yield predict_wave(probe, audio.read(file), os.fspath(file))


@torch.no_grad()
def predict_wave(probe: Probe, wave: Float[Tensor, " samples"], path: str = "") -> Prediction:
    """Predict for samples at 16 kHz.

    Raises:
        DataError: There are fewer samples than the representation needs for one step.
    """
    representation, outputs = probe.representation, probe.task.outputs
    seconds = len(wave) / SAMPLE_RATE
    if len(wave) < representation.receptive:
        raise DataError(
            f"{path or 'wave'}: {seconds:.3f} s are too short, expected at least "
            f"{representation.receptive / SAMPLE_RATE:.3f} s; "
            "leave it out"
        )
    probe.eval()
    logits, steps = probe.guess(Waves.pad([wave]).to(device_of(representation)))
    if probe.task.resolution == "utterance":
        probability, best = logits[0, 0].softmax(-1).max(-1)
        return Prediction(path, seconds, outputs[int(best)], float(probability))
    guesses = probe.task.say(logits[0, : int(steps[0])])
    if isinstance(probe.task, Transcript):
        return Prediction(path, seconds, text=probe.task.write(guesses))
    return Prediction(path, seconds, segments=_segments(guesses, representation, seconds))


def _segments(
    guesses: list[str], representation: Representation, seconds: float
) -> tuple[tuple[float, float, str], ...]:
    """Join equal neighbours; borders lie midway between the centres of two steps."""
    times = representation.grid.times(len(guesses)).tolist()
    half = representation.hop / SAMPLE_RATE / 2
    runs = [list(run) for _, run in groupby(enumerate(guesses), key=lambda each: each[1])]
    borders = [0.0, *(times[run[0][0]] - half for run in runs[1:]), seconds]
    return tuple((begin, end, run[0][1]) for (begin, end), run in zip(pairwise(borders), runs))
