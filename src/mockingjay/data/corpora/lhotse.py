"""Lhotse's manifests as JSON lines, packed or not: recordings with their supervisions, or cuts.

The path is one list, or a folder of lists, whose names (`librispeech_cuts_train.jsonl.gz`) say the split. Every
supervision is an utterance, and so is every recording or cut without one; a cut with one supervision is taken whole.
What cannot be read as one stretch of one file (commands, URLs, mixtures, perturbed audio, one channel of several) is
refused by name.
"""

# ruff: noqa: PTH118, PTH119, PTH120 -- paths stay as written: names may not be UTF-8, links stay

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mockingjay.audio import shown
from mockingjay.core.errors import DataError
from mockingjay.data.alignments import Alignment, ordered
from mockingjay.data.corpora.rows import Row, anchored, gathered, required, seconds, word
from mockingjay.data.corpora.tree import Tree
from mockingjay.data.lines import keys, tables
from mockingjay.data.manifest import Corpus, labels, resolve

_NAME = re.compile(r"(?:.*?[_.-])?(cuts|recordings|supervisions)(?:[_.-](.+?))?\.jsonl(?:\.gz)?", re.IGNORECASE)
_FILES = "write its audio to files of their own first"


def read_lhotse(tree: Tree) -> Corpus | None:
    """Read one list, or a folder's; None where no first line is Lhotse's.

    Raises:
        DataError: A line is wrong, or asks for more than a stretch of a file; or no audio can be used.
    """
    folder, names = os.path.split(tree.root) if tree.is_file else (tree.root, "")
    kinds = {name: kind for name in ([names] if names else tree.lists) if (kind := _kind(os.path.join(folder, name)))}
    if not kinds:
        return None
    lists = [name for name, kind in kinds.items() if kind == "cuts"]
    rows = (row for name in lists for row in _cuts(os.path.join(folder, name)))
    if not lists:
        lists = sorted({_other(name, "recordings") for name in kinds})
        rows = (row for name in lists for row in _segments(os.path.join(folder, name)))
    return gathered(tree.name, tree.root, rows)


def _kind(path: str) -> str | None:
    """Tell by the first line what a list holds."""
    if not re.fullmatch(r".*\.jsonl(\.gz)?", path, re.IGNORECASE):
        return None
    first = keys(Path(path))
    if first >= {"id", "sources"}:
        return "recordings"
    if first >= {"id", "recording_id", "start"}:
        return "supervisions"
    return "cuts" if first >= {"id", "type"} and first & {"supervisions", "recording", "tracks"} else None


