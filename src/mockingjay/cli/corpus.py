"""`mockingjay corpus`: look at a corpus, write it for other toolkits or as fMLLR features, or make the embedded one."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mockingjay.cli.options import Json, Quiet, Seed, Sets

Format = Literal["lhotse", "kaldi", "nemo"]

app = typer.Typer(
    help="Look at a corpus, write it for other toolkits or as fMLLR features, or make the embedded one.",
    no_args_is_help=True,
)


@app.command("inspect")
def inspect(
    path: Annotated[Path, typer.Argument(help="A folder of audio, a manifest, a CSV, or a corpus in its own layout.")],
    json: Json = False,
) -> None:
    """Print hours, rates, speakers, clipping, silence, duplicates and files that cannot be used."""
    import json as encoder

    from mockingjay.data.corpora import open_corpus
    from mockingjay.data.scan import scan

    health = scan(open_corpus(path), minimum_seconds=0.0)
    if json:
        print(encoder.dumps(health.as_dict()))
        return
    for name, value in health.rows():
        print(f"{name:<42} {value}")
    for refusal in health.corpus.refused:
        print(f"refused: {refusal.text}")


@app.command("export")
def export(
    path: Annotated[Path, typer.Argument(help="A folder of audio, a manifest, a CSV, or a corpus in its own layout.")],
    to: Annotated[Format, typer.Option("--to", help="lhotse, kaldi or nemo.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the lists; the audio stays where it is.")],
    quiet: Quiet = False,
) -> None:
    """Write a corpus's lists as another toolkit reads them."""
    from mockingjay.cli.output import read_corpus, teller
    from mockingjay.data.export import export as library_export

    say = teller(quiet)
    for written in library_export(read_corpus(path, say), to, out):
        say(str(written))


@app.command("fmllr")
def fmllr(
    path: Annotated[Path, typer.Argument(help="A folder of audio, a manifest, a CSV, or a corpus in its own layout.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the features and their manifest.")],
    model: Annotated[
        Path | None, typer.Option("--model", help="A folder that this command wrote: adapt to its model, fit none.")
    ] = None,
    changes: Sets = None,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write cepstra adapted to every speaker (fMLLR), as a corpus that `--preset fmllr` of TERA reads."""
    import json as encoder
    from dataclasses import asdict

    from mockingjay.cli.output import read_corpus, teller
    from mockingjay.core.config import assignments, overlay
    from mockingjay.downstream.fmllr import Config
    from mockingjay.downstream.fmllr import fmllr as library_fmllr

    say = teller(quiet or json)
    config = overlay(Config(), assignments(changes or ()))
    for voice in library_fmllr(read_corpus(path, say).utterances, out, config, seed, model, say):
        if json:
            print(encoder.dumps(asdict(voice)))
    say(f"features: {out}")


@app.command("talking")
def talking(
    minutes: Annotated[float, typer.Option("--minutes", help="Minutes of speech.")] = 30.0,
    seed: Seed = 0,
) -> None:
    """Make the embedded corpus of synthetic speech, or find it, and print its folder."""
    from mockingjay.data.talking import talking

    print(talking(seed=seed, minutes=minutes, workers=2))
