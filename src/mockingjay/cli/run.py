"""`mockingjay run`: from speech to an encoder, a table and a page."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from mockingjay.cli.options import Device, Json, Quiet, Seed, Sets, allowance


def run(
    audio: Annotated[Path | None, typer.Argument(help="A folder of speech; without it, the embedded corpus.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; the same command goes on there.")] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", help="Time for everything, for example 20m; else 9m, or train.steps.")
    ] = None,
    objective: Annotated[str, typer.Option("--objective", help="What to pre-train.")] = "mockingjay",
    preset: Annotated[str, typer.Option("--preset", help="A preset's name or a TOML file.")] = "tiny",
    changes: Sets = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Pre-train on a folder of speech, probe beside log-mel and a random encoder, and write a report."""
    allowance(budget, changes or ())  # told before anything is imported
    from mockingjay.cli.output import print_rows, teller
    from mockingjay.data.corpora import open_corpus
    from mockingjay.data.talking import talking
    from mockingjay.run import run as library_run
    from mockingjay.settings import sets_steps, settings

    chosen = settings(objective, preset, changes or (), seed)
    allowed = allowance(budget, changes or (), default=None if sets_steps(objective, preset) else "9m")
    say = teller(quiet or json)
    if audio is None:
        say("preparing the embedded corpus")
        corpus = replace(open_corpus(talking(workers=2)), name="talking")
    else:
        corpus = open_corpus(audio)
    out = out or Path("runs") / f"{objective}-{corpus.name}"
    command = ["mockingjay", *sys.argv[1:]]
    outcome = library_run(chosen, corpus, out, budget=allowed, device=device, seed=seed, say=say, command=command)
    if outcome.pretrained.stopped:
        say(f"stopped at step {outcome.pretrained.steps}; the same command goes on")
        raise typer.Exit(outcome.pretrained.stopped)
    print_rows(outcome.rows, json, quiet)
    say(f"report: {outcome.page}")
