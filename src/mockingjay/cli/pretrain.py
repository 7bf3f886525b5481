"""`mockingjay pretrain`: train an objective on audio."""

from typing import Annotated

import typer

from mockingjay.cli.options import Data, Device, Out, Quiet, Seed, Sets, allowance


def pretrain(
    objective: Annotated[str, typer.Argument(help="An objective, as `mockingjay list` names it.")],
    data: Data,
    out: Out,
    preset: Annotated[str | None, typer.Option("--preset", help="A preset's name or a TOML file.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Optimiser steps: --set train.steps=N.")] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Time for training, for example 2h.")] = None,
    save_every: Annotated[int | None, typer.Option("--save-every", help="Steps between checkpoints.")] = None,
    init: Annotated[str | None, typer.Option("--init", help="An encoder or run folder to go on from.")] = None,
    changes: Sets = None,
    seed: Seed = 0,
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check paths and settings, print these only.")] = False,
    quiet: Quiet = False,
) -> None:
    """Pre-train an encoder; the same command again continues where it was."""
    from mockingjay.cli.output import teller
    from mockingjay.core.config import to_toml
    from mockingjay.data.corpora import open_corpus
    from mockingjay.data.manifest import amount
    from mockingjay.data.splits import untested
    from mockingjay.open import open_start
    from mockingjay.pretrain import examine, pretrain
    from mockingjay.rounds import recognise
    from mockingjay.settings import settings
    from mockingjay.train.ledger import beginning

    shortcuts = {"train.steps": steps, "upkeep.save_every": save_every}
    changes = [*(changes or ()), *(f"{path}={value}" for path, value in shortcuts.items() if value is not None)]
    allowed = allowance(budget, changes)
    chosen = settings(objective, preset, changes, seed)
    say = teller(quiet)
    start = open_start(init, chosen.objective, say) if init is not None else None
    recognise(chosen, out, init=beginning(start))
    corpus = open_corpus(data)
    if dry_run:
        print(to_toml(chosen, comments=True), end="")
        print(f"# {corpus.name}: {amount(corpus.utterances)}")
        return
    health = examine(corpus, chosen, out, say)
    learnt = untested(health.corpus.utterances, say)
    trained = pretrain(chosen, learnt, out, budget=allowed, device=device, start=start, say=say)
    if trained.stopped:
        say(f"stopped at step {trained.steps}; the same command goes on")
        raise typer.Exit(trained.stopped)
    say(f"encoder: {out / 'encoder'}")
