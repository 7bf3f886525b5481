"""The decks' table as one page: our figures beside theirs, what they say of them, and how the encoders learnt."""

from collections.abc import Mapping, Sequence

from mockingjay.report import compare_figures, figures
from mockingjay.report.page import Block, Cell, Code, KeyValues, Page, Section, Table
from mockingjay.report.statements import count, statements_section
from mockingjay.report.tables import Row, interval, number, seeds


def table_page(
    *,
    title: str,
    about: str,
    command: str,
    columns: Mapping[str, tuple[str, str]],
    rows: Sequence[Row],
    said: Sequence[Row],
    curves: Mapping[str, Sequence[Row]],
    settings: Mapping[str, str],
    failures: Mapping[str, str],
) -> Page:
    """Assemble the report of a table, finished or not.

    Args:
        title: Of the page.
        about: What the profile is.
        command: What reproduces it.
        columns: The task and the corpus of each column.
        rows: Result rows with `column` and `published`, the decks' figure in %.
        said: Statements held to what was measured, as `statements_section` takes them.
        curves: Logged lines of each encoder.
        settings: TOML by name: the profile, and each encoder's resolved configuration.
        failures: Why a row has no figures.
    """
    summary = f"{about}\n\n{count(said)}" if said else f"{about}\n\nNothing has been measured yet."
    sections = (
        _results(columns, rows),
        statements_section(said),
        _curves(curves),
        _weights(rows),
        *((Section("What failed", "", (KeyValues(tuple(failures.items())),)),) if failures else ()),
        Section(
            "Settings",
            "The profile, and every setting of each encoder, defaults included.",
            tuple(Code(text, name, folded=True) for name, text in settings.items()),
        ),
    )
    return Page(title, summary, command, sections)


def beside(columns: Mapping[str, tuple[str, str]], rows: Sequence[Row]) -> Table:
    """Set our figures beside the decks': a row of the table a line, two cells a column."""
    cells = {(row["representation"], row["column"]): row for row in rows}
    names = dict.fromkeys(row["representation"] for row in rows)
    lines = tuple(
        (Cell(name), *(cell for column in columns for cell in _pair(cells, name, column, rows))) for name in names
    )
    heads = [Cell("representation")]
    foot = [Cell("always the commonest answer")]
    for column, (task, data) in columns.items():
        own = [row for row in rows if row["column"] == column]
        measured = f"{task} of {data} · n {own[0]['n']} · {seeds(own[0])}" if own else f"{task} of {data}"
        heads += [Cell(column, measured), Cell("decks")]
        foot += [Cell(number(own[0]["majority"], own[0]["metric"]) if own else "–"), Cell("")]
    caption = (
        "Accuracy with 95 % intervals over test utterances, and the decks' own figures in %, from LibriSpeech and "
        "MOSEI; bold is the best of its column here."
    )
    return Table(caption, tuple(heads), lines, (tuple(foot),))


def _pair(cells: Mapping[tuple[str, str], Row], name: str, column: str, rows: Sequence[Row]) -> tuple[Cell, Cell]:
    row = cells.get((name, column))
    if row is None:
        return Cell("–"), Cell("–")
    best = max(each["value"] for each in rows if each["column"] == column)
    ours = Cell(number(row["value"], row["metric"]), interval(row["ci95"], row["metric"]), row["value"] == best)
    return ours, Cell("–" if row["published"] is None else f"{row['published']:.1f}")


def _results(columns: Mapping[str, tuple[str, str]], rows: Sequence[Row]) -> Section:
    title = "The table"
    if not rows:
        return Section(title, "No row has been measured yet.")
    text = (
        "Every row is read by the same heads at rates chosen on dev. BASE and LARGE: the last layer, frozen; LARGE-WS: "
        "a learnt mix of all layers, frozen; BASE-FT2: encoder and head trained together for exactly two passes over "
        "the training utterances; APC: trained by us on the same audio, as wide as BASE. Below stand two controls: "
        "BASE before any training, and the same fine-tuning begun from there. No test utterance was pre-trained on."
    )
    blocks: list[Block] = [beside(columns, rows)]
    tuned = tuple((f"{row['representation']}, {row['column']}", f"{row['learning_rate']:g}") for row in rows)
    return Section(title, text, (*blocks, KeyValues(tuned, "Learning rates that dev chose")))


def _curves(curves: Mapping[str, Sequence[Row]]) -> Section:
    title = "Learning curves"
    if not curves:
        return Section(title, "No encoder has been trained yet.")
    return Section(title, "", (figures.inline(compare_figures.learning_curves(curves), "curves"),))


def _weights(rows: Sequence[Row]) -> Section:
    title = "Layer weights"
    weights = {
        f"{row['column']} ({row['representation']})": [layer["weight"] for layer in row["layers"]]
        for row in rows
        if row["read"] == "mix"
    }
    if not weights:
        return Section(title, "No row that mixes layers has been measured yet.")
    text = "What the mix takes from each layer; weights compare layers as far as their values are of one size."
    return Section(title, text, (figures.inline(figures.layer_weights(weights), "weights"),))
