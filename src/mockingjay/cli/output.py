"""What verbs print."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from mockingjay.report.tables import print_table


def teller(quiet: bool) -> Callable[[str], None]:
    """Make the function that verbs hand down to be told progress."""
    return (lambda line: None) if quiet else (lambda line: print(line, flush=True))


def print_rows(rows: Sequence[Mapping[str, Any]], as_json: bool, quiet: bool) -> None:
    """Print result rows as a table, or as JSON lines for machines."""
    if as_json:
        for row in rows:
            print(json.dumps(row))
    elif not quiet:
        print_table(list(rows), Console())
