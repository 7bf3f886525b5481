"""From the logits of a CTC head to what was said (Graves et al., ICML 2006).

Output 0 is the blank. A path names one output per step; what it says is found by joining equal neighbours and leaving
out blanks. `greedy` reads the likeliest path; `beam` adds up all paths that say the same (prefix search of Hannun et
al. 2014, arXiv 1408.2873), in logarithms, and may weigh in an n-gram of what is usually said. Every utterance is read
over its own steps only, so batch-mates and padding change nothing.
"""

import heapq
import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from mockingjay.core.config import Config as Table
from mockingjay.core.types import valid_steps

BLANK = 0
FAINT = -12.0  # log probability; units that are fainter at a step do not lengthen a prefix there (ours)
KEPT, ROOM = 30_000, 950_000  # n-grams, the most frequent, and their bytes on a probe's card of 1 << 20 at most

Units = tuple[int, ...]


class Decoder(Table):
    """A search on test, beside the greedy reading, which is always measured and alone decides on dev about rates."""

    beam: int = Field(default=0, ge=0, le=1000)
    """Prefixes kept at every step; 0: greedy alone."""
    order: int = Field(default=0, ge=0, le=8)
    """Of the n-gram counted on the training transcripts; 0: none."""
    weights: tuple[float, ...] = Field(default=(0.25, 0.5, 1.0), min_length=1)
    """Of the n-gram's or the language's natural log probability, to choose from on dev."""
    bonus: float = 0.0
    """Added for each unit said, with a language for each word; an n-gram alone favours short answers."""
    language: str = ""
    """Path of an ARPA or KenLM file of words, for text; none: the n-gram counted on the training transcripts, or
    nothing."""
    lexicon: str = ""
    """Path of a list of the words that may be said with a language, one a line; none: those of the training
    transcripts."""
    threshold: float = Field(default=25.0, gt=0)
    """Log probability below the best prefix's at which others are dropped; with a language."""

    @model_validator(mode="after")
    def _one_language(self) -> "Decoder":
        if self.language and self.order:
            raise ValueError(f"language {self.language!r} beside order {self.order}, expected one of the two")
        if self.order and not self.beam:
            raise ValueError(f"order {self.order} without a beam, expected beam 1 or more")
        if self.language and not self.beam:
            raise ValueError(f"language {self.language!r} without a beam, expected beam 1 or more")
        if self.lexicon and not self.language:
            raise ValueError(f"lexicon {self.lexicon!r} without a language, expected both")
        return self


class NGram:
    """How likely a unit is after others: counts of every order, interpolated as Witten and Bell (1991) did.

    p(unit | context) = (count(context unit) + kinds(context) · p(unit | shorter context)) / (count + kinds), down to
    every unit alike. Output 0 stands for the beginning and the end.
    """

    def __init__(self, counts: Mapping[Units, int], outputs: int) -> None:
        """Take counts of n-grams, all of one order.

        Args:
            counts: n-gram → how often; shorter ones are counted from them.
            outputs: How many units there are, the blank's place among them.
        """
        self.order = len(next(iter(counts)))
        self.outputs = outputs
        self._after: defaultdict[Units, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
        for gram, count in counts.items():
            for start in range(self.order):
                self._after[gram[start:-1]][gram[-1]] += count
        self._totals = {context: sum(units.values()) for context, units in self._after.items()}
        self._known: dict[Units, tuple[float, ...]] = {}

    def log_probabilities(self, said: Units) -> tuple[float, ...]:
        """Say how likely each unit is after what was said since the beginning; at `BLANK`, that nothing more comes."""
        history = ((BLANK,) * (self.order - 1) + said[-self.order :])[-self.order + 1 :] if self.order > 1 else ()
        if history not in self._known:
            likely = [1 / self.outputs] * self.outputs
            for length in range(self.order):
                context = history[len(history) - length :]
                if context not in self._totals:
                    break
                units, total = self._after[context], self._totals[context]
                kinds = len(units)
                likely = [(units.get(unit, 0) + kinds * share) / (total + kinds) for unit, share in enumerate(likely)]
            self._known[history] = tuple(map(math.log, likely))
        return self._known[history]


def count_ngrams(sequences: Sequence[Units], order: int) -> dict[Units, int]:
    """Count the n-grams of sequences with their beginnings and ends; the most frequent are kept (`KEPT`, `ROOM`)."""
    counts: defaultdict[Units, int] = defaultdict(int)
    for units in sequences:
        padded = (BLANK,) * (order - 1) + units + (BLANK,)
        for start in range(len(units) + 1):
            counts[padded[start : start + order]] += 1
    common = sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:KEPT]
    written = itertools.accumulate(len(" ".join(map(str, gram))) + len(str(count)) + 9 for gram, count in common)
    return {gram: count for (gram, count), size in zip(common, written) if size <= ROOM}


