"""Phone times in CSV: `start,end,phone` beside an audio file, under its name, or `id,start,end,phone` at the root.

Times are seconds, of an utterance in order; a phone that is not named is `sil`, and further columns are passed over.
The Montreal aligner's `Begin,End,Label,Type,Speaker` is read as well: its rows of phones, beside the audio. A file with
other columns, or with a `path`, is another list and none of these.
"""

from mockingjay.core.errors import DataError
from mockingjay.data.alignments import Alignment, check_order
from mockingjay.data.corpora.csv import cells, header_of
from mockingjay.data.corpora.rows import seconds
from mockingjay.data.phones import SILENCE

_TIMES = frozenset({"start", "end", "phone"})
_MFA = {"Begin": "start", "End": "end", "Label": "phone"}
_LISTS = frozenset({"path", "file_name"})  # columns of a list of audio


def read_beside(path: str) -> Alignment | None:
    """Read the phone times of one audio file; None where the file is about something else.

    Raises:
        DataError: A line is wrong; it is named.
    """
    columns = header_of(path)
    if columns >= {*_MFA, "Type"}:
        return _read(path, _MFA).get("", ())
    if columns >= _TIMES and not columns & {"id", *_LISTS}:
        return _read(path).get("", ())
    return None


def read_by_id(path: str) -> dict[str, Alignment]:
    """Read phone times by utterance; none where the file is about something else.

    Raises:
        DataError: A line is wrong; it is named.
    """
    columns = header_of(path)
    return _read(path) if columns >= {"id", *_TIMES} and not columns & _LISTS else {}


def _read(path: str, renamed: dict[str, str] | None = None) -> dict[str, Alignment]:
    """Read intervals by id, or under no name where there is no such column."""
    named = "id" in header_of(path)
    found: dict[str, list[tuple[float, float, str]]] = {}
    for where, row in cells(path, "phone", renamed):
        if renamed and row.get("Type") != "phones":
            continue
        if named and "id" not in row:
            raise DataError(f"{where}: the id is empty, expected an utterance's; fill it in, or remove the line")
        start, end = (seconds(row.get(column), column, where) for column in ("start", "end"))
        intervals = found.setdefault(row.get("id", ""), [])
        intervals.append((start, end, row.get("phone", SILENCE)))
        check_order(where, intervals[-1], intervals[-2][0] if len(intervals) > 1 else 0.0)
    return {id: tuple(intervals) for id, intervals in found.items()}
