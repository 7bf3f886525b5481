"""`mockingjay labels`: every row of the decks' table with fewer and fewer labels."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from mockingjay.cli.options import Device, Json, Out, Quiet, Seed, Sets
from mockingjay.cli.table import Go, ProfileName, Speech, foretell, opened, print_statements, seldom, texts


def labels(
    profile: ProfileName,
    out: Out,
    data: Speech = None,
    table: Annotated[
        Path | None,
        typer.Option("--table", help="The folder of `mockingjay table`, whose encoders are used; else --out."),
    ] = None,
    go: Go = False,
    changes: Sets = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the table's heads on nested shares of the labels, draw accuracy over shares, and write a page."""
    from mockingjay.cli.output import leave_if, print_rows, teller
    from mockingjay.report.figures import save_png
    from mockingjay.report.labels_figures import fewer_labels
    from mockingjay.report.labels_report import labels_page, write_csv
    from mockingjay.report.page import write_page
    from mockingjay.report.statements import write_statements
    from mockingjay.report.tables import write_results
    from mockingjay.studies.decks.labels import labels as library_labels
    from mockingjay.studies.decks.statements import FEWER

    say = teller(quiet or json)
    chosen, corpus = opened(profile, changes, data, say)
    outcome, encoders = None, table or out
    out = out / "labels"  # beside a table's own results
    if chosen.confirm and not go:
        foretell(chosen, corpus, "labels", out, encoders, seed, device, say)
        return
    for outcome in seldom(library_labels(chosen, corpus, out, encoders, device=device, seed=seed, say=say)):
        write_results(out / "results.json", outcome.rows)
        write_csv(out / "results.csv", outcome.points)
        write_statements(out / "statements.json", outcome.said)
        page = labels_page(
            title=f"Fewer labels on {outcome.data}",
            about=chosen.about,
            command=shlex.join(["mockingjay", *sys.argv[1:]]),
            rows=outcome.rows,
            said=outcome.said,
            published=FEWER,
            settings=texts(chosen, outcome.settings),
        )
        write_page(out / "report" / "index.html", page)
    assert outcome is not None
    leave_if(outcome.stopped, say)
    for column in dict.fromkeys(row["column"] for row in outcome.rows):
        own = [row for row in outcome.rows if row["column"] == column]
        save_png(fewer_labels(own, FEWER if column == "phone" else {}), out / "report" / f"{column}.png")
    if json or not quiet:
        shown = [{**row, "fraction": f"{100 * row['share']:g} %"} for row in outcome.rows]
        print_rows(shown, json, quiet)
    if not (json or quiet):
        print_statements(outcome.said)
    say(f"report: {out / 'report' / 'index.html'}")
