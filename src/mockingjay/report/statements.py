"""What the decks say, sentence by sentence, with their figures, ours, and whether it holds here.

A sentence is said to hold only where the paired tests say so; where they cannot tell, that is said.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mockingjay.core.files import write_atomically
from mockingjay.report.page import Cell, Section, Table
from mockingjay.report.tables import Row

VERDICTS = {
    "holds": "holds",
    "does not": "does not hold",
    "undecided": "undecided",
    "not measured": "not measured",
}
SOURCES = {"deck": "the decks", "paper": "the paper", "ours": "us"}


def statements_section(said: Sequence[Row], title: str = "What the decks say, and what is measured here") -> Section:
    """Set statements as a table, in their order, with a count of the verdicts on the decks' own."""
    if not said:
        return Section(title, "Nothing has been measured yet.")
    heads = tuple(map(Cell, ("statement", "said by", "their figures", "ours", "here it")))
    rows = tuple(_line(each) for each in said)
    text = (
        f"{count(said)} A comparison holds, or does not, where the 95 % interval of the difference, paired by test "
        "utterance, leaves out zero, and every draw of the labels agrees where there are several; a statement of "
        "several comparisons holds where all of them do. No correction is made for the number of statements."
    )
    if any(pair["deck"] for each in said for pair in each["pairs"]):
        text += (
            " Their figures come from other speech, other labels and larger networks: what is compared is the order, "
            "never the figures."
        )
    return Section(title, text, (Table("Differences are in percentage points, with 95 % intervals.", heads, rows),))


def count(said: Sequence[Row]) -> str:
    """Say how many of the decks' statements hold here."""
    decks = [each["verdict"] for each in said if each["source"] == "deck"]
    if not decks:
        return "None of these statements is the decks'."
    told = ", ".join(f"{decks.count(verdict)} {words}" for verdict, words in _COUNTED.items() if verdict in decks)
    return f"Of {len(decks)} statements of the decks {told}."


def sentences(said: Sequence[Row]) -> list[str]:
    """Write every statement on a line, with our numbers filled in, for a terminal."""
    return [
        f"{each['text']} ({SOURCES[each['source']]}{_their(each)}): {_ours(each)}; {VERDICTS[each['verdict']]}"
        for each in said
    ]


def write_statements(path: Path, said: Sequence[Row]) -> None:
    """Write statements with their figures and verdicts as JSON.

    Raises:
        MachineError: The file cannot be written.
    """
    write_atomically(path, (json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode())


_COUNTED = {"holds": "hold", "does not": "do not", "undecided": "are undecided", "not measured": "are not measured"}


def _line(each: Row) -> tuple[Cell, ...]:
    verdict = Cell(VERDICTS[each["verdict"]], best=each["verdict"] == "holds")
    return Cell(each["text"]), Cell(SOURCES[each["source"]]), Cell(_their(each)[2:] or "–"), Cell(_ours(each)), verdict


def _their(each: Row) -> str:
    """Their figures, after a comma; nothing where they have none."""
    decks = [pair["deck"] for pair in each["pairs"]]
    if None in decks:
        return ""
    if len(decks) == 1:
        better, worse = decks[0]
        return f", {better:.1f} against {worse:.1f}, {_signed(better - worse)}"
    kept = sum(better > worse for better, worse in decks)
    mean = sum(better - worse for better, worse in decks) / len(decks)
    return f", in {kept} of {len(decks)} comparisons, {_signed(mean)} on average"


def _ours(each: Row) -> str:
    pairs = [pair for pair in each["pairs"] if pair["ours"] is not None]
    if not pairs:
        return "not measured"
    if len(each["pairs"]) == 1:
        return _pair(pairs[0])
    verdicts = [pair["verdict"] for pair in each["pairs"]]
    told = ", ".join(f"{verdicts.count(word)} {words}" for word, words in _COUNTED.items() if word in verdicts)
    mean = 100 * sum(pair["difference"] for pair in pairs) / len(pairs)
    worst = min(pairs, key=lambda pair: pair["difference"])
    (name, place), (rival, there) = worst["better"], worst["worse"]
    where = f"{name} ({place}) against {rival}" + (f" ({there})" if there != place else "")
    return f"of {len(verdicts)} comparisons {told}; {_signed(mean)} on average, least for {where}: {_pair(worst)}"


def _pair(pair: Any) -> str:
    better, worse = (100 * value for value in pair["ours"])
    low, high = (_signed(100 * bound) for bound in pair["ci95"])
    return f"{better:.1f} against {worse:.1f}, {_signed(100 * pair['difference'])} [{low}, {high}]"


def _signed(points: float) -> str:
    return f"{points:+.1f}".replace("-", "\N{MINUS SIGN}")
