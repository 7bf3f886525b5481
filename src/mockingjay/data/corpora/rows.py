"""What the readers of lists share: rows that name files, or stretches of them, become utterances."""

# ruff: noqa: PTH110, PTH118, PTH120 -- paths stay as written: names may not be UTF-8, links stay

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mockingjay.audio import AudioError, Header, fault, shown
from mockingjay.core.errors import DataError
from mockingjay.core.types import Utterance
from mockingjay.data.alignments import Alignment
from mockingjay.data.corpora.tree import measure, stem
from mockingjay.data.manifest import OWN, Corpus
from mockingjay.data.quarantine import Refusal

OVERSHOOT = 0.5  # seconds that a stretch may be listed beyond its file's end, as Kaldi's extract-segments has it


@dataclass(frozen=True, slots=True)
class Row:
    """A line that names audio, and what it says of it."""

    where: str  # file:line
    id: str
    path: str | None  # absolute; None where no file has the listed name
    start: float = 0.0  # seconds
    end: float | None = None  # seconds; None is the file's end
    speaker: str | None = None
    split: str | None = None
    text: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    alignment: Alignment | None = None


def gathered(name: str, listing: str, rows: Iterable[Row], refused: Iterable[Refusal] = ()) -> Corpus:
    """Measure the files, each once, and cut them as the rows say.

    Args:
        name: Of the corpus.
        listing: The list, or the folder of lists, for the errors.
        rows: In order.
        refused: What is known to be unusable already.

    Raises:
        DataError: There are no rows, an id stands twice, a row's times are wrong, or no file can be used.
    """
    rows = tuple(rows)
    if not rows:
        raise DataError(f"{shown(listing)}: holds no rows, expected one a file; write it again")
    paths = tuple(dict.fromkeys(row.path for row in rows if row.path is not None))
    headers = dict(zip(paths, measure(paths), strict=True))
    lines: dict[str, int] = {}
    utterances, refusals = [], list(refused)
    for number, row in enumerate(rows, 1):
        if row.id in lines:
            what = f"id {row.id!r} stands already in row {lines[row.id]}"
            raise DataError(f"{row.where}: {what}, expected each id once; add an id column, or remove one of them")
        lines[row.id] = number
        found = headers[row.path] if row.path is not None else _unnamed(row)
        if not isinstance(found, AudioError):
            found = _utterance(row, found)
        if isinstance(found, AudioError):
            refusals.append(Refusal.of(found, row.id))
        else:
            utterances.append(found)
    if not utterances:
        what = f"none of its {len(paths) or len(rows)} files can be used, expected at least one"
        raise DataError(f"{shown(listing)}: {what}; the first says: {refusals[0].text}")
    return Corpus(name, tuple(utterances), tuple(refusals))


def _unnamed(row: Row) -> AudioError:
    what = f"no audio file is named {row.id!r}, expected one below the corpus's folder"
    return fault(row.where, "missing", what, "unpack it there, or remove the line")


def _utterance(row: Row, header: Header) -> Utterance | AudioError:
    assert row.path is not None
    if row.end is not None and row.end <= row.start:
        what = f"the end is {row.end:g} s, expected more than the start ({row.start:g} s)"
        raise DataError(f"{row.where}: {what}; correct it")
    end = header.seconds if row.end is None else row.end
    if row.start >= header.seconds or end > header.seconds + OVERSHOOT:
        name, time = ("start", row.start) if row.start >= header.seconds else ("end", end)
        what = f"the {name} is {time:g} s, but the file holds {header.seconds:g} s"
        return fault(row.where, "range", what, "correct it, or copy the file again from its source")
    return Utterance(
        id=shown(row.id),
        path=row.path,
        seconds=min(end, header.seconds) - row.start,
        start=row.start,
        speaker=row.speaker,
        split=row.split,
        text=row.text,
        labels={column: value for column, value in row.labels.items() if column not in OWN},
        alignment=row.alignment,
    )


def called(path: str, folder: str, start: float = 0.0) -> str:
    """Make an id for a listed file: its place below the list's folder without the suffix, and where it begins."""
    inside = stem(path.removeprefix(folder + os.sep).lstrip(os.sep))
    return shown(inside) + (f"@{start:g}" if start else "")


def anchored(folder: str, path: str) -> str:
    """Choose the folder that a list's relative paths begin at, by its first path: the list's, or up to two above it.

    Kaldi, icefall and their like write paths as seen from the recipe, `data/train/wav.scp` two folders below.
    """
    above = (folder, os.path.dirname(folder), os.path.dirname(os.path.dirname(folder)))
    return next((each for each in above if os.path.exists(os.path.join(each, path))), folder)


def seconds(value: Any, column: str, where: str, least: float = 0.0) -> float:
    """Read a time.

    Raises:
        DataError: It is no finite number, or less than the least.
    """
    try:
        time = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        time = math.nan
    if not least <= time < math.inf:
        bound = f"{least:g} or more" if least > -math.inf else "a finite number"
        raise DataError(f"{where}: the {column} is {value!r}, expected seconds, {bound}; correct it")
    return time


def word(row: Mapping[str, Any], key: str, where: str) -> str | None:
    """Read a text of a JSON object; whole numbers are taken as they are written, null and missing are None.

    Raises:
        DataError: It is something else.
    """
    value = row.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return repr(value)
    if value is None or isinstance(value, str):
        return value or None
    raise DataError(f"{where}: key '{key}' is {value!r}, expected a text or null; mend that line")


def required(row: Mapping[str, Any], key: str, where: str) -> str:
    """Read a text that must be there.

    Raises:
        DataError: It is not.
    """
    value = word(row, key, where)
    if value is None:
        raise DataError(f"{where}: key '{key}' is missing or empty, expected a text; mend that line")
    return value
