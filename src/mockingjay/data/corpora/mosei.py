"""CMU-MOSEI: a list called `…mosei….csv` and the videos' audio, long (`<video>.wav`) or cut (`<video>_<index>.wav`).

Two lists are known: s3prl's `CMU_MOSEI_Labels.csv` (`file,index,start,end,label2a,label2b,…,split`) and Mockingjay's
`mosei_no_semi.csv` (`key,filename,start,end,sentiment`), whose folds are those of `cmu_mosei_std_folds.py`, where it
is there; it is read, never run. The speaker is the video, so that drawn parts never share one. Two classes, two rules:

- `sentiment`: positive above 0, negative below; |score| < 0.1 has no label (Mockingjay's code).
- `polarity`: negative below 0, nonnegative from 0 on (s3prl).
"""

# ruff: noqa: PTH119, PTH120 -- paths stay as written: names may not be UTF-8, links stay

import ast
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mockingjay.audio import shown
from mockingjay.core.errors import DataError
from mockingjay.data.corpora.csv import cells, header_of
from mockingjay.data.corpora.rows import Row, gathered, seconds
from mockingjay.data.corpora.tree import Tree, suffix
from mockingjay.data.manifest import Corpus

NEUTRAL = 0.1  # scores nearer to 0 have no `sentiment`: sentiment_threshold of the code

_SPLITS = {"0": "train", "1": "dev", "2": "test", "train": "train", "valid": "dev", "dev": "dev", "test": "test"}
_FOLDS = {"standard_train_fold": "train", "standard_valid_fold": "dev", "standard_test_fold": "test"}
_OWN = ("key", "file", "filename", "index", "start", "end", "sentiment", "label2a", "label2b", "split", "length")


def read_mosei(tree: Tree) -> Corpus | None:
    """Read MOSEI's list; None where there is none.

    Raises:
        DataError: A line is wrong, or no audio can be used.
    """
    if tree.is_file:
        listing, tree = tree.root, Tree(os.path.dirname(tree.root))
        if not _is_list(listing):
            return None
    else:
        listing = next(filter(_is_list, map(tree.path, tree.beside.values())), None)
    return gathered(tree.name, listing, _rows(tree, listing)) if listing else None


def _is_list(path: str) -> bool:
    """Tell by the name and the columns: many a list of emotions has those, and other values in them."""
    named = suffix(path) == ".csv" and "mosei" in os.path.basename(path).lower()
    columns = header_of(path) if named else frozenset()
    return columns >= {"start", "end"} and bool(columns & {"file", "filename"} and columns & {"sentiment", "label2b"})


def _rows(tree: Tree, listing: str) -> Iterator[Row]:
    folds = _folds(tree)
    needed = "file" if "file" in header_of(listing) else "filename"
    for where, row in cells(listing, needed):
        video = row.get(needed, "")
        id = row.get("key") or f"{video}_{row.get('index', row.get('start', ''))}"
        start, end = (seconds(row.get(name), name, where, -math.inf) for name in ("start", "end"))
        long = tree.named.get(video)
        found = long or tree.named.get(id)
        part = row.get("split")
        yield Row(
            where=where,
            id=id,
            path=tree.path(found) if found else None,
            start=max(0.0, start) if long else 0.0,  # some begin half a second before the video, and are cut there
            end=end if long else None,
            speaker=video,
            split=folds.get(video) if part is None else _SPLITS.get(part),  # 3 is no fold's
            labels={
                **{column: cell for column, cell in row.items() if column not in _OWN},
                **_classes(row, where),
            },
        )


def _classes(row: Mapping[str, str], where: str) -> dict[str, str]:
    column = "sentiment" if "sentiment" in row else "label2b"
    try:
        score = float(row[column])
    except (KeyError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        what = f"the {column} is {row.get(column)!r}, expected a number, below 0 for negative"
        raise DataError(f"{where}: {what}; correct it")
    strict = {"sentiment": "positive" if score > 0 else "negative"} if abs(score) >= NEUTRAL else {}
    negative = row["label2a"] == "0" if "label2a" in row else score < 0
    return {"score": f"{score:g}", "polarity": "negative" if negative else "nonnegative", **strict}


def _folds(tree: Tree) -> dict[str, str]:
    """Read which fold each video is in from the SDK's lists of names in Python, which are parsed and not run."""
    file = next((file for low, file in tree.beside.items() if low.endswith("cmu_mosei_std_folds.py")), None)
    if file is None:
        return {}
    folds: dict[str, str] = {}
    try:
        body = ast.parse(Path(tree.path(file)).read_text("utf-8")).body
        for node in (each for each in body if isinstance(each, ast.Assign)):
            for part in (_FOLDS[name] for name in map(ast.unparse, node.targets) if name in _FOLDS):
                folds.update(dict.fromkeys(map(str, ast.literal_eval(node.value)), part))
    except (OSError, ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        what = f"no lists of videos ({type(error).__name__})"
        raise DataError(f"{shown(tree.path(file))}: {what}, expected the SDK's folds; download it again") from None
    return folds
