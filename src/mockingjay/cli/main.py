"""The `mockingjay` command. Verbs import what they need when called, so that `--help` starts without torch."""

import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from mockingjay.cli import (
    abx,
    attack,
    attention,
    compare,
    corpus,
    describe,
    extract,
    import_,
    labels,
    plot,
    pretrain,
    probe,
    run,
    superb,
    table,
)
from mockingjay.core.errors import ConfigError, MachineError, MockingjayError, lacks_memory

app = typer.Typer(
    name="mockingjay",
    help="Pre-train speech representations on your own audio, and see what they are worth.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: drawing it in boxes takes longer to import than everything else
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

app.command("run")(run.run)
app.add_typer(corpus.app, name="corpus")
app.command("pretrain")(pretrain.pretrain)
app.command("extract")(extract.extract)
app.command("probe")(probe.probe)
app.command("finetune")(probe.finetune)
app.command("predict")(probe.predict)
app.command("compare")(compare.compare)
app.command("table")(table.table)
app.command("labels")(labels.labels)
app.command("attention")(attention.attention)
app.command("attack")(attack.attack)
app.command("abx")(abx.abx)
app.command("superb")(superb.superb)
app.command("plot")(plot.plot)
app.command("import")(import_.import_)
app.command("list")(describe.list_names)
app.command("show")(describe.show)
app.command("doctor")(describe.doctor)


def main() -> None:
    """Run the command line; a failure is one sentence on stderr and the exit code of its class."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        _stand()
        _start_once(arguments)
        with _room():
            app(arguments)
    except MockingjayError as error:
        if len(arguments) < len(sys.argv) - 1:
            traceback.print_exc()
        print(f"mockingjay: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("mockingjay: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)


def _stand() -> None:
    """Refuse to work in a folder that has been removed, for a library below torch ends the process there."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise MachineError(
            "current folder: it has been removed, expected one that is there; change to another and start again"
        ) from None


def _start_once(arguments: list[str]) -> None:
    """Refuse processes of torchrun that would all do the same, and write it over each other."""
    verb = next(iter(arguments), "--help")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and verb != "pretrain" and not verb.startswith("-"):
        raise ConfigError(
            f"{verb}: started by torchrun as several processes, expected one; start it by itself, or use "
            "pretrain, which several share"
        )


@contextmanager
def _room() -> Iterator[None]:
    """Turn what is raised for want of memory, on a device or on the host, into a sentence."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not lacks_memory(error):
            raise
        found = re.search(r"tried to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE)
        asked = f"{found[1]} more" if found else "more"
        raise MachineError(
            f"memory: none left where {asked} was asked for, expected room for a batch; lower batches.seconds or raise "
            "train.accumulate"
        ) from error
