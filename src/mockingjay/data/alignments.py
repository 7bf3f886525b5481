"""When each phone is said: readers of the usual files.

Times are seconds from the start of the audio; a phone's name is as written, except that an interval without a name is
`sil`.
"""

import math
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from praatio import textgrid as praat
from praatio.data_classes.interval_tier import IntervalTier
from praatio.utilities import errors as praat_errors
from praatio.utilities.constants import Interval

from mockingjay.audio import shown
from mockingjay.core.errors import DataError
from mockingjay.data.phones import SILENCE

Alignment: TypeAlias = tuple[tuple[float, float, str], ...]

_TIERS = ("phones", "phone", "phonemes", "phoneme", "segments")  # how the names of phone tiers end, "ann - phones" too


def fold(alignment: Alignment, table: Mapping[str, str]) -> Alignment:
    """Rename every phone by a table; boundaries stay.

    Raises:
        DataError: A phone is not in the table.
    """
    unknown = sorted({phone for _, _, phone in alignment} - table.keys())
    if unknown:
        what = f"{unknown[0]!r} is not in the folding table, expected one of its {len(table)} phones"
        raise DataError(f"alignment: {what}; fold with the table of the corpus's own phone set")
    return tuple((start, end, table[phone]) for start, end, phone in alignment)


def read_textgrid(path: str | os.PathLike[str]) -> Alignment:
    """Read the phone tier of a Praat TextGrid: the interval tier named phones or phone, or ending so, or the only one.

    Raises:
        DataError: The file is no TextGrid, or has no such tier.
    """
    try:
        grid = praat.openTextgrid(os.fspath(path), includeEmptyIntervals=True, duplicateNamesMode="rename")
    except (OSError, praat_errors.PraatioException, ValueError, IndexError, KeyError) as error:
        what = f"not a TextGrid ({type(error).__name__}), expected intervals as Praat writes them"
        raise DataError(f"{shown(path)}: {what}; export it again from Praat") from None
    tiers = {tier.name: tier for tier in grid.tiers if isinstance(tier, IntervalTier)}
    named = [name for name in tiers if name.lower().strip().endswith(_TIERS)]
    if not named and len(tiers) != 1:
        what = f"no tier is named phones (interval tiers: {', '.join(tiers) or 'none'})"
        raise DataError(f"{shown(path)}: {what}, expected one; rename the phone tier")
    tier = tiers[named[0] if named else next(iter(tiers))]
    entries = [entry for entry in tier.entries if isinstance(entry, Interval)]
    return ordered(path, [(each.start, each.end, each.label.strip() or SILENCE) for each in entries])


def read_ctm(path: str | os.PathLike[str]) -> dict[str, Alignment]:
    """Read a CTM file, `utterance channel start duration phone`, into one alignment for each utterance.

    Raises:
        DataError: A line has other fields.
    """
    rows: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for number, fields in _fields(path):
        if len(fields) < 5:
            raise _wrong(path, number, fields, "utterance channel start duration phone")
        start, duration = _times(path, number, fields, fields[2:4], "utterance channel start duration phone")
        rows[fields[0]].append((start, start + duration, fields[4]))
    return {id: ordered(path, sorted(intervals)) for id, intervals in rows.items()}


def read_lab(path: str | os.PathLike[str]) -> Alignment | None:
    """Read an HTK label file, `start end phone`; None where it holds words instead, as aligners' transcripts do.

    Times written as whole numbers are HTK's 100 ns units (HTK Book 3.4, section 6.2.1), others are seconds.

    Raises:
        DataError: A line has other fields.
    """
    rows = list(_fields(path))
    if not rows:
        return None
    first = rows[0][1]
    timed = len(first) > 2 and all(map(_is_time, first[:2]))
    if not _is_time(first[0]) or (len(rows) == 1 and not timed):  # a transcript may begin with a number
        return None
    whole = all(field.isdigit() for _, fields in rows for field in fields[:2])
    intervals = []
    for number, fields in rows:
        if len(fields) < 3:
            raise _wrong(path, number, fields, "start end phone")
        start, end = _times(path, number, fields, fields[:2], "start end phone")
        intervals.append((start / 1e7, end / 1e7, fields[2]) if whole else (start, end, fields[2]))
    return ordered(path, intervals)


def read_phn(path: str | os.PathLike[str], rate: int = 16_000) -> Alignment:
    """Read a TIMIT phone file, `start end phone` in samples.

    Raises:
        DataError: A line has other fields.
    """
    intervals = []
    for number, fields in _fields(path):
        if len(fields) != 3:
            raise _wrong(path, number, fields, "start end phone")
        start, end = _times(path, number, fields, fields[:2], "start end phone")
        intervals.append((start / rate, end / rate, fields[2]))
    return ordered(path, intervals)


def _fields(path: str | os.PathLike[str]) -> list[tuple[int, list[str]]]:
    try:
        text = Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{shown(path)}: cannot be read ({error}), expected labels in UTF-8; save it again") from None
    lines = enumerate(text.splitlines(), 1)
    return [(number, line.split()) for number, line in lines if line.strip() and not line.startswith(";;")]


def _is_time(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _times(
    path: str | os.PathLike[str], number: int, fields: list[str], texts: list[str], expected: str
) -> tuple[float, float]:
    if not all(_is_time(text) for text in texts):
        raise _wrong(path, number, fields, expected)
    return float(texts[0]), float(texts[1])


def _wrong(path: str | os.PathLike[str], number: int, fields: list[str], expected: str) -> DataError:
    return DataError(f"{shown(path)}:{number}: {' '.join(fields)!r}, expected '{expected}'; mend that line")


def ordered(path: str | os.PathLike[str], intervals: list[tuple[float, float, str]]) -> Alignment:
    """Make intervals an alignment.

    Raises:
        DataError: They are not in order.
    """
    before = 0.0
    for interval in intervals:
        check_order(shown(path), interval, before)
        before = interval[0]
    return tuple(intervals)


def check_order(where: str, interval: tuple[float, float, str], before: float) -> None:
    """Refuse an interval that ends before it begins, or begins before another that stands above it.

    Args:
        where: The file, with the line where it is known.
        interval: Start and end in seconds, and the phone.
        before: Start of the one above, in seconds.

    Raises:
        DataError: It does.
    """
    start, end, phone = interval
    if not before <= start <= end:
        what = f"{phone!r} from {start:g} to {end:g} s stands after {before:g} s, expected intervals in order"
        raise DataError(f"{where}: {what}; correct its times")
