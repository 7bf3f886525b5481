"""The CPC authors' alignments and splits of LibriSpeech's train-clean-100, as TERA's and s3prl's phone tasks use them.

`converted_aligned_phones.txt` has a line of `utterance int int …` for each: one of 41 phones every 10 ms. Frames are
Kaldi's, 400 samples every 160 and none beyond the edges, so label k lies around 10 k + 12.5 ms and an utterance of n
samples has (n - 400) // 160 + 1 of them. Phones have no published names: their numbers are their names.

`train_split.txt` and `test_split.txt` list ids; dev is a tenth of train, drawn as s3prl draws it.
"""

import random
from pathlib import Path

import numpy as np
from jaxtyping import Int

from mockingjay.audio import Header, shown
from mockingjay.core.errors import DataError
from mockingjay.core.types import SAMPLE_RATE
from mockingjay.data.alignments import Alignment
from mockingjay.data.corpora.listing import Elsewhere
from mockingjay.data.corpora.tree import Tree
from mockingjay.data.lines import numbered

LABELS = "converted_aligned_phones.txt"
SPLITS = ("train_split.txt", "test_split.txt")

_WINDOW, _HOP = 400, 160  # samples
_NUMBERS = "0123456789 "
_SEED, _DEV = 1337, 0.1  # s3prl's phone_linear


def found(tree: Tree, name: str) -> str | None:
    """Find a file by its name, anywhere below the root."""
    return next((tree.path(file) for low, file in tree.beside.items() if low.rpartition("/")[2] == name), None)


def phone_times(path: str) -> Elsewhere:
    """Read the alignments.

    Raises:
        DataError: A line is no id and numbers, or an id stands twice.
    """
    labels: dict[str, tuple[int, int, Alignment]] = {}  # id → (line, labels, runs of the same one)
    for number, line in numbered(Path(path), "lines of an utterance and its phones"):
        id, _, text = line.partition(" ")
        if not text or text.strip(_NUMBERS) or id in labels:
            what = f"{id!r} stands twice" if id in labels else f"{line[:60]!r}"
            raise DataError(f"{shown(path)}:{number}: {what}, expected an utterance's id and numbers; mend that line")
        phones = np.fromstring(text, np.int64, sep=" ")
        labels[id] = (number, len(phones), _runs(phones))

    def times(id: str, header: Header) -> Alignment | None:
        number, count, runs = labels.get(id, (0, 0, None))
        samples = round(header.seconds * SAMPLE_RATE)
        expected = max(0, (samples - _WINDOW) // _HOP + 1)
        if runs is not None and count != expected:
            what = f"{count} labels of {id!r}, expected {expected} for its {samples} samples"
            raise DataError(f"{shown(path)}:{number}: {what}; take the audio that was aligned")
        return runs

    return times


def _runs(phones: Int[np.ndarray, " labels"]) -> Alignment:
    """Join neighbours; label k is said from half a hop before its frame's middle to half a hop after."""
    firsts = np.flatnonzero(np.diff(phones, prepend=-1))
    edges = (np.append(firsts, len(phones)) * _HOP + (_WINDOW - _HOP) // 2) / SAMPLE_RATE
    times = edges.tolist()
    return tuple(zip(times[:-1], times[1:], map(str, phones[firsts].tolist())))


def splits(tree: Tree) -> dict[str, str]:
    """Read which split each utterance is in; nothing where there are no lists.

    Raises:
        DataError: A line is no id, or an utterance stands twice.
    """
    ids: dict[str, str] = {}
    for name in SPLITS:
        path = found(tree, name)
        for number, id in numbered(Path(path), "an utterance's id a line") if path else ():
            if id in ids or len(id.split()) > 1:
                what = f"{id!r} stands twice" if id in ids else f"{id!r}"
                raise DataError(f"{shown(path or '')}:{number}: {what}, expected one id a line, each once; mend it")
            ids[id] = name.partition("_")[0]
    train = [id for id, split in ids.items() if split == "train"]
    random.Random(_SEED).shuffle(train)  # noqa: S311 -- as published
    return {**ids, **dict.fromkeys(train[int((1 - _DEV) * len(train)) :], "dev")}
