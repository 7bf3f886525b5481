"""`mockingjay import`: other people's checkpoints into encoder folders."""

from pathlib import Path
from typing import Annotated

import typer

from mockingjay.cli.options import Out, Quiet


def import_(
    file: Annotated[
        Path, typer.Argument(help="s3prl's states-*.ckpt, or a folder with a BERT-like model.safetensors.")
    ],
    out: Out,
    frontend: Annotated[
        str | None, typer.Option("--frontend", help="What made its frames, where its settings do not say: mel, fbank …")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Turn an s3prl checkpoint (Mockingjay, TERA, Audio ALBERT) into an encoder folder; no code in it is run."""
    from mockingjay.cli.output import teller
    from mockingjay.core.errors import ConfigError
    from mockingjay.open import FEATURES, named_frontend
    from mockingjay.representations.foreign import import_foreign

    chosen = named_frontend(frontend) if frontend is not None else None
    if frontend is not None and chosen is None:
        known = ", ".join(FEATURES)
        raise ConfigError(
            f"--frontend {frontend}: unknown, expected {known} or precomputed:<values>; choose one of them"
        )
    say = teller(quiet)
    import_foreign(file, out, chosen, say)
    say(f"encoder: {out}")