def greedy(logits: Float[Tensor, "batch time outputs"], lengths: Int[Tensor, " batch"]) -> list[Units]:
    """Read the likeliest output of every step."""
    best = logits.argmax(-1)
    spoken = (best != BLANK) & valid_steps(lengths, best.shape[1])
    spoken[:, 1:] &= best[:, 1:] != best[:, :-1]
    return [tuple(units[told].tolist()) for units, told in zip(best.cpu(), spoken.cpu())]


def beams(
    logits: Float[Tensor, "batch time outputs"],
    lengths: Int[Tensor, " batch"],
    width: int,
    language: NGram | None = None,
    weight: float = 0.0,
    bonus: float = 0.0,
) -> list[Units]:
    """Search for the likeliest answer of each utterance; the arguments are those of `beam`."""
    scores = logits.float().log_softmax(-1).cpu()
    steps = zip(scores, lengths.tolist())
    return [beam(each[:length], width, language, weight, bonus, FAINT) for each, length in steps]


def beam(
    scores: Float[Tensor, "time outputs"],
    width: int,
    language: NGram | None = None,
    weight: float = 0.0,
    bonus: float = 0.0,
    faint: float = -math.inf,
) -> Units:
    """Search for the likeliest answer of one utterance.

    Args:
        scores: Log probabilities, over the utterance's own steps.
        width: Prefixes kept at every step.
        language: Weighed in by shallow fusion: its log probability is added, `weight` times.
        weight: Of the language.
        bonus: Added for each unit.
        faint: Units of a lower log probability do not lengthen a prefix at that step.
    """
    flat = (0.0,) * scores.shape[1]

    def likely(prefix: Units) -> tuple[float, ...]:
        return language.log_probabilities(prefix) if language else flat

    # Of each prefix: its paths that end in a blank, those that end in its last unit, and what language and bonus add.
    alive: dict[Units, tuple[float, float, float]] = {(): (0.0, -math.inf, 0.0)}
    for row in scores.tolist():
        heard = [unit for unit, score in enumerate(row) if unit != BLANK and score > faint]
        kept: dict[Units, tuple[float, float, float]] = {}
        longer: list[tuple[float, Units, int]] = []
        children = defaultdict(set)
        for prefix in filter(None, alive):
            children[prefix[:-1]].add(prefix[-1])
        for prefix, (blank, last, added) in alive.items():
            both, same = _add(blank, last), -math.inf
            if prefix:
                unit, shorter = prefix[-1], alive.get(prefix[:-1])
                before = last if shorter is None else _add(last, _before(prefix[:-1], unit, shorter))
                same = before + row[unit]
            kept[prefix] = (both + row[BLANK], same, added)
            hopes, known = likely(prefix), children.get(prefix, ())
            for unit in heard:
                begun = blank if prefix and unit == prefix[-1] else both
                if unit not in known and begun > -math.inf:
                    longer.append((-begun - row[unit] - added - weight * hopes[unit] - bonus, prefix, unit))
        ranked = [(-_add(blank, last) - added, prefix, BLANK) for prefix, (blank, last, added) in kept.items()]
        survivors: dict[Units, tuple[float, float, float]] = {}
        for _, prefix, unit in heapq.nsmallest(width, ranked + longer):
            if unit == BLANK:
                survivors[prefix] = kept[prefix]
                continue
            added = alive[prefix][2] + weight * likely(prefix)[unit] + bonus
            survivors[*prefix, unit] = (-math.inf, _before(prefix, unit, alive[prefix]) + row[unit], added)
        alive = survivors

    def whole(prefix: Units) -> float:
        blank, last, added = alive[prefix]
        return _add(blank, last) + added + weight * likely(prefix)[BLANK]

    return max(sorted(alive), key=whole)


def _before(prefix: Units, unit: int, paths: tuple[float, float, float]) -> float:
    """Add up the paths of a prefix that a unit may follow: a unit said twice needs a blank between."""
    return paths[0] if prefix and unit == prefix[-1] else _add(paths[0], paths[1])


def _add(first: float, second: float) -> float:
    """Add what two logarithms stand for."""
    low, high = (first, second) if first < second else (second, first)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
