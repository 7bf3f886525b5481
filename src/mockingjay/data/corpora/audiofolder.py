"""Hugging Face's audio folders: `metadata.csv` or `.jsonl` with `file_name`, at the root or in each split's folder.

`text` or `transcription` is what is said, `speaker` or `speaker_id` who says it; any further single value is a label. A
`metadata.csv` at the root is read as any CSV is.
"""

# ruff: noqa: PTH120 -- paths stay as written: names may not be UTF-8, links stay

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mockingjay.data.corpora.csv import lists_audio, rows_of
from mockingjay.data.corpora.rows import Row, called, gathered, required, seconds, word
from mockingjay.data.corpora.tree import Tree, suffix
from mockingjay.data.lines import keys, tables
from mockingjay.data.manifest import Corpus, labels, resolve

_LISTS = ("metadata.jsonl", "metadata.csv")
_OWN = ("file_name", "id", "start", "end", "speaker", "speaker_id", "split", "text", "transcription")


def read_audiofolder(tree: Tree) -> Corpus | None:
    """Read a folder's list, or those of its splits; None where there is none.

    Raises:
        DataError: A line is wrong, or no audio can be used.
    """
    if tree.is_file:
        path = tree.root if suffix(tree.root) == ".jsonl" and "file_name" in keys(Path(tree.root)) else None
        return gathered(tree.name, path, _rows(path)) if path else None
    if tree.holds(_LISTS[0]):
        return gathered(tree.name, tree.path(_LISTS[0]), _rows(tree.path(_LISTS[0])))
    lists = [(folder, name) for folder in tree.folders for name in _LISTS if tree.holds(f"{folder}/{name}")]
    # A metadata.csv may be something else: LJSpeech's has no header.
    if tree.holds(_LISTS[1]) or not any(_lists_audio(tree.path(f"{folder}/{name}")) for folder, name in lists):
        return None
    rows = (row for folder, name in lists for row in _split(tree.path(f"{folder}/{name}"), folder))
    return gathered(tree.name, tree.root, rows)


def _lists_audio(path: str) -> bool:
    if suffix(path) == ".csv":
        return lists_audio(path)
    first = keys(Path(path))
    return not first or "file_name" in first


def _split(path: str, folder: str) -> Iterator[Row]:
    """Read the list of a split; ids made of paths begin with its folder, for two splits may number alike."""
    if suffix(path) == ".csv":
        return rows_of(path, folder, f"{folder}/")
    return (replace(row, id=f"{folder}/{row.id}", split=row.split or folder) for row in _rows(path))


def _rows(path: str) -> Iterator[Row]:
    folder = os.path.dirname(path)
    for where, row in tables(Path(path)):
        audio = resolve(required(row, "file_name", where), folder, where)
        start = seconds(row.get("start") or 0.0, "start", where)
        end = row.get("end")
        yield Row(
            where=where,
            id=word(row, "id", where) or called(audio, folder, start),
            path=audio,
            start=start,
            end=None if end is None else seconds(end, "end", where),
            speaker=word(row, "speaker", where) or word(row, "speaker_id", where),
            split=word(row, "split", where),
            text=word(row, "text", where) or word(row, "transcription", where),
            labels=labels({column: value for column, value in row.items() if column not in _OWN}, where),
        )
