"""Fewer labels as one page: the curves, the figures, what the decks say of theirs, and the layers that are read."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from mockingjay.core.files import write_atomically
from mockingjay.report import figures, labels_figures
from mockingjay.report.page import Block, Cell, Code, Page, Section, Table
from mockingjay.report.statements import count, statements_section
from mockingjay.report.tables import Row, interval, number, seeds

_KEYS: tuple[str, ...] = (
    "representation",
    "column",
    "task",
    "data",
    "share",
    "seconds",
    "heard",
    "seed",
    "value",
    "n",
    "learning_rate",
)


def labels_page(
    *,
    title: str,
    about: str,
    command: str,
    rows: Sequence[Row],
    said: Sequence[Row],
    published: Mapping[str, Mapping[str, float]],
    settings: Mapping[str, str],
) -> Page:
    """Assemble the report of a sweep, finished or not.

    Args:
        title: Of the page.
        about: What the profile is.
        command: What reproduces it.
        rows: Per row of the table, column and share: result rows with `column`, `share`, `seconds`, `heard`, `values`.
        said: Statements held to what was measured, with their `column`.
        published: The decks' figures in %: row → share → value, of phones.
        settings: TOML by name.
    """
    columns = list(dict.fromkeys(row["column"] for row in rows))
    sections = [section for column in columns for section in _column(column, rows, said, published)]
    kept = Section(
        "Settings",
        "The profile, and every setting of each encoder, defaults included.",
        tuple(Code(text, name, folded=True) for name, text in settings.items()),
    )
    summary = f"{about}\n\n{count(said)}" if said else f"{about}\n\nNothing has been measured yet."
    return Page(title, summary, command, (*sections, kept))


def write_csv(path: Path, points: Sequence[Row]) -> None:
    """Write one line per row of the table, column, share and seed.

    Raises:
        MachineError: The file cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, _KEYS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(points)
    write_atomically(path, text.getvalue().encode("utf-8", "backslashreplace"))


def _column(
    column: str, rows: Sequence[Row], said: Sequence[Row], published: Mapping[str, Mapping[str, float]]
) -> list[Section]:
    own = [row for row in rows if row["column"] == column]
    theirs = published if column == "phone" else {}
    text = (
        "Every share lies inside the larger ones, and as many classes as can be are in it; the test set is always the "
        "same. Heads are trained by equally many updates, stopped where the same dev set was best: dev keeps all its "
        "labels. Fine-tuned rows keep the learning rate chosen with most labels, and the number of updates of two "
        "epochs with these."
    )
    drawn = figures.inline(labels_figures.fewer_labels(own, theirs), f"labels-{column}")
    judged = [each for each in said if each["column"] == column]
    told = "What the decks say, and what is measured here" if theirs else "What the decks say of phones, held to this"
    weights = {
        f"{100 * row['share']:g} % of the labels": [layer["weight"] for layer in row["layers"]]
        for row in own
        if row["read"] == "mix"
    }
    blocks: list[Block] = [figures.inline(figures.layer_weights(weights), f"weights-{column}")] if weights else []
    words = "What LARGE-WS takes from each layer, by the share of the labels, averaged over draws."
    return [
        Section(f"Fewer labels: {column}", text, (drawn, _table(own, theirs))),
        statements_section(judged, f"{told}: {column}"),
        Section(
            f"Layer weights: {column}", words if weights else "No row that mixes layers was measured.", tuple(blocks)
        ),
    ]


def _table(rows: Sequence[Row], published: Mapping[str, Mapping[str, float]]) -> Table:
    """One line a row of the table, one column a share; guessing and the decks' figures below."""
    shares = list(dict.fromkeys(row["share"] for row in rows))
    cells = {(row["representation"], row["share"]): row for row in rows}
    firsts = [next(row for row in rows if row["share"] == share) for share in shares]
    heads = [Cell("representation")]
    for share, one in zip(shares, firsts):
        amount = f"{one['seconds']:.0f} s" if one["seconds"] < 600 else f"{one['seconds'] / 3600:.2f} h"
        heads.append(Cell(f"{100 * share:g} %", f"{amount} · {one['heard']:g} of {one['classes']} classes"))
    lines = tuple(
        (Cell(name), *(_cell(cells.get((name, share))) for share in shares))
        for name in dict.fromkeys(row["representation"] for row in rows)
    )
    commonest = tuple(Cell(number(row["majority"], row["metric"])) for row in firsts)
    foot = tuple(
        (Cell(f"decks: {name}"), *(_theirs(figures.get(f"{100 * share:g} %")) for share in shares))
        for name, figures in published.items()
    )
    one = rows[0]
    caption = (
        f"Accuracy on {one['n']} test utterances of {one['data']}, mean over draws of the labels ({seeds(one)}), "
        "with 95 % intervals over test utterances and the lowest and highest draw."
    )
    return Table(caption, tuple(heads), lines, ((Cell("always the commonest answer"), *commonest), *foot))


def _cell(row: Row | None) -> Cell:
    if row is None:
        return Cell("–")
    spread = f"{100 * min(row['values']):.1f} to {100 * max(row['values']):.1f}"
    return Cell(number(row["value"], row["metric"]), f"{interval(row['ci95'], row['metric'])} · {spread}")


def _theirs(value: float | None) -> Cell:
    return Cell("–" if value is None else f"{value:.1f}")
