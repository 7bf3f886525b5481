"""What the decks say of their table and of their sweep over labels, as comparisons that our own figures are held to.

The figures are the decks', in percent, as they print them (A. T. Liu, the ICASSP 2020 talk on Mockingjay and the longer
one; those of the sweep are read off the paper's figure 3, arXiv 1910.12638). They come from other data and larger
networks: they stand beside ours and are never compared with them, only what they say of one another is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from mockingjay.downstream.scores import Scores, paired_difference

Cell = tuple[str, str]  # a row's name, and a column of the table or a share of the labels such as "0.1 %"
Published = Mapping[str, Mapping[str, float]]  # row → place → %
Measured = Callable[[Cell], Sequence[Scores]]  # per seed; nothing where a cell was not measured

MEL, BASE, LARGE, WS, FT2, APC = "Mel", "BASE", "LARGE", "LARGE-WS", "BASE-FT2", "APC"
UNTRAINED, SCRATCH = "BASE untrained", "BASE-FT2 from scratch"
SIX = (MEL, BASE, LARGE, WS, FT2, APC)
AVERAGE = "average"

TABLE: Published = {
    MEL: {"phone": 49.1, "speaker": 70.1, "sentiment": 64.6},
    BASE: {"phone": 60.9, "speaker": 94.5, "sentiment": 67.4},
    LARGE: {"phone": 64.3, "speaker": 96.3, "sentiment": 70.1},
    WS: {"phone": 69.9, "speaker": 96.4, "sentiment": 71.1},
    FT2: {"phone": 84.3, "speaker": 98.1, "sentiment": 68.5},
    APC: {"phone": 74.1, "speaker": 85.9, "sentiment": 66.0},
}
_SHARES = ("100 %", "12.5 %", "5 %", "1 %", "0.5 %", "0.1 %")
FEWER: Published = {
    MEL: dict(zip(_SHARES, (49.1, 49.1, 49.2, 44.9, 41.7, 35.2))),
    BASE: dict(zip(_SHARES, (60.9, 59.9, 59.9, 57.7, 54.8, 45.1))),
    LARGE: dict(zip(_SHARES, (64.3, 63.9, 62.4, 55.5, 52.1, 46.6))),
    WS: dict(zip(_SHARES, (69.9, 68.4, 66.5, 62.0, 59.7, 52.8))),
    FT2: dict(zip(_SHARES, (84.3, 82.9, 79.7, 72.4, 68.7, 57.9))),
    APC: dict(zip(_SHARES, (74.1, 73.5, 70.1, 54.2, 46.9, 26.6))),
}


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence that is true where every first cell is better than its second."""

    text: str
    source: Literal["deck", "paper", "ours"]
    pairs: tuple[tuple[Cell, Cell], ...]


def table_statements() -> list[Statement]:
    """List what the decks say of their table, and what the controls are for."""
    said: list[Statement] = []
    for column in ("phone", "speaker", "sentiment"):
        said += [_ranked(f"{worse} < {better}", better, (worse,), column) for worse, better in _ladder()]
        best = WS if column == "sentiment" else FT2
        said.append(_ranked(f"{best} is the best", best, [name for name in SIX if name != best], column))
        first, other = (APC, WS) if column == "phone" else (WS, APC)
        said.append(_ranked(f"{other} < {first}", first, (other,), column))
    for column in ("phone", "speaker", "sentiment"):
        said.append(_ranked(f"{UNTRAINED} < {BASE}", BASE, (UNTRAINED,), column, "ours"))
        said.append(_ranked(f"{SCRATCH} < {FT2}", FT2, (SCRATCH,), column, "paper"))
    return said


