"""A CSV (or, as .tsv, tab-separated) list with a header: `path,label`, and if wanted `id,start,end,speaker,split,text`.

Paths are relative to the list's folder; `file_name`, as Hugging Face's audio folders call it, is taken for `path`, and
a folder's `metadata.csv` for its list. Any further column is a label; an empty cell is missing. Lengths are measured.
"""

# ruff: noqa: PTH113, PTH120, PTH123 -- paths stay as written: names may not be UTF-8, links stay

import csv
import math
import os
from collections.abc import Iterator

from mockingjay.audio import AudioError, Header, shown
from mockingjay.core.errors import DataError
from mockingjay.core.types import Utterance
from mockingjay.data.corpora.tree import Tree, measure, stem
from mockingjay.data.manifest import Corpus, resolve
from mockingjay.data.quarantine import Refusal

_OWN = ("path", "id", "start", "end", "speaker", "split", "text")


def read_csv(tree: Tree) -> Corpus | None:
    """Read a list; None where the path is no .csv or .tsv file and no folder with a metadata.csv.

    Raises:
        DataError: The list cannot be parsed; the first wrong line is named.
    """
    path = tree.root if tree.is_file else tree.path("metadata.csv")
    if not path.lower().endswith((".csv", ".tsv")) or not os.path.isfile(path):
        return None
    folder = os.path.dirname(path)
    rows = list(_rows(path))
    if not rows:
        raise DataError(f"{shown(path)}: holds no rows below its header, expected one a file; write it again")
    lines: dict[str, int] = {}
    utterances, refused = [], []
    found = measure(resolve(row["path"], folder, where) for where, row in rows)
    for number, ((where, row), header) in enumerate(zip(rows, found, strict=True)):
        id = row.get("id") or shown(stem(row["path"])) + (f"@{row['start']}" if row.get("start") else "")
        if id in lines:
            what = f"id {id!r} stands already in row {lines[id] + 1}"
            raise DataError(f"{where}: {what}, expected each id once; add an id column, or remove one of them")
        lines[id] = number
        if isinstance(header, AudioError):
            refused.append(Refusal.of(header, id))
        else:
            utterances.append(_utterance(id, row, resolve(row["path"], folder, where), header, where))
    if not utterances:
        what = f"none of its {len(rows)} files can be used, expected at least one"
        raise DataError(f"{shown(path)}: {what}; the first says: {refused[0].text}")
    return Corpus(tree.name, tuple(utterances), tuple(refused))


def _rows(path: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (where, row), empty cells left out."""
    delimiter = "\t" if path.lower().endswith(".tsv") else ","
    line = 1
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            columns = ["path" if name.strip() == "file_name" else name.strip() for name in next(reader, [])]
            if columns.count("path") != 1 or len(set(columns)) < len(columns) or "" in columns:
                what = f"the header is {delimiter.join(columns)!r}, expected different names, 'path' among them"
                raise DataError(f"{shown(path)}:1: {what}; name the columns in the first line")
            for cells in reader:
                line = reader.line_num
                if len(cells) not in (0, len(columns)):
                    what = f"{len(cells)} cells, expected {len(columns)} as in the header"
                    raise DataError(f"{shown(path)}:{line}: {what}; quote cells that hold a {delimiter!r}")
                row = {column: cell.strip() for column, cell in zip(columns, cells) if cell.strip()}
                if cells and "path" not in row:
                    raise DataError(
                        f"{shown(path)}:{line}: the path is empty, expected a file; fill it in, or remove the line"
                    )
                if row:
                    yield f"{shown(path)}:{line}", row
    except OSError as error:
        raise DataError(f"{shown(path)}: cannot be read ({error.strerror}), expected a list; check the path") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{shown(path)}:{line + 1}: not CSV in UTF-8 ({error}); mend that line") from None


def _utterance(id: str, row: dict[str, str], path: str, header: Header, where: str) -> Utterance:
    start = _seconds(row, "start", where) or 0.0
    end = _seconds(row, "end", where)
    if end is not None and end <= start:
        raise DataError(f"{where}: the end is {end:g} s, expected more than the start ({start:g} s); correct it")
    if start >= header.seconds:
        what = f"the start is {start:g} s, but the file holds {header.seconds:g} s"
        raise DataError(f"{where}: {what}; correct it")
    return Utterance(
        id=id,
        path=path,
        seconds=(header.seconds if end is None else end) - start,
        start=start,
        speaker=row.get("speaker"),
        split=row.get("split"),
        text=row.get("text"),
        labels={column: cell for column, cell in row.items() if column not in _OWN},
    )


def _seconds(row: dict[str, str], column: str, where: str) -> float | None:
    text = row.get(column)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise DataError(f"{where}: the {column} is {text!r}, expected seconds, 0 or more; correct it")
    return value
