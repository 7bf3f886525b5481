"""How much of the study of attention fits into the time there is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FEWEST = 4  # unheard utterances without which nothing is measured
LOOKED = 120  # utterances that are measured, and as many that are tested
CANDIDATES = 8  # diagonal heads among which segmentation chooses
TRIED = 32  # utterances of the probe that is timed
ENOUGH, MOST = 48, 480  # utterances of each probe: fewer only where the time forces it, and never more
SOURCE = 0.04  # seconds that all settings of segmentation take of three seconds of speech, for each source

# Richest first: points of a pruning curve, random orders, spans in steps, trainings of each probe.
WEALTH: Sequence[tuple[int, int, tuple[int, ...], int]] = (
    (7, 3, (50, 25, 15, 5, 3, 2, 1, 0), 2),  # the spans of arXiv 2006.03265, section 5
    (7, 3, (50, 25, 15, 5, 3, 2, 1, 0), 1),
    (5, 3, (25, 5, 2, 0), 1),
    (4, 2, (5, 0), 1),
    (3, 1, (1,), 1),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is asked of one representation."""

    looked: int  # utterances whose attention is measured, and as many on which what was chosen is tested
    tuned: int  # utterances on which segmentation is set
    asked: int  # utterances of each probe, half of them to learn from
    steps: int  # points of a pruning curve
    randoms: int  # random orders of removing heads
    spans: tuple[int, ...]  # steps
    seeds: int  # trainings of each probe

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "Plan":
        """Rebuild a plan from JSON."""
        return cls(**{**record, "spans": tuple(record["spans"])})


def allot(budget: float, *, hearing: float, utterance: float, fitting: float, tasks: int, depth: int) -> Plan:
    """Cut the study to the time there is.

    Args:
        budget: Seconds.
        hearing: Seconds to look at an utterance.
        utterance: Seconds of audio of one.
        fitting: Seconds to train the probes of one condition once.
        tasks: How many probes there are.
        depth: Hidden layers.
    """
    looked = _between(FEWEST, 0.1 * budget / (5 * hearing), LOOKED)
    sources = CANDIDATES + depth + 1
    tuned = _between(2, 0.05 * budget / (SOURCE * sources * (utterance / 3) ** 2), 20)
    for steps, randoms, spans, seeds in WEALTH:
        conditions = 2 + (steps - 2) * (5 + randoms) + 2 * len(spans) + depth
        room = 0.65 * budget / conditions - seeds * fitting
        asked = _between(TRIED, room / (tasks * hearing), MOST)
        if asked >= ENOUGH:
            break
    return Plan(looked, tuned, asked, steps, randoms, spans, seeds)


def _between(least: int, wanted: float, most: int) -> int:
    return int(min(max(least, wanted), most))
