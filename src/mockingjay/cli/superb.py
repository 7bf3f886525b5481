"""`mockingjay superb`: SUPERB's heads on whatever labelled speech there is."""

from typing import Annotated

import typer

from mockingjay.cli.options import Data, Device, Json, Out, Quiet, Seed, Sets


def superb(
    representation: Annotated[str, typer.Argument(help="mel, a run's folder, random:…; see `mockingjay list`.")],
    data: Data,
    out: Out,
    tasks: Annotated[
        str, typer.Option("--tasks", help="all that the labels allow, or some of PR,KS,SID,ER,ASR.")
    ] = "all",
    changes: Sets = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask SUPERB's questions of a frozen representation: its heads, the rate chosen on dev, several seeds."""
    from mockingjay.cli.output import print_rows, read_corpus, teller
    from mockingjay.core.config import assignments, overlay
    from mockingjay.open import kept_name, open_representation
    from mockingjay.report.tables import write_results
    from mockingjay.studies.superb import SAID, Config, parts
    from mockingjay.studies.superb import superb as library_superb
    from mockingjay.train.distributed import device_called

    config = overlay(Config(), assignments(changes or ()))
    say = teller(quiet or json)
    corpus = read_corpus(data, say)
    only = () if tasks == "all" else tuple(code.strip() for code in tasks.split(","))
    asked = parts(corpus, config, seed, only, say)
    opened = open_representation(representation, seed, corpus.utterances)
    name = kept_name(opened, representation, seed, out)
    opened.to(device_called(device))
    if any(part.head == "blstm1024" for part in asked) and device_called(device).type == "cpu":
        say("ASR: two layers of 1024 cells take hours on a CPU; --set recogniser=blstm takes minutes")
    rows = []
    for rows in library_superb(representation, name, opened, asked, out, config, seed=seed, say=say):
        write_results(out / "results.json", rows)
    print_rows(rows, json, quiet)
    say(SAID)
