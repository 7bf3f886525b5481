"""`mockingjay extract`: features into files."""

from typing import Annotated, Literal

import typer

from mockingjay.cli.options import Data, Device, Out, Quiet, Seed

Pool = Literal["none", "mean"]
Format = Literal["npy", "safetensors", "parquet"]


def extract(
    representation: Annotated[str, typer.Argument(help="mel, a run's folder, random:…; see `mockingjay list`.")],
    data: Data,
    out: Out,
    layers: Annotated[str, typer.Option("--layers", help="last, all, or indices such as 0,3.")] = "last",
    pool: Annotated[Pool, typer.Option("--pool", help="none, or mean over time.")] = "none",
    format: Annotated[Format, typer.Option("--format", help="npy, safetensors or parquet.")] = "npy",
    shard: Annotated[str, typer.Option("--shard", help="k/n: the k-th of n parts.")] = "1/1",
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Write features of every utterance; the same command again continues."""
    from mockingjay.cli.output import read_corpus, teller
    from mockingjay.downstream.extract import extract as library_extract
    from mockingjay.open import kept_name, open_representation
    from mockingjay.train.distributed import device_called

    say, place = teller(quiet), device_called(device)
    utterances = read_corpus(data, say).utterances
    opened = open_representation(representation, seed, utterances).to(place)
    name = kept_name(opened, representation, seed, out)
    done = library_extract(opened, utterances, out, layers, pool, format, shard, name)
    say(
        f"{out}: {done.written} written, {done.kept} there already, {len(done.short)} too short, {done.refused} refused"
    )
