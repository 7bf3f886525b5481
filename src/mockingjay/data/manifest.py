"""A corpus is a list of utterances; on disk it is JSONL, one utterance a line, read strictly.

A line holds `id`, `path` (relative to the manifest's folder, or absolute), `duration_s`, and where known `start_s`,
`speaker`, `split`, `text`, `alignment` ([[start s, end s, phone], …] from the utterance's start). Any other key with a
single value becomes a label; other lists and tables are not ours and are passed over.
"""

# ruff: noqa: PTH100, PTH118, PTH119 -- paths stay as written: names may not be UTF-8, links stay

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mockingjay.audio import shown
from mockingjay.core.errors import DataError
from mockingjay.core.files import replacing
from mockingjay.core.types import Utterance
from mockingjay.data.lines import numbered, table
from mockingjay.data.quarantine import Refusal

OWN = frozenset({"id", "path", "duration_s", "start_s", "speaker", "split", "text", "alignment"})  # never labels


@dataclass(frozen=True, slots=True)
class Corpus:
    """Utterances under one name, and the files that were found but cannot be used."""

    name: str
    utterances: tuple[Utterance, ...]
    refused: tuple[Refusal, ...] = ()

    @property
    def seconds(self) -> float:
        """Length of all utterances."""
        return math.fsum(utterance.seconds for utterance in self.utterances)

    @property
    def speakers(self) -> tuple[str, ...]:
        """The known speakers, sorted."""
        return tuple(sorted({utterance.speaker for utterance in self.utterances if utterance.speaker is not None}))


def amount(utterances: Sequence[Utterance]) -> str:
    """Say how much there is: `N utterances, H h`."""
    return f"{len(utterances)} utterances, {math.fsum(each.seconds for each in utterances) / 3600:.2f} h"


def read_manifest(path: str | os.PathLike[str]) -> Corpus:
    """Read a manifest; the corpus is named after the manifest's folder.

    Raises:
        DataError: The file is missing or empty, or a line is wrong; the first wrong line is named.
    """
    path = Path(path)
    folder = os.path.abspath(path.parent)
    utterances: list[Utterance] = []
    lines: dict[str, int] = {}  # id → line
    again: list[tuple[int, str]] = []
    for number, text in numbered(path, "a manifest"):
        utterance = _utterance(table(text, f"{shown(path)}:{number}"), folder, f"{shown(path)}:{number}")
        if utterance.id in lines:
            again.append((number, utterance.id))
        lines.setdefault(utterance.id, number)
        utterances.append(utterance)
    if again:
        number, id = again[0]
        named = ", ".join(repr(id) for _, id in again[:5])
        what = f"id {id!r} stands already on line {lines[id]} ({len(again)} lines repeat an id: {named})"
        raise DataError(f"{shown(path)}:{number}: {what}, expected each id once; rename or remove one of them")
    if not utterances:
        raise DataError(f"{shown(path)}: holds no utterances, expected one JSON object a line; write it again")
    return Corpus(shown(os.path.basename(folder)), tuple(utterances))


def write_manifest(path: str | os.PathLike[str], utterances: Iterable[Utterance]) -> None:
    """Write a manifest in one rename; paths below its folder are written relative to it.

    Raises:
        MachineError: The file cannot be written.
    """
    path = Path(path)
    folder = os.path.abspath(path.parent) + os.sep
    with replacing(path, 0) as file:
        file.writelines(f"{_line(utterance, folder)}\n".encode() for utterance in utterances)


def select(utterances: Iterable[Utterance], where: Mapping[str, str]) -> tuple[Utterance, ...]:
    """Keep the utterances whose columns have these values.

    Raises:
        DataError: None has; the column's values are listed.
    """
    kept = tuple(utterances)
    for column, value in where.items():
        found = sorted({label for utterance in kept if (label := utterance.label(column)) is not None})
        kept = tuple(utterance for utterance in kept if utterance.label(column) == value)
        if not kept:
            known = ", ".join(found[:10]) + (" …" if len(found) > 10 else "") if found else "no values at all"
            raise DataError(f"{column}={value}: no utterance has it, expected one of: {known}; choose one of them")
    return kept


