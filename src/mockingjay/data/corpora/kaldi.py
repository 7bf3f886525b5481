"""Kaldi's data folders: `wav.scp`, and beside it `segments`, `text`, `utt2spk`, `spk2gender`, where they are.

The path is a folder with a `wav.scp`, a folder of such folders (their names are the splits) or a list itself. Paths
begin at the list's folder, or where the recipe ran, up to two folders above. A line with a pipe is never run: it is
refused by name.
"""

# ruff: noqa: PTH120 -- paths stay as written: names may not be UTF-8, links stay

import math
import os
from collections.abc import Iterator
from pathlib import Path

from mockingjay.audio import shown
from mockingjay.core.errors import DataError
from mockingjay.data.corpora.rows import Row, anchored, gathered, seconds
from mockingjay.data.corpora.tree import Tree, suffix
from mockingjay.data.lines import keyed
from mockingjay.data.manifest import Corpus, resolve

_LIST = "wav.scp"


def read_kaldi(tree: Tree) -> Corpus | None:
    """Read one data folder, or several side by side; None where there is no `wav.scp`.

    Raises:
        DataError: A line is wrong or holds a command, or no audio can be used.
    """
    if tree.is_file:
        if suffix(tree.root) != ".scp":
            return None
        return gathered(tree.name, tree.root, _rows(tree.root, None))
    if tree.holds(_LIST):
        return gathered(tree.name, tree.path(_LIST), _rows(tree.path(_LIST), None))
    splits = [name for name in tree.folders if tree.holds(f"{name}/{_LIST}")]
    if not splits:
        return None
    return gathered(tree.name, tree.root, (row for name in splits for row in _rows(tree.path(f"{name}/{_LIST}"), name)))


def _rows(path: str, split: str | None) -> Iterator[Row]:
    folder = os.path.dirname(path)
    recordings = keyed(Path(path), "an id and a path")
    begin = anchored(folder, next((place for place, _ in recordings.values()), ""))
    beside = (keyed(Path(folder) / name, "an id and a value") for name in ("text", "utt2spk", "spk2gender"))
    texts, speakers, genders = ({id: rest for id, (rest, _) in rows.items()} for rows in beside)
    for id, recording, start, end, where in _stretches(path, recordings):
        # Who has no speakers writes the utterance's own id.
        speaker = speakers[id] if speakers.get(id) not in (None, "", id) else None
        gender = genders.get(speaker or "")
        yield Row(
            where=where,
            id=id,
            path=resolve(recordings[recording][0], begin, recordings[recording][1]),
            start=start,
            end=end,
            speaker=speaker,
            split=split,
            text=texts.get(id) or None,
            labels={"gender": gender.lower()} if gender else {},
        )


def _stretches(
    path: str, recordings: dict[str, tuple[str, str]]
) -> Iterator[tuple[str, str, float, float | None, str]]:
    """Yield (utterance, recording, start, end, where)."""
    for id, (place, where) in recordings.items():
        if not place:
            raise DataError(f"{where}: {id!r} alone, expected an id and a path; mend that line")
    segments = Path(path).with_name("segments")
    if not segments.is_file():
        yield from ((id, id, 0.0, None, where) for id, (_, where) in recordings.items())
    for id, (rest, where) in keyed(segments, "an utterance, its recording, start and end").items():
        fields = rest.split()
        if len(fields) != 3 or fields[0] not in recordings:
            what = f"{id} {rest}", f"expected 'utterance recording start end', the recording one of {shown(path)}"
            raise DataError(f"{where}: {what[0]!r}, {what[1]}; mend that line")
        end = seconds(fields[2], "end", where, -math.inf)
        # Kaldi writes -1 for the recording's end.
        yield id, fields[0], seconds(fields[1], "start", where), end if end >= 0 else None, where
