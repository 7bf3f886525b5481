"""The command line within the test's own process; a fresh one would import torch for seconds."""

import io
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

from mockingjay.cli.main import main


@dataclass(frozen=True)
class Said:
    """What a command came to."""

    code: int
    out: str
    err: str


def mockingjay(*arguments) -> Said:
    """Run a command."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["mockingjay", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
        code = 0
    except SystemExit as leaving:
        code = leaving.code or 0
    finally:
        sys.argv = before
    return Said(code, out.getvalue(), err.getvalue())


def works(*arguments) -> str:
    """Run a command that must succeed without a word on stderr; return what it printed."""
    said = mockingjay(*arguments)
    assert (said.code, said.err) == (0, ""), said
    return said.out


def refuses(code: int, sentence: str, *arguments) -> str:
    """Run a command that must fail with this exit code and one sentence that matches; return the sentence."""
    said = mockingjay(*arguments)
    assert said.code == code, said
    lines = said.err.splitlines()
    assert len(lines) == 1 and re.fullmatch(r"mockingjay: [A-Z]\w+Error: .+: .+[,;] .+", lines[0]), said
    assert re.search(sentence, lines[0]), said
    return lines[0]
