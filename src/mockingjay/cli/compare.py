"""`mockingjay compare`: objectives at equal compute, and what each makes a network learn."""

import difflib
import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from mockingjay.cli.options import Data, Device, Json, Out, Quiet, Seed, Sets, allowance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mockingjay.settings import Settings


def compare(
    data: Data,
    out: Out,
    objectives: Annotated[
        str, typer.Option("--objectives", help="all, or names such as apc,tera or tera:time for a preset of its own.")
    ] = "all",
    budget: Annotated[str | None, typer.Option("--budget", help="Time for training each; 5m without --steps.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Optimiser steps of each: --set train.steps=N.")] = None,
    preset: Annotated[str, typer.Option("--preset", help="Of the objectives that name none of their own.")] = "tiny",
    changes: Sets = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Pre-train several objectives for the same time, ask all of them the same, and write a page."""
    changes = [*(changes or ()), *([] if steps is None else [f"train.steps={steps}"])]
    allowed = allowance(budget, changes, default="5m")
    from mockingjay.cli.output import leave_if, print_rows, read_corpus, teller
    from mockingjay.core.config import to_toml
    from mockingjay.core.errors import TrainingError
    from mockingjay.report.compare_report import compare_page
    from mockingjay.report.page import write_page
    from mockingjay.report.tables import write_results
    from mockingjay.studies.compare import compare as library_compare

    chosen = contestants(objectives, preset, changes, seed)
    say = teller(quiet or json)
    corpus = read_corpus(data, say)
    comparison = None
    for comparison in library_compare(chosen, corpus, out, budget=allowed, device=device, seed=seed, say=say):
        write_results(out / "results.json", comparison.rows)
        page = compare_page(
            data=comparison.data,
            command=shlex.join(["mockingjay", *sys.argv[1:]]),
            rows=comparison.rows,
            curves=comparison.curves,
            settings={name: to_toml(each, comments=True) for name, each in comparison.contestants.items()},
            failures=comparison.failures,
            budget=allowed,
        )
        write_page(out / "report" / "index.html", page)
    assert comparison is not None
    leave_if(comparison.stopped, say)
    print_rows([row for row in comparison.rows if json or row["value"] is not None], json, quiet)
    for name, sentence in comparison.failures.items():
        say(f"{name} failed: {sentence}")
    say(f"report: {out / 'report' / 'index.html'}")
    if not comparison.curves:
        raise TrainingError(f"{out}: none of {len(chosen)} objectives was trained, expected one at least; see above")


def contestants(objectives: str, preset: str, changes: "Sequence[str]", seed: int) -> "dict[str, Settings]":
    """Resolve `all`, or names with or without presets of their own, into settings by name.

    Raises:
        ConfigError: A name is unknown, empty or given twice, or a setting does not fit an objective.
    """
    from mockingjay.core.errors import ConfigError
    from mockingjay.objectives import OBJECTIVES
    from mockingjay.settings import settings

    chosen: dict[str, Settings] = {}
    for text in OBJECTIVES if objectives == "all" else objectives.split(","):
        objective, colon, own = (part.strip() for part in text.partition(":"))
        if not objective or (colon and not own):
            raise ConfigError(
                f"--objectives {objectives or repr('')}: an empty name, expected all or names such as apc,tera:time; "
                "write them without gaps"
            )
        if objective not in OBJECTIVES:
            close = difflib.get_close_matches(objective, OBJECTIVES, n=1, cutoff=0.5)
            mend = f"did you mean '{close[0]}'?" if close else "check the spelling"
            raise ConfigError(
                f"--objectives {objective}: no such objective, expected all or some of {', '.join(OBJECTIVES)}; {mend}"
            )
        name = f"{objective}-{own.rpartition('/')[2].removesuffix('.toml')}" if own else objective
        if name in chosen:
            raise ConfigError(f"--objectives {objectives}: {name} is named twice, expected each once; leave one out")
        chosen[name] = settings(objective, own or preset, changes, seed)
    return chosen
