"""A comparison of objectives as one page: what each makes a network learn, beside log-mel and the untrained network.

Every sentence about success is generated from the numbers, and what is missing or failed is said in words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mockingjay.report import compare_figures, figures
from mockingjay.report.compare_figures import features_as_they_are
from mockingjay.report.page import Block, Cell, Code, KeyValues, Page, Section, Table
from mockingjay.report.tables import Column, Row, lay_out, number, results_table

OBJECTIVE = "objective"  # the task of rows that hold an objective's own loss


def compare_page(
    *,
    data: str,
    command: str,
    rows: Sequence[Row],
    curves: Mapping[str, Sequence[Row]],
    settings: Mapping[str, str],
    failures: Mapping[str, str],
    budget: float | None,
) -> Page:
    """Assemble the report of a comparison, finished or not.

    Args:
        data: Name of the corpus.
        command: What reproduces it.
        rows: Result rows; those of the task `objective` hold `predictors`, `steps`, `seconds` and `parameters`.
        curves: Logged lines of each trained objective.
        settings: The resolved configuration of each objective, as TOML.
        failures: Why an objective has no result.
        budget: Seconds of pre-training for each; None where steps were given.
    """
    probes = [row for row in rows if row["task"] != OBJECTIVE]
    names = [name for name in settings if name in curves]
    sections = (
        _results(probes, names, failures),
        _gains(probes, names),
        _held_out([row for row in rows if row["task"] == OBJECTIVE and row["value"] is not None]),
        _curves(curves),
        _failed(failures, [name for name in settings if name not in curves and name not in failures]),
        Section(
            "Settings",
            "Every setting of each objective, defaults included.",
            tuple(Code(text, name, folded=True) for name, text in settings.items()),
        ),
    )
    title = f"{len(settings)} objectives on {data}"
    return Page(title, _summary(probes, names, settings, failures, budget), command, sections)


def _summary(
    rows: Sequence[Row],
    names: Sequence[str],
    settings: Mapping[str, str],
    failures: Mapping[str, str],
    budget: float | None,
) -> str:
    compute = f"for {_clock(budget)} each" if budget is not None else "for the same number of steps"
    done = f"{len(names)} of {len(settings)} objectives have been pre-trained {compute}, on the same speech."
    if failures:
        done += f" {len(failures)} failed."
    if not names or not rows:
        return done + " No probe has been measured yet."
    return "\n\n".join((done, *(_best(column, rows, names) for column in _columns(rows))))


def _best(column: Column, rows: Sequence[Row], names: Sequence[str]) -> str:
    """Say which objective answers a question best, and how many are surely better than log-mel."""
    asked = {row["representation"]: row for row in rows if (row["task"], row["data"]) == (column.task, column.data)}
    trained = [asked[name] for name in names if name in asked]
    name = _called(column.task)
    called = f"{name[:1].upper()}{name[1:]} ({column.data})"
    if not trained:
        return f"{called}: no trained encoder has been asked."
    best = max(trained, key=lambda row: row["value"])
    plain, word = features_as_they_are(rows)
    bar = f", {word} {number(asked[plain]['value'], column.metric)}" if plain in asked else ""
    over = [row.get("over", {}).get(plain) for row in trained]
    better, worse = (
        sum(each is not None and each["verdict"] == word for each in over) for word in ("holds", "does not")
    )
    return (
        f"{called}: the best objective is {best['representation']} with {number(best['value'], column.metric)}{bar}; "
        f"surely better than {word}: {better} of {len(trained)}, surely worse: {worse}."
    )


def _results(rows: Sequence[Row], names: Sequence[str], failures: Mapping[str, str]) -> Section:
    title = "Objectives and questions"
    if not rows:
        return Section(title, "No probe has been measured yet.")
    text = (
        "Every encoder is frozen and asked the same by the same probes, on test utterances that none has heard: "
        "classes by accuracy, pitch and energy by R², where 0 is what always answering the mean reaches. The second "
        "table is of the same networks before training; objectives of one shape share them."
    )
    trained = _table(rows, [features_as_they_are(rows)[0], *names])
    failed = tuple((Cell(name), *(Cell("failed") for _ in trained.columns[1:])) for name in failures)
    before = (_table(rows, [f"random:{name}" for name in names]),) if names else ()
    return Section(title, text, (replace(trained, rows=trained.rows + failed), *before))


def _table(rows: Sequence[Row], names: Sequence[str]) -> Table:
    asked = {(row["representation"], column): row for row in rows for column in _columns([row])}
    chosen = [asked[name, column] for name in names for column in _columns(rows) if (name, column) in asked]
    return results_table(chosen)


def _gains(rows: Sequence[Row], names: Sequence[str]) -> Section:
    title = "What training gains"
    if not names or not rows:
        return Section(title, "No objective has been probed yet.")
    word = features_as_they_are(rows)[1]
    text = f"The same utterances, answered from each encoder, from {word} and from the untrained network."
    return Section(title, text, (figures.inline(compare_figures.gains(names, _columns(rows), rows), "gains"),))


def _held_out(rows: Sequence[Row]) -> Section:
    title = "Each objective on held-out speech"
    if not rows:
        return Section(title, "No objective has been trained yet.")
    lines = tuple(_held_out_line(row) for row in rows)
    heads = tuple(map(Cell, ("objective", "model", "best trivial predictor", "steps", "time", "parameters")))
    text = (
        "An objective's own loss in its own units, lower is better; rows cannot be compared with one another. "
        "A network has learnt something of its task only where it is below every predictor that learns nothing."
    )
    return Section(title, text, (Table("Bold where the model is below all of them.", heads, lines),))


def _held_out_line(row: Row) -> tuple[Cell, ...]:
    trivial = row["predictors"]
    name = min(trivial, key=trivial.__getitem__) if trivial else None
    rival = Cell(f"{trivial[name]:.3f}", name) if name is not None else Cell("–")
    return (
        Cell(row["representation"]),
        Cell(f"{row['value']:.3f}", best=name is not None and row["value"] < trivial[name]),
        rival,
        Cell(f"{row['steps']:,}"),
        Cell(_clock(row["seconds"])),
        Cell(f"{row['parameters'] / 1e6:.2f} M"),
    )


def _curves(curves: Mapping[str, Sequence[Row]]) -> Section:
    title = "Learning curves"
    if not curves:
        return Section(title, "No objective has been trained yet.")
    return Section(title, "", (figures.inline(compare_figures.learning_curves(curves), "curves"),))


def _failed(failures: Mapping[str, str], pending: Sequence[str]) -> Section:
    blocks: list[Block] = [KeyValues(tuple(failures.items()))] if failures else []
    text = f"Still to come: {', '.join(pending)}." if pending else "Every objective was tried."
    text += "" if failures else " None failed."
    return Section("What failed", text, tuple(blocks))


def _columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    return lay_out(rows).columns


def _called(task: str) -> str:
    return task.removeprefix("label:")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes and rest else f"{minutes} min" if minutes else f"{rest} s"
