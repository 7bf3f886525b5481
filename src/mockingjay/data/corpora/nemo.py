"""NeMo's manifests: JSON lines with `audio_filepath`, where known `offset`, `duration` (seconds), `text`, `speaker`.

The path is a manifest, or a folder of files called `…manifest….json` (or .jsonl), whose names say the split. Paths are
relative to the manifest's folder. Any further single value is a label.
"""

# ruff: noqa: PTH120 -- paths stay as written: names may not be UTF-8, links stay

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mockingjay.data.corpora.rows import Row, called, gathered, required, seconds, word
from mockingjay.data.corpora.tree import Tree
from mockingjay.data.lines import keys, tables
from mockingjay.data.manifest import Corpus, labels, resolve

_OWN = ("audio_filepath", "id", "offset", "duration", "text", "speaker", "split")
_NAME = re.compile(r".*\.jsonl?(\.gz)?", re.IGNORECASE)


def read_nemo(tree: Tree) -> Corpus | None:
    """Read one manifest, or a folder's; None where no first line names an `audio_filepath`.

    Raises:
        DataError: A line is wrong, or no audio can be used.
    """
    if tree.is_file:
        return gathered(tree.name, tree.root, _rows(tree.root, None)) if _is_list(tree.root) else None
    lists = [name for name in tree.lists if "manifest" in name.lower() and _is_list(tree.path(name))]
    if not lists:
        return None
    return gathered(tree.name, tree.root, (row for name in lists for row in _rows(tree.path(name), _split(name))))


def _is_list(path: str) -> bool:
    return _NAME.fullmatch(path) is not None and "audio_filepath" in keys(Path(path))


def _split(name: str) -> str | None:
    return re.sub(r"[_.-]*manifest[_.-]*", "", re.sub(r"\.jsonl?(\.gz)?$", "", name), flags=re.IGNORECASE) or None


def _rows(path: str, split: str | None) -> Iterator[Row]:
    folder = os.path.dirname(path)
    for where, row in tables(Path(path)):
        audio = resolve(required(row, "audio_filepath", where), folder, where)
        start = seconds(row.get("offset") or 0.0, "offset", where)
        duration = row.get("duration")
        yield Row(
            where=where,
            id=word(row, "id", where) or called(audio, folder, start),
            path=audio,
            start=start,
            end=None if duration is None else start + seconds(duration, "duration", where),
            speaker=word(row, "speaker", where),
            split=word(row, "split", where) or split,
            text=word(row, "text", where),
            labels=labels({column: value for column, value in row.items() if column not in _OWN}, where),
        )