def _utterance(row: dict[str, Any], folder: str, where: str) -> Utterance:
    id = _text(row, "id", where, required=True)
    if any(ord(mark) < 32 or 0x7F <= ord(mark) < 0xA0 or 0xD800 <= ord(mark) < 0xE000 for mark in id):
        raise DataError(f"{where}: id {id!r} holds control characters, expected printable ones; rename it")
    seconds = _number(row, "duration_s", where)
    if seconds is None or seconds <= 0:
        mend = "measure it, or list the files in a CSV with the header path,label, whose lengths are measured"
        raise DataError(f"{where}: duration_s is {seconds}, expected the length in seconds; {mend}")
    return Utterance(
        id=id,
        path=resolve(_text(row, "path", where, required=True), folder, where),
        seconds=seconds,
        start=_number(row, "start_s", where) or 0.0,
        speaker=_text(row, "speaker", where),
        split=_text(row, "split", where),
        text=_text(row, "text", where),
        labels=labels(row, where),
        alignment=_alignment(row.get("alignment"), where),
    )


def resolve(path: str, folder: str, where: str) -> str:
    """Make a listed path absolute.

    Raises:
        DataError: It is no path of a file: a URL, or a command to be run.
    """
    start = path.lstrip()
    if "://" in path or start.startswith(("pipe:", "|")) or path.rstrip().endswith("|") or "\0" in path:
        what = f"path {path!r} is a URL or a command, expected a file's path"
        raise DataError(f"{where}: {what}; nothing is fetched or run: write the audio to files first")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise DataError(f"{where}: path {path!r} is no text, expected a file's path; mend that line") from None
    return os.path.normpath(os.path.join(folder, path))


def _text(row: dict[str, Any], key: str, where: str, required: bool = False) -> Any:
    value = row.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and not required:
        value = repr(value)  # speakers are often numbers
    if (value is None and not required) or (isinstance(value, str) and (value or not required)):
        if key in ("speaker", "split"):
            return sys.intern(value) if value else None  # all that name nobody are not one speaker
        return value
    shape = "a text" if required else "a text or null"
    what = f"key '{key}' is missing" if key not in row else f"key '{key}' is {value!r}"
    raise DataError(f"{where}: {what}, expected {shape}; mend that line")


def _number(row: dict[str, Any], key: str, where: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if _is_number(value) and 0 <= value < math.inf:
        return float(value)
    raise DataError(f"{where}: key '{key}' is {value!r}, expected seconds, 0 or more; mend that line")


def labels(row: Mapping[str, Any], where: str) -> dict[str, str]:
    """Write a JSON object's further single values as labels; nulls, lists and tables are passed over.

    Raises:
        DataError: One is not finite.
    """
    texts = {sys.intern(key): _label(value, key, where) for key, value in row.items() if key not in OWN}
    return {key: text for key, text in texts.items() if text is not None}


def _label(value: Any, key: str, where: str) -> str | None:
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{where}: key '{key}' is {value}, expected a finite number; use null for what is missing")
    return repr(value) if isinstance(value, (int, float)) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _alignment(rows: Any, where: str) -> tuple[tuple[float, float, str], ...] | None:
    if rows is None:
        return None
    if not isinstance(rows, list):
        raise DataError(f"{where}: key 'alignment' is {rows!r}, expected [[start, end, phone], …]; mend that line")
    intervals = []
    before = 0.0
    for row in rows:
        good = isinstance(row, list) and len(row) == 3 and _is_number(row[0]) and _is_number(row[1])
        if not (good and before <= row[0] <= row[1] < math.inf and isinstance(row[2], str) and row[2]):
            what = f"alignment holds {row!r}, expected [start, end, phone] in seconds, in order"
            raise DataError(f"{where}: {what}; mend that line")
        before = row[0]
        intervals.append((float(row[0]), float(row[1]), sys.intern(row[2])))
    return tuple(intervals)


def _line(utterance: Utterance, folder: str) -> str:
    assert not OWN & utterance.labels.keys(), utterance
    row = {
        "id": utterance.id,
        "path": utterance.path.removeprefix(folder),
        "duration_s": utterance.seconds,
        "start_s": utterance.start or None,
        "speaker": utterance.speaker,
        "split": utterance.split,
        "text": utterance.text,
        **utterance.labels,
        "alignment": utterance.alignment,
    }
    row = {key: value for key, value in row.items() if value is not None}
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a name that is not UTF-8 travels in escapes
        return json.dumps(row, allow_nan=False)
    return text
