"""fairseq's lists: a `.tsv` whose first line is the root and whose others are `path<TAB>samples`.

The path is a list, or a folder of lists, each a split by its name. Files of the same name beside a list label its
lines in order: `.wrd` or, without it, `.ltr` are the words, `.phn` the label `phones`, `.km` the label `units`.
"""

# ruff: noqa: PTH120, PTH122 -- paths stay as written: names may not be UTF-8, links stay

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from mockingjay.audio import shown
from mockingjay.core.errors import DataError
from mockingjay.data.corpora.rows import Row, called, gathered
from mockingjay.data.corpora.tree import Tree, suffix
from mockingjay.data.lines import numbered
from mockingjay.data.manifest import Corpus, resolve

_ROW = re.compile(r"([^\t]+)\t(\d+)")
_LABELS = {"phn": "phones", "km": "units"}


def read_fairseq(tree: Tree) -> Corpus | None:
    """Read one list, or a folder's; None where no .tsv begins with a root.

    Raises:
        DataError: A line is wrong, labels are more or fewer than lines, or no audio can be used.
    """
    if tree.is_file:
        if not _is_list(tree.root):
            return None
        return gathered(tree.name, tree.root, _rows(tree.root, None))
    lists = [name for name in tree.lists if _is_list(tree.path(name))]
    if not lists:
        return None
    rows = (row for name in lists for row in _rows(tree.path(name), os.path.splitext(name)[0]))
    return gathered(tree.name, tree.root, rows)


def _is_list(path: str) -> bool:
    """Tell by the first two lines; a list with a header has tabs in the first."""
    if suffix(path) != ".tsv":
        return False
    try:
        first, second = ([line for _, line in islice(numbered(Path(path)), 2)] + ["", ""])[:2]
    except DataError:  # whoever reads it in the end will say so
        return False
    return bool(first) and "\t" not in first and _ROW.fullmatch(second) is not None


def _rows(path: str, split: str | None) -> Iterator[Row]:
    (number, root), *lines = numbered(Path(path), "a root, then lines of a path, a tab and a number of samples")
    root = resolve(root, os.path.dirname(path), f"{shown(path)}:{number}")
    labels = {name: _column(path, name, len(lines)) for name in ("wrd", "ltr", *_LABELS)}
    for place, (number, line) in enumerate(lines):
        where, match = f"{shown(path)}:{number}", _ROW.fullmatch(line)
        if not match:
            raise DataError(f"{where}: {line!r}, expected a path, a tab and a number of samples; mend that line")
        said = {name: values[place] for name, values in labels.items() if values and values[place]}
        audio = resolve(match[1], root, where)
        yield Row(
            where=where,
            id=called(audio, root),
            path=audio,
            split=split,
            text=said.get("wrd") or said.get("ltr", "").replace(" ", "").replace("|", " ").strip() or None,
            labels={column: said[name] for name, column in _LABELS.items() if name in said},
        )


def _column(path: str, name: str, count: int) -> list[str]:
    """Read the labels beside a list, a line for each of its rows; blank ones are missing labels."""
    beside = Path(os.path.splitext(path)[0] + f".{name}")
    if not beside.is_file():
        return []
    values = [line for _, line in numbered(beside, "a line of labels for each file", blanks=True)]
    if len(values) != count:
        what = f"{len(values)} lines for the {count} files of {shown(path)}, expected one each"
        raise DataError(f"{shown(beside)}: {what}; make both anew from the same list")
    return values
