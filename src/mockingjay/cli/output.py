"""What verbs print."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from mockingjay.data.corpora import open_corpus
from mockingjay.data.manifest import Corpus
from mockingjay.report.tables import print_table
from mockingjay.train.distributed import leads


def teller(quiet: bool) -> Callable[[str], None]:
    """Make the function that verbs hand down to be told progress; of torchrun's processes one speaks."""
    return (lambda line: None) if quiet or not leads() else (lambda line: print(line, flush=True))


def read_corpus(path: Path, say: Callable[[str], None]) -> Corpus:
    """Open a corpus and say what of it cannot be used.

    Raises:
        DataError: As `open_corpus`.
    """
    corpus = open_corpus(path)
    for refusal in corpus.refused:
        say(refusal.text)
    return corpus


def leave_if(stopped: int, say: Callable[[str], None]) -> None:
    """Exit by the code of the signal that cut a study short, if one has."""
    if stopped:
        say("stopped; the same command goes on")
        raise typer.Exit(stopped)


def print_rows(rows: Sequence[Mapping[str, Any]], as_json: bool, quiet: bool) -> None:
    """Print result rows as a table, or as JSON lines for machines."""
    if as_json:
        for row in rows:
            print(json.dumps(row))
    elif not quiet:
        print_table(list(rows), Console())
