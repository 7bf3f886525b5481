"""How far what was said is from what was meant: the fewest substitutions, insertions and deletions between them.

Rates are pooled: all edits over all units meant, not the mean of the utterances' rates. Alignment is jiwer's, which
reads blanks between words; any unit, the blank itself too, is therefore given a number first.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any

import jiwer
import numpy as np
from jaxtyping import Float

Texts = Sequence[Sequence[str]]  # of each utterance, its units


def edits(meant: Texts, said: Texts) -> Float[np.ndarray, " utterances"]:
    """Count the edits of each utterance."""
    return np.array([sum(wanted != got for wanted, got in each) for each in lined_up(meant, said)], dtype=np.float64)


def confusions(pairs: Sequence[Sequence[tuple[str, str]]], most: int = 20) -> dict[str, Any]:
    """Tell the kinds of edits apart, and which are the commonest.

    Args:
        pairs: Of each utterance, as `lined_up` sets them.
        most: Errors of a kind that are named.

    Returns:
        `units` meant; `hits`, `substitutions`, `deletions` and `insertions`; and under `commonest`, for each kind of
        edit, lists of the units and how often: [meant, said, count], [meant, count], [said, count].
    """
    found: dict[str, Counter[tuple[str, ...]]] = {"substitutions": Counter(), "deletions": Counter()}
    found["insertions"] = Counter()
    hits = 0
    for wanted, got in chain.from_iterable(pairs):
        if wanted == got:
            hits += 1
        else:
            kind = "insertions" if not wanted else "substitutions" if got else "deletions"
            found[kind][tuple(filter(None, (wanted, got)))] += 1
    counts = {kind: counter.total() for kind, counter in found.items()}
    commonest = {
        kind: [[*each, count] for each, count in sorted(counter.items(), key=lambda pair: (-pair[1], pair[0]))[:most]]
        for kind, counter in found.items()
    }
    return {
        "units": hits + counts["substitutions"] + counts["deletions"],
        "hits": hits,
        **counts,
        "commonest": commonest,
    }


def lined_up(meant: Texts, said: Texts) -> list[list[tuple[str, str]]]:
    """Set what was said against what was meant, unit by unit; "" where nothing stands opposite."""
    numbers: dict[str, str] = {}
    first, second = (
        [" ".join(numbers.setdefault(unit, str(len(numbers))) for unit in units) for units in texts]
        for texts in (meant, said)
    )
    return [
        [
            pair
            for each in chunks
            for pair in zip_longest(
                wanted[each.ref_start_idx : each.ref_end_idx], got[each.hyp_start_idx : each.hyp_end_idx], fillvalue=""
            )
        ]
        for wanted, got, chunks in zip(meant, said, jiwer.process_words(first, second).alignments)
    ]
