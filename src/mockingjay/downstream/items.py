"""The items of an ABX test: phones in their neighbourhoods, when they are said, and by whom.

An item is a triphone's middle: a phone with the phones beside it, which are its context. Items come from alignments or
from a file of ZeroSpeech's seven columns. Next to silence a phone has no context, so it is left out there. TIMIT's
closures are contexts of their stops, and no items.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from mockingjay.audio import shown
from mockingjay.core.errors import DataError
from mockingjay.core.types import SAMPLE_RATE, Grid, Utterance
from mockingjay.data.lines import numbered
from mockingjay.data.phones import TIMIT_61_TO_39, TIMIT_61_TO_48, folding_of
from mockingjay.downstream.tasks.transcript import SILENCES

COLUMNS = "#file onset offset #phone prev-phone next-phone speaker"
_CLOSURES = frozenset({"cl", "vcl"})


@dataclass(frozen=True, slots=True)
class Item:
    """One phone, said once."""

    utterance: str  # id
    onset: float  # seconds from the utterance's start
    offset: float  # seconds
    phone: str
    before: str
    after: str
    speaker: str


def items_of(utterances: Sequence[Utterance]) -> list[Item]:
    """Make items of aligned utterances whose speakers are known; phones of a known inventory are folded.

    TIMIT's phones fold to Lee and Hon's 39 classes, its closures to cl and vcl.
    """
    fold = folding_of({phone for each in utterances for *_, phone in each.alignment or ()})
    if fold and fold.keys() <= TIMIT_61_TO_39.keys():
        fold = {phone: middle if (middle := TIMIT_61_TO_48[phone]) in _CLOSURES else fold[phone] for phone in fold}
    return [item for each in utterances if each.speaker for item in _items(each, each.speaker, fold)]


def read_items(path: Path, utterances: Sequence[Utterance]) -> list[Item]:
    """Read an item file: a header, then `file onset offset phone prev next speaker` a line, in seconds.

    Args:
        path: The file.
        utterances: `file` is the id of one of these, or the name of its file without folder and ending.

    Raises:
        DataError: The file cannot be read, a line has other fields, or names no utterance.
    """
    known = {Path(each.path).stem: each.id for each in utterances} | {each.id: each.id for each in utterances}
    found = []
    for place, (number, line) in enumerate(numbered(path, "an item file")):
        if not place:
            continue  # the header
        fields, where = line.split(), f"{shown(path)}:{number}"
        if len(fields) != 7 or not _are_times(fields[1], fields[2]):
            raise DataError(f"{where}: {line!r}, expected {COLUMNS!r}; mend that line")
        if fields[0] not in known:
            raise DataError(
                f"{where}: no utterance is called {fields[0]!r}, expected one of the corpus; mend that line"
            )
        onset, offset = map(float, fields[1:3])
        found.append(Item(known[fields[0]], onset, offset, *fields[3:]))
    return found


def span(grid: Grid, onset: float, offset: float, steps: int | None = None) -> range:
    """Say which steps lie inside an item: their centres do, and the last of these is left out, as zrc_abx2 has it.

    With frames centred in their hops, at r frames a second, this is ⌈r·onset − ½⌉ to ⌊r·offset − ½⌋, the end exclusive.

    Args:
        grid: Where the steps lie.
        onset: Seconds.
        offset: Seconds.
        steps: Of the utterance, where that is known.
    """
    first, last = ((time * SAMPLE_RATE - grid.centre) / grid.hop for time in (onset, offset))
    # Rounded first, for 0.105 s at 100 frames a second must not come to 10.000000000000002.
    start, end = max(0, math.ceil(round(first, 6))), math.floor(round(last, 6))
    return range(start, end if steps is None else min(steps, end))


def _items(utterance: Utterance, speaker: str, fold: dict[str, str]) -> Iterator[Item]:
    named = ((start, end, fold.get(phone, phone)) for start, end, phone in utterance.alignment or ())
    runs = [list(run) for _, run in groupby(named, key=lambda interval: interval[2])]
    phones = ["", *(run[0][2] for run in runs), ""]
    for before, run, after in zip(phones, runs, phones[2:]):
        phone = run[0][2]
        if phone not in _CLOSURES and not SILENCES & {before, phone, after}:
            yield Item(utterance.id, run[0][0], run[-1][1], phone, before, after, speaker)


def _are_times(*texts: str) -> bool:
    try:
        onset, offset = map(float, texts)
    except ValueError:
        return False
    return 0 <= onset <= offset < math.inf
