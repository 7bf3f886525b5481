"""A CSV (or, as .tsv, tab-separated) list with a header: `path,label`, and if wanted `id,start,end,speaker,split,text`.

Paths are relative to the list's folder; `file_name`, as Hugging Face's audio folders call it, is taken for `path`, and
a folder's `metadata.csv` with either for its list. Any further column is a label; an empty cell is missing. Lengths are
measured.
"""

# ruff: noqa: PTH113, PTH120, PTH123 -- paths stay as written: names may not be UTF-8, links stay

import csv
import os
from collections.abc import Iterator

from mockingjay.audio import shown
from mockingjay.core.errors import DataError
from mockingjay.data.corpora.rows import Row, gathered, seconds
from mockingjay.data.corpora.tree import Tree, stem
from mockingjay.data.manifest import Corpus, resolve
from mockingjay.data.quarantine import Refusal

_OWN = ("path", "id", "start", "end", "speaker", "split", "text")
_PATHS = frozenset({"path", "file_name"})


def read_csv(tree: Tree) -> Corpus | None:
    """Read a list; None where the path is no .csv or .tsv file and no folder with a metadata.csv that lists audio.

    Raises:
        DataError: The list cannot be parsed; the first wrong line is named.
    """
    path = tree.root if tree.is_file else tree.path("metadata.csv")
    if not path.lower().endswith((".csv", ".tsv")) or not os.path.isfile(path):
        return None
    if not tree.is_file and not lists_audio(path):
        mend = "name the columns in its first line to have its labels"
        text = f"{shown(path)}: not read, for its first line names no path or file_name; {mend}"
        tree.refused.append(Refusal(path, "protocol", text, mend))
        return None
    return gathered(tree.name, path, rows_of(path))


def lists_audio(path: str) -> bool:
    """Whether a list's header names a column of files; also where it cannot be read, which its reader will say."""
    columns = header_of(path)
    return not columns or bool(columns & _PATHS)


def rows_of(path: str, split: str | None = None, prefix: str = "") -> Iterator[Row]:
    """Read a list's rows.

    Args:
        path: The list.
        split: Of rows that name none.
        prefix: Stands before ids that are made of paths.

    Raises:
        DataError: It cannot be parsed, or holds no rows.
    """
    folder, empty = os.path.dirname(path), True
    for where, row in cells(path, "path", {"file_name": "path"}):
        empty = False
        if "path" not in row:
            raise DataError(f"{where}: the path is empty, expected a file; fill it in, or remove the line")
        # A manifest saved as CSV: its columns are no labels.
        if "start" not in row and seconds(row.get("start_s", "0"), "start_s", where):
            what = f"start_s is {row['start_s']}, a manifest's column, expected start and end in seconds"
            raise DataError(f"{where}: {what}; write the list with these, or as a manifest (.jsonl)")
        yield Row(
            where=where,
            id=row.get("id") or prefix + shown(stem(row["path"])) + (f"@{row['start']}" if row.get("start") else ""),
            path=resolve(row["path"], folder, where),
            start=seconds(row.get("start", "0"), "start", where),
            end=seconds(row["end"], "end", where) if "end" in row else None,
            speaker=row.get("speaker"),
            split=row.get("split") or split,
            text=row.get("text"),
            labels={column: cell for column, cell in row.items() if column not in _OWN},
        )
    if empty:
        raise DataError(f"{shown(path)}: holds no rows below its header, expected one a file; write it again")


def header_of(path: str) -> frozenset[str]:
    """Read the names of a list's columns; none where it is no list, which its reader will say."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return frozenset(map(str.strip, next(csv.reader(file), [])))
    except (OSError, csv.Error, UnicodeDecodeError):
        return frozenset()


def cells(path: str, needed: str, renamed: dict[str, str] | None = None) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (where, row) of a list with a header, empty cells left out.

    Args:
        path: The list.
        needed: A column that must be there once.
        renamed: Column → what it is called here.

    Raises:
        DataError: It cannot be parsed.
    """
    delimiter = "\t" if path.lower().endswith(".tsv") else ","
    line = 1
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            columns = [(renamed or {}).get(name.strip(), name.strip()) for name in next(reader, [])]
            named = [name for place, name in enumerate(columns) if name or place]  # pandas leaves its index unnamed
            if columns.count(needed) != 1 or len(set(named)) < len(named) or "" in named:
                what = f"the header is {delimiter.join(columns)!r}, expected different names, {needed!r} among them"
                raise DataError(f"{shown(path)}:1: {what}; name the columns in the first line")
            for values in reader:
                line = reader.line_num
                if len(values) not in (0, len(columns)):
                    what = f"{len(values)} cells, expected {len(columns)} as in the header"
                    raise DataError(f"{shown(path)}:{line}: {what}; quote cells that hold a {delimiter!r}")
                row = {name: cell.strip() for name, cell in zip(columns, values) if name and cell.strip()}
                if row or values:
                    yield f"{shown(path)}:{line}", row
    except OSError as error:
        raise DataError(f"{shown(path)}: cannot be read ({error.strerror}), expected a list; check the path") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{shown(path)}:{line + 1}: not CSV in UTF-8 ({error}); mend that line") from None
