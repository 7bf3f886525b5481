"""Result rows as a table on the page, a table in the terminal and a file.

A row is `{representation, task, metric, value, ci95, n, seed, data}`, always, and more keys where needed: `ci95` is a
pair [low, high] or None, `majority` what always giving the commonest answer would score. Shares lie between 0 and 1 and
are shown in percent.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from mockingjay.core.errors import DataError
from mockingjay.core.files import write_atomically
from mockingjay.report.page import Cell, Table

Row = Mapping[str, Any]
KEYS = ("representation", "task", "metric", "value", "ci95", "n", "seed", "data")
# What may tell two rows of one representation apart; shown beside its name where it does.
SETTINGS = ("read", "weights", "lowest", "tune", "layer", "head", "fraction", "seed", "decoder")


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is read."""

    better: Literal["higher", "lower"] | None = None  # None: not known, so nothing is called best
    share: bool = False  # between 0 and 1, shown in percent


_HIGH, _LOW = Metric("higher", True), Metric("lower", True)
METRICS: Mapping[str, Metric] = {
    **dict.fromkeys(("accuracy", "balanced accuracy", "weighted accuracy", "unweighted accuracy"), _HIGH),
    **dict.fromkeys(("f1", "macro f1", "weighted f1", "precision", "recall", "auc", "r value"), _HIGH),
    **dict.fromkeys(("eer", "equal error rate", "error", "error rate", "wer", "cer", "per", "uer", "ter", "abx"), _LOW),
    **dict.fromkeys(("word error rate", "character error rate", "phone error rate", "token error rate"), _LOW),
    **dict.fromkeys(("mae", "rmse", "l1", "mse", "loss", "perplexity", "min t dcf"), Metric("lower")),
    **dict.fromkeys(("correlation", "r2"), Metric("higher")),
}


def metric(name: str) -> Metric:
    """Look a metric up; one that is not known is shown as it is and never ranked."""
    return METRICS.get(name.lower().replace("_", " ").replace("-", " "), Metric())


def number(value: float, of: str, unit: bool = True) -> str:
    """Write a value of a metric as read, such as `61.2 %`."""
    if metric(of).share:
        return f"{100 * value:.1f}" + (" %" if unit else "")
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def interval(bounds: Sequence[float] | None, of: str) -> str:
    """Write a metric's 95 % interval as `[60.1, 62.3]`; empty where there is none."""
    if bounds is None:
        return ""
    low, high = (number(bound, of, unit=False) for bound in bounds)
    return f"[{low}, {high}]"


@dataclass(frozen=True, slots=True)
class Column:
    """What the cells of one column share."""

    task: str
    metric: str
    data: str


@dataclass(frozen=True, slots=True)
class Layout:
    """Result rows laid out: names down, columns across; a cell that was not measured is absent."""

    names: tuple[str, ...]
    columns: tuple[Column, ...]
    cells: Mapping[tuple[str, Column], Row]

    def column(self, column: Column) -> list[tuple[str, Row]]:
        """The measured cells of a column, from the top."""
        return [(name, self.cells[name, column]) for name in self.names if (name, column) in self.cells]

    def best(self, column: Column) -> float | None:
        """The best value of a column; None where there is nothing to choose from."""
        values = [row["value"] for _, row in self.column(column)]
        better = metric(column.metric).better
        if better is None or len(values) < 2:
            return None
        return max(values) if better == "higher" else min(values)


def names(rows: Sequence[Row], settings: Sequence[str] = SETTINGS) -> list[str]:
    """Name each row by its representation and by those settings that tell a representation's rows apart."""
    alike: dict[tuple[str, Column], list[Row]] = {}
    for row in rows:
        alike.setdefault((row["representation"], _column(row)), []).append(row)
    telling = [key for key in settings if any(len({str(r.get(key)) for r in group}) > 1 for group in alike.values())]
    return [_name(row, telling) for row in rows]


def lay_out(rows: Sequence[Row]) -> Layout:
    """Put rows on a grid in their order."""
    cells: dict[tuple[str, Column], Row] = {}
    for row, named in zip(rows, names(rows)):
        column, name, copies = _column(row), named, 1
        while (name, column) in cells:  # measured twice: both are shown
            copies += 1
            name = f"{named} ({copies})"
        cells[name, column] = row
    down, across = zip(*cells) if cells else ((), ())
    return Layout(tuple(dict.fromkeys(down)), tuple(dict.fromkeys(across)), cells)


def seeds(row: Row) -> str:
    """Say of which seeds a row is, such as `3 seeds from 0`."""
    count = len(row.get("values", ()))
    return f"{count} seeds from {row['seed']}" if count > 1 else f"seed {row['seed']}"


def results_table(rows: Sequence[Row]) -> Table:
    """Set result rows as a table, one row per representation and one column per task."""
    grid = lay_out(rows)
    lines = tuple((Cell(name), *(_cell(grid, name, column) for column in grid.columns)) for name in grid.names)
    bounds = [_majority(grid, column) for column in grid.columns]
    measures = {column.metric for column in grid.columns}
    words = "always the commonest answer" + (", or the mean" if "R2" in measures else "")
    words += ", or no word" if measures & {"PER", "CER", "WER"} else ""
    foot = ((Cell(words), *(Cell(bound or "–") for bound in bounds)),) if any(bounds) else ()
    heads = tuple(Cell(column.task, _head_note(grid, column)) for column in grid.columns)
    of = "".join(f", {told}" for told in dict.fromkeys(map(seeds, rows)))
    caption = f"Values with 95 % intervals{of}; n counts the scored items; bold is the best of its column."
    return Table(caption, (Cell("representation"), *heads), lines, foot)


