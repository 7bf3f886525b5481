"""`mockingjay abx`: whether a phone said again is nearer than another phone, without training anything."""

from pathlib import Path
from typing import Annotated

import typer

from mockingjay.cli.options import Data, Device, Json, Out, Quiet, Seed, Sets


def abx(
    representation: Annotated[str, typer.Argument(help="mel, a run's folder, random:…; see `mockingjay list`.")],
    data: Data,
    out: Out,
    layers: Annotated[str, typer.Option("--layers", help="last, all, or indices such as 0,3.")] = "all",
    items: Annotated[Path | None, typer.Option("--items", help="A ZeroSpeech item file; else the alignments.")] = None,
    changes: Sets = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure ABX errors within and across speakers, layer by layer, and health figures that need no labels."""
    from mockingjay.cli.output import print_rows, read_corpus, teller
    from mockingjay.core.config import assignments, overlay
    from mockingjay.data.quarantine import Quarantine
    from mockingjay.downstream.abx import Config
    from mockingjay.downstream.extract import layers_of
    from mockingjay.downstream.items import read_items
    from mockingjay.open import open_representation
    from mockingjay.report.tables import write_results
    from mockingjay.studies.abx import abx as library_abx
    from mockingjay.train.distributed import device_called

    config = overlay(Config(), assignments(changes or ()))
    say, place = teller(quiet or json), device_called(device)
    corpus = read_corpus(data, say)
    opened = open_representation(representation, seed, corpus.utterances).to(place)
    listed = read_items(items, corpus.utterances) if items is not None else None
    quarantine = Quarantine(out / "quarantine.jsonl", anew=True)
    rows = []
    for rows in library_abx(
        representation,
        opened,
        corpus,
        layers_of(layers, opened.depth),
        config,
        seed=seed,
        items=listed,
        quarantine=quarantine,
        say=say,
    ):
        write_results(out / "results.json", rows)
    for text in quarantine.texts:
        say(text)
    print_rows(rows, json, quiet)
    for row in rows:
        if row.get("chosen"):
            say(f"{row['task']}: layer {row['layer']} is best on dev; on test {100 * row['value']:.2f} %")
