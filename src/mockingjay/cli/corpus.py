"""`mockingjay corpus`: look at a corpus, or make the embedded one."""

from pathlib import Path
from typing import Annotated

import typer

from mockingjay.cli.options import Json, Seed

app = typer.Typer(help="Look at a corpus, or make the embedded one.", no_args_is_help=True)


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


@app.command("talking")
def talking(
    minutes: Annotated[float, typer.Option("--minutes", help="Minutes of speech.")] = 30.0,
    seed: Seed = 0,
) -> None:
    """Make the embedded corpus of synthetic speech, or find it, and print its folder."""
    from mockingjay.data.talking import talking

    print(talking(seed=seed, minutes=minutes, workers=2))