def fewer_statements(shares: Sequence[float]) -> list[Statement]:
    """List what the decks say of fewer labels, over the shares that are measured."""
    every = [percent(share) for share in shares]
    most, least = every[0], every[-1]

    def everywhere(better: str, worse: str) -> tuple[tuple[Cell, Cell], ...]:
        return tuple(((better, share), (worse, share)) for share in every)

    over = "at every share"
    return [
        Statement(f"{MEL} < {BASE}, {over}", "deck", everywhere(BASE, MEL)),
        Statement(f"{MEL} < {BASE} < {LARGE}, {over}", "deck", everywhere(BASE, MEL) + everywhere(LARGE, BASE)),
        Statement(f"{LARGE} < {WS}, {over}", "deck", everywhere(WS, LARGE)),
        Statement(f"{LARGE} < {WS}, on average over the shares", "deck", (((WS, AVERAGE), (LARGE, AVERAGE)),)),
        Statement(
            f"all < {FT2}, {over}",
            "deck",
            tuple(pair for name in SIX if name != FT2 for pair in everywhere(FT2, name)),
        ),
        Statement(f"{WS} with {least} of the labels beats {MEL} with {most}", "deck", (((WS, least), (MEL, most)),)),
        Statement(f"{FT2} with {least} of the labels beats {MEL} with {most}", "deck", (((FT2, least), (MEL, most)),)),
        Statement(
            f"{APC} is good with {most} of the labels (above {WS}) and fails with {least} (below {MEL})",
            "deck",
            (((APC, most), (WS, most)), ((MEL, least), (APC, least))),
        ),
        Statement(f"{UNTRAINED} < {BASE}, {over}", "ours", everywhere(BASE, UNTRAINED)),
        Statement(f"{SCRATCH} < {FT2}, {over}", "ours", everywhere(FT2, SCRATCH)),
    ]


def percent(share: float) -> str:
    """Write a share of the labels, such as `12.5 %`."""
    return f"{100 * share:g} %"


def figure(published: Published, cell: Cell) -> float | None:
    """Look a figure of the decks up, in percent; None where they have none."""
    row = published.get(cell[0], {})
    if cell[1] == AVERAGE:
        return float(np.mean(list(row.values()))) if row else None
    return row.get(cell[1])


def judge(statement: Statement, measured: Measured, published: Published) -> dict[str, Any]:
    """Hold a statement to what was measured, by paired tests over the test utterances.

    A pair holds, or does not, where the 95 % interval of the difference leaves out zero and every seed is on the same
    side; else it is undecided. A statement holds where all its pairs do, and does not where one does not.

    Args:
        statement: What is said.
        measured: What each cell earned of each test utterance, seeds in one order.
        published: The decks' figures.

    Returns:
        `text`, `source`, `verdict`, `theirs` (whether the decks' own figures bear it out) and `pairs`, each with
        `better` and `worse` (a cell's name and place), `ours`, `deck` (two figures, of 1 and in %), `difference`,
        `ci95` and `verdict`.
    """
    pairs = [_pair(*pair, measured, published) for pair in statement.pairs]
    verdicts = [pair["verdict"] for pair in pairs]
    order = ("does not", "not measured", "undecided", "holds")
    verdict = next(each for each in order if each in verdicts)
    decks = [pair["deck"] for pair in pairs]
    theirs = None if None in decks else all(better > worse for better, worse in decks)
    return {"text": statement.text, "source": statement.source, "verdict": verdict, "theirs": theirs, "pairs": pairs}


def averaged(scores: Sequence[Scores]) -> Scores:
    """Average what was earned on the same utterances."""
    return replace(scores[0], earned=np.mean([_ordered(each, scores[0].ids) for each in scores], axis=0))


def _ordered(scores: Scores, ids: Sequence[str]) -> Any:
    place = {id: index for index, id in enumerate(scores.ids)}
    return scores.earned[[place[id] for id in ids]]


def _pair(better: Cell, worse: Cell, measured: Measured, published: Published) -> dict[str, Any]:
    deck = [figure(published, cell) for cell in (better, worse)]
    known: dict[str, Any] = {"better": better, "worse": worse, "deck": None if None in deck else deck}
    first, second = measured(better), measured(worse)
    if not first or not second or set(first[0].ids) != set(second[0].ids):
        return {**known, "ours": None, "difference": None, "ci95": None, "verdict": "not measured"}
    one, other = averaged(first), averaged(second)
    found = paired_difference(one, other)
    alike = all(np.sign(a.value - b.value) == np.sign(found.value) for a, b in zip(first, second))
    verdict = found.verdict if alike else "undecided"
    ours = [one.value, other.value]
    return {**known, "ours": ours, "difference": found.value, "ci95": list(found.ci95), "verdict": verdict}


def _ladder() -> tuple[tuple[str, str], ...]:
    return ((MEL, BASE), (BASE, LARGE), (LARGE, WS))


def _ranked(
    text: str, better: str, worse: Sequence[str], column: str, source: Literal["deck", "paper", "ours"] = "deck"
) -> Statement:
    return Statement(f"{column}: {text}", source, tuple(((better, column), (name, column)) for name in worse))