def _other(name: str, kind: str) -> str:
    """Name the list that belongs to another."""
    return re.sub("recordings|supervisions", kind, name, count=1, flags=re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Recording:
    path: str
    channels: frozenset[int]


def _recording(row: Any, begin: str, where: str) -> _Recording:
    sources = row.get("sources") if isinstance(row, dict) else None
    if not (isinstance(sources, list) and len(sources) == 1 and isinstance(sources[0], dict)):
        raise DataError(f"{where}: no single source, expected a recording of one file; {_FILES}")
    kind, source, changed = sources[0].get("type"), required(sources[0], "source", where), row.get("transforms")
    if kind != "file" or changed:
        what = f"changed on the fly ({changed})" if changed else f"of type {kind!r}, which is not fetched or run"
        raise DataError(f"{where}: the recording is {what}, expected a file as it is; {_FILES}")
    return _Recording(resolve(source, begin, where), _channels(row.get("channel_ids") or sources[0].get("channels")))


def _channels(value: Any) -> frozenset[int]:
    found = value if isinstance(value, list) else [value]
    return frozenset(each for each in found if isinstance(each, int))


def _begin(path: str) -> str:
    """Find the folder that a list's relative sources begin at, by the first."""
    _, row = next(tables(Path(path)), ("", {}))
    try:
        source = str(row.get("recording", row)["sources"][0]["source"])
    except (KeyError, IndexError, TypeError):  # its reader will say so
        source = ""
    return anchored(os.path.dirname(path), source)


def _split(path: str) -> str | None:
    found = _NAME.fullmatch(os.path.basename(path))
    return found[2] if found else None


def _segments(path: str) -> Iterator[Row]:
    """Read a list of recordings, and the supervisions beside it."""
    begin, split, recordings, places = _begin(path), _split(path), {}, {}
    for where, row in tables(Path(path)):
        id = required(row, "id", where)
        recordings[id], places[id] = _recording(row, begin, where), where
    beside, said = Path(path).with_name(_other(os.path.basename(path), "supervisions")), set()
    for where, row in tables(beside) if beside.is_file() and beside != Path(path) else ():
        id = required(row, "recording_id", where)
        if id not in recordings:
            what = f"recording {id!r} is not in {shown(path)}, expected one of its {len(recordings)}"
            raise DataError(f"{where}: {what}; make both lists from the same corpus")
        said.add(id)
        yield _row(where, row, recordings[id], split)
    yield from (
        Row(where=places[id], id=id, path=recording.path, split=split)
        for id, recording in recordings.items()
        if id not in said
    )


def _cuts(path: str) -> Iterator[Row]:
    begin, split = _begin(path), _split(path)
    for where, row in tables(Path(path)):
        if "recording" not in row or row.get("tracks"):
            what = f"a {row.get('type', 'cut')} without a recording of its own"
            raise DataError(f"{where}: {what}, expected cuts of single recordings; {_FILES}")
        recording = _recording(row["recording"], begin, where)
        supervisions = row.get("supervisions") or []
        if not all(isinstance(each, dict) for each in [*supervisions, *[row.get("custom") or {}]]):
            raise DataError(f"{where}: the supervisions are {supervisions!r}, expected objects; mend that line")
        # Times of a cut's supervisions begin with the cut.
        shift = seconds(row.get("start", 0.0), "start", where)
        whole = {key: row.get(key) for key in ("id", "duration", "channel")}
        for said in supervisions if len(supervisions) > 1 else [{**dict(*supervisions), "start": 0.0, **whole}]:
            custom = {**(row.get("custom") or {}), **(said.get("custom") or {})}
            yield _row(where, {**said, "custom": custom}, recording, split, shift)


def _row(where: str, said: Mapping[str, Any], recording: _Recording, split: str | None, shift: float = 0.0) -> Row:
    if said.get("channel") is not None and _channels(said["channel"]) != recording.channels:
        what = f"channel {said['channel']} of {sorted(recording.channels)}"
        raise DataError(f"{where}: {what}, expected all that the recording has; {_FILES}")
    custom = said.get("custom") or {}
    if not isinstance(custom, dict):
        raise DataError(f"{where}: key 'custom' is {custom!r}, expected an object or null; mend that line")
    known = {key: said.get(key) for key in ("language", "gender")}
    start = shift + seconds(said.get("start"), "start", where, 0.0 - shift)
    return Row(
        where=where,
        id=required(said, "id", where),
        path=recording.path,
        start=max(0.0, start),
        end=start + seconds(said.get("duration"), "duration", where),
        speaker=word(said, "speaker", where),
        split=word(custom, "split", where) or split,
        text=word(said, "text", where),
        labels=labels({**custom, **known}, where),
        alignment=_alignment(said, shift - start, where),
    )


def _alignment(said: Mapping[str, Any], shift: float, where: str) -> Alignment | None:
    """Read the phones' times, which begin where the supervision's own time does."""
    kinds = said.get("alignment") or {}
    items = next((kinds[name] for name in ("phone", "phones", "phoneme") if name in kinds), None)
    if not items:
        return None
    intervals = []
    for item in items:
        values = list(item.values()) if isinstance(item, dict) else item
        if not (isinstance(values, list) and len(values) >= 3 and isinstance(values[0], str) and values[0]):
            raise DataError(f"{where}: alignment holds {item!r}, expected [phone, start, duration]; mend that line")
        start = max(0.0, round(shift + seconds(values[1], "phone's start", where), 6))
        end = round(start + seconds(values[2], "phone's duration", where), 6)
        intervals.append((start, end, values[0]))
    return ordered(where, intervals)