def print_table(rows: Sequence[Row], console: Console) -> None:
    """Print result rows: a table in a terminal, aligned plain text in a pipe, where nothing is cut or coloured."""
    if rows:
        show_table(results_table(rows), console)
    else:
        console.print("no results", highlight=False)


def show_table(table: Table, console: Console) -> None:
    """Print a table: drawn in a terminal, aligned plain text in a pipe."""
    if console.is_terminal:
        console.print(_rich(table))
    else:
        for line in _plain(table):
            console.print(line, markup=False, highlight=False, soft_wrap=True, emoji=False)


def write_results(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as strict JSON, one row a line, whole or not at all.

    Raises:
        DataError: A row lacks a key or holds a number that JSON has no word for.
        MachineError: The file cannot be written.
    """
    _check(rows, str(path))
    lines = ",\n".join(json.dumps(dict(row), ensure_ascii=False, allow_nan=False) for row in rows)
    write_atomically(path, f"[\n{lines}\n]\n".encode("utf-8", "backslashreplace"))


def read_results(path: Path) -> list[dict[str, Any]]:
    """Read rows from a file.

    Raises:
        DataError: The file is missing, is not strict JSON, or a row lacks a key.
    """
    try:
        rows = json.loads(path.read_text("utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}), expected result rows; check the path") from None
    except ValueError as error:
        raise DataError(f"{path}: not strict JSON ({error}), expected result rows; measure again") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: holds no list of rows ({type(rows).__name__}), expected result rows; measure again")
    _check(rows, str(path))
    return rows


def _check(rows: Sequence[Row], where: str) -> None:
    for index, row in enumerate(rows, 1):
        missing = [key for key in KEYS if key not in row]
        if missing:
            lacks, expected = ", ".join(missing), ", ".join(KEYS)
            raise DataError(f"{where}: row {index} lacks {lacks}, expected {expected}; add what is missing")
        for name, value in _numbers(row):
            if not float("-inf") < value < float("inf"):
                raise DataError(
                    f"{where}: row {index}, {row['representation']} on {row['task']}: {name} is {value}, "
                    "expected a finite number; measure it again or leave the row out"
                )


def _numbers(row: Row) -> Iterator[tuple[str, float]]:
    for key, value in row.items():
        for item in value if isinstance(value, list | tuple) else (value,):
            if isinstance(item, float):
                yield key, item


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _column(row: Row) -> Column:
    return Column(str(row["task"]), str(row["metric"]), str(row["data"]))


def _name(row: Row, telling: Sequence[str]) -> str:
    values = [(key, row[key]) for key in telling if row.get(key) is not None]
    told = ", ".join(value if isinstance(value, str) else f"{key} {value}" for key, value in values)
    return f"{row['representation']} ({told})" if told else str(row["representation"])


def _cell(grid: Layout, name: str, column: Column) -> Cell:
    row = grid.cells.get((name, column))
    if row is None:
        return Cell("–")
    return Cell(
        number(row["value"], row["metric"]), interval(row["ci95"], row["metric"]), row["value"] == grid.best(column)
    )


def _majority(grid: Layout, column: Column) -> str:
    bounds = {row["majority"]: None for _, row in grid.column(column) if row.get("majority") is not None}
    return " / ".join(number(bound, column.metric) for bound in bounds)


def _head_note(grid: Layout, column: Column) -> str:
    counts = dict.fromkeys(str(row["n"]) for _, row in grid.column(column))
    named = (column.metric, f"n {'/'.join(counts)}", column.data)
    return " · ".join(part for part in named if part)


def _rich(table: Table) -> RichTable:
    shown = RichTable(show_footer=bool(table.foot), caption=table.caption, caption_justify="left")
    foot = table.foot[0] if table.foot else (Cell(""),) * len(table.columns)
    for index, (column, bound) in enumerate(zip(table.columns, foot)):
        head = Text.assemble(column.text, *([("\n" + column.note, "dim")] if column.note else []))
        shown.add_column(head, Text(bound.text), justify="right" if index else "left", vertical="top")
    for cells in table.rows:
        shown.add_row(*(_text(cell) for cell in cells))
    return shown


def _text(cell: Cell) -> Text:
    return Text.assemble((cell.text, "bold" if cell.best else ""), (f" {cell.note}" if cell.note else "", "dim"))


def _plain(table: Table) -> list[str]:
    lines = [[_flat(cell) for cell in cells] for cells in (table.columns, *table.rows, *table.foot)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return ["  ".join(_justified(line, widths)).rstrip() for line in lines]


def _justified(line: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
    yield line[0].ljust(widths[0])
    yield from (text.rjust(width) for text, width in zip(line[1:], widths[1:]))


def _flat(cell: Cell) -> str:
    return f"{cell.text}{'*' if cell.best else ''}" + (f" {cell.note}" if cell.note else "")
