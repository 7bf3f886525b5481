"""How far what was said is from what was meant: the fewest substitutions, insertions and deletions between them.

Rates are pooled: all edits over all units meant, not the mean of the utterances' rates. Alignment is jiwer's, which
reads blanks between words; any unit, the blank itself too, is therefore given a number first.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import jiwer
import numpy as np
from jaxtyping import Float

Texts = Sequence[Sequence[str]]  # of each utterance, its units


def edits(meant: Texts, said: Texts) -> Float[np.ndarray, " utterances"]:
    """Count the edits of each utterance."""
    return np.array(
        [
            sum(max(each.ref_end_idx - each.ref_start_idx, each.hyp_end_idx - each.hyp_start_idx) for each in chunks)
            for chunks in _changes(meant, said)
        ],
        dtype=np.float64,
    )


def confusions(meant: Texts, said: Texts, most: int = 20) -> dict[str, Any]:
    """Tell the kinds of edits apart, and which are the commonest.

    Returns:
        `units` meant; `hits`, `substitutions`, `deletions` and `insertions`; and under `commonest`, for each kind of
        edit, lists of the units and how often: [meant, said, count], [meant, count], [said, count].
    """
    found: dict[str, Counter[tuple[str, ...]]] = {"substitutions": Counter(), "deletions": Counter()}
    found["insertions"] = Counter()
    for wanted, got, chunks in zip(meant, said, _changes(meant, said)):
        for each in chunks:
            lost, put = wanted[each.ref_start_idx : each.ref_end_idx], got[each.hyp_start_idx : each.hyp_end_idx]
            if each.type == "substitute":
                found["substitutions"].update(zip(lost, put))
            else:
                found["deletions"].update((unit,) for unit in lost)
                found["insertions"].update((unit,) for unit in put)
    units = sum(map(len, meant))
    counts = {kind: counter.total() for kind, counter in found.items()}
    hits = units - counts["substitutions"] - counts["deletions"]
    commonest = {
        kind: [[*each, count] for each, count in sorted(counter.items(), key=lambda pair: (-pair[1], pair[0]))[:most]]
        for kind, counter in found.items()
    }
    return {"units": units, "hits": hits, **counts, "commonest": commonest}


def lined_up(meant: Texts, said: Texts) -> list[list[tuple[str, str]]]:
    """Set what was said against what was meant, unit by unit; "" where nothing stands opposite."""
    return [
        [
            pair
            for each in chunks
            for pair in zip_longest(
                wanted[each.ref_start_idx : each.ref_end_idx], got[each.hyp_start_idx : each.hyp_end_idx], fillvalue=""
            )
        ]
        for wanted, got, chunks in zip(meant, said, _aligned(meant, said))
    ]


def _changes(meant: Texts, said: Texts) -> list[list[jiwer.AlignmentChunk]]:
    """Align utterances and leave out what is equal."""
    return [[each for each in chunks if each.type != "equal"] for chunks in _aligned(meant, said)]


def _aligned(meant: Texts, said: Texts) -> list[list[jiwer.AlignmentChunk]]:
    numbers: dict[str, str] = {}
    wanted, got = (
        [" ".join(numbers.setdefault(unit, str(len(numbers))) for unit in units) for units in texts]
        for texts in (meant, said)
    )
    return jiwer.process_words(wanted, got).alignments
