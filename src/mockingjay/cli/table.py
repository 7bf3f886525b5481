"""`mockingjay table`: the decks' table, measured by us beside theirs."""

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from mockingjay.cli.options import Device, Json, Out, Quiet, Seed, Sets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mockingjay.data.manifest import Corpus
    from mockingjay.settings import Settings
    from mockingjay.studies.decks.forecast import Study
    from mockingjay.studies.decks.profiles import Profile

PAUSE = 20.0  # seconds
Outcome = TypeVar("Outcome")
ProfileName = Annotated[str, typer.Option("--profile", help="talking, real, full, or a TOML file of one's own.")]
Speech = Annotated[
    Path | None, typer.Option("--data", help="The speech; without it, the embedded corpus where the profile has it.")
]

Go = Annotated[bool, typer.Option("--go", help="Begin what is first only checked and foretold.")]


def table(
    profile: ProfileName,
    out: Out,
    data: Speech = None,
    go: Go = False,
    changes: Sets = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train and measure the rows of the decks' table, set them beside the decks' figures, and write a page."""
    from rich.console import Console

    from mockingjay.cli.output import leave_if, print_rows, teller
    from mockingjay.core.errors import TrainingError
    from mockingjay.report.page import write_page
    from mockingjay.report.statements import write_statements
    from mockingjay.report.table_report import beside, table_page
    from mockingjay.report.tables import show_table, write_results
    from mockingjay.studies.decks.table import table as library_table

    say = teller(quiet or json)
    chosen, corpus = opened(profile, changes, data, say)
    if chosen.confirm and not go:
        foretell(chosen, corpus, "table", out, out, seed, device, say)
        return
    outcome = None
    for outcome in seldom(library_table(chosen, corpus, out, device=device, seed=seed, say=say)):
        write_results(out / "results.json", outcome.rows)
        write_statements(out / "statements.json", outcome.said)
        page = table_page(
            title=f"The decks’ table on {outcome.data}",
            about=chosen.about,
            command=shlex.join(["mockingjay", *sys.argv[1:]]),
            columns=outcome.columns,
            rows=outcome.rows,
            said=outcome.said,
            curves=outcome.curves,
            settings=texts(chosen, outcome.settings),
            failures=outcome.failures,
        )
        write_page(out / "report" / "index.html", page)
    assert outcome is not None
    leave_if(outcome.stopped, say)
    if json:
        print_rows(outcome.rows, json, quiet)
    elif not quiet:
        show_table(beside(outcome.columns, outcome.rows), Console())
        print_statements(outcome.said)
    for name, sentence in outcome.failures.items():
        say(f"{name} failed: {sentence}")
    say(f"report: {out / 'report' / 'index.html'}")
    if not outcome.curves:
        raise TrainingError(f"{out}: no encoder was trained, expected one at least; see above")


def opened(
    profile: str, changes: "Sequence[str] | None", data: Path | None, say: "Callable[[str], None]"
) -> "tuple[Profile, Corpus]":
    """Read a profile, open its speech, and say what of it cannot be used."""
    from mockingjay.studies.decks.profiles import open_profile, read_profile

    chosen = read_profile(profile, changes or ())
    corpus = open_profile(chosen, data)
    for refusal in corpus.refused:
        say(refusal.text)
    return chosen, corpus


def print_statements(said: "Sequence[Mapping[str, Any]]") -> None:
    """Print the decks' statements with our numbers in them, and how many hold."""
    from mockingjay.report.statements import count, sentences

    for sentence in (*sentences(said), count(said)):
        print(sentence)


def seldom(outcomes: "Iterator[Outcome]") -> "Iterator[Outcome]":
    """Pass on what is known every `PAUSE` seconds at most, and the last: drawing a page takes a second."""
    passed, waiting = time.monotonic(), None
    for outcome in outcomes:
        waiting = outcome
        if time.monotonic() - passed > PAUSE:
            yield outcome
            passed, waiting = time.monotonic(), None
    if waiting is not None:
        yield waiting


def foretell(
    profile: "Profile",
    corpus: "Corpus",
    study: "Study",
    out: Path,
    encoders: Path,
    seed: int,
    device: str,
    say: "Callable[[str], None]",
) -> None:
    """Check paths and labels, say how long it would take, and leave it at that."""
    from mockingjay.studies.decks.contestants import prepare
    from mockingjay.studies.decks.forecast import forecast

    ground = prepare(profile, corpus, encoders, seed, say)
    for column in ground.asked if study == "table" else profile.labels.columns:
        question = ground.asked[column]
        parts, classes = question.parts, len(question.task.learn(question.parts.train).outputs)
        counts = f"{len(parts.train)} to learn from, {len(parts.dev)} to choose on, {len(parts.test)} to be tested on"
        print(f"{column}: {question.task.name} of {question.data}, {classes} classes; {counts}")
    print(f"pre-training on {sum(each.seconds for each in ground.learnt) / 3600:.2f} h")
    found = forecast(ground, study, out, encoders, device, say)
    for what, hours in found.hours.items():
        print(f"{hours:10.2f} h  {what}")
    print(f"{found.total:10.2f} h  in all on this machine, {found.memory / 2**30:.1f} GiB of memory; begin with --go")


def texts(profile: "Profile", settings: "dict[str, Settings]") -> dict[str, str]:
    """Write a profile and the settings of its encoders down."""
    from mockingjay.core.config import to_toml

    return {"profile": to_toml(profile, comments=True)} | {
        name: to_toml(each, comments=True) for name, each in settings.items()
    }
