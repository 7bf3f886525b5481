"""The `mockingjay` command. Verbs import what they need when called, so that `--help` starts without torch."""

import sys
import traceback

import typer

from mockingjay.cli import corpus, describe, extract, pretrain, probe, run
from mockingjay.core.errors import MockingjayError

app = typer.Typer(
    name="mockingjay",
    help="Pre-train speech representations on your own audio, and see what they are worth.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("run")(run.run)
app.add_typer(corpus.app, name="corpus")
app.command("pretrain")(pretrain.pretrain)
app.command("extract")(extract.extract)
app.command("probe")(probe.probe)
app.command("finetune")(probe.finetune)
app.command("predict")(probe.predict)
app.command("list")(describe.list_names)
app.command("show")(describe.show)
app.command("doctor")(describe.doctor)


def main() -> None:
    """Run the command line; a failure is one sentence on stderr and the exit code of its class."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
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
