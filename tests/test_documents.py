"""The documents are true to the tree and the command line: each verb, option, file and test that they name is there."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from mockingjay.cli.main import app

ROOT = Path(__file__).parents[1]
# docs/log.md says what was typed on its day.
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name != "log.md"),
]
TYPED = re.compile(r"(?:^|`|uv run |-m )mockingjay ([a-z][^`\n]*)", re.MULTILINE)
ROWS = re.compile(r"^\| `mockingjay ([a-z].*)$", re.MULTILINE)  # a row about a verb names more of its options
FILES = re.compile(r"`((?:src|docs|tests|benchmarks|scripts)/[\w./-]*)`")
TESTS = re.compile(r"`(?:tests/)?((?:\w+/)?test_\w+\.py)(?:::(test_\w+))?")
ANYWHERE = {"--help", "--debug"}


def options(typed):
    """List the options of the verb that a command begins with, or of the verb below it."""
    command, words = get_command(app), iter(re.findall(r"[a-z]+", typed))
    while hasattr(command, "commands"):
        command = command.commands[next(words)]
    return ANYWHERE.union(*(parameter.opts for parameter in command.params))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_verbs_and_options_are_there(page):
    text = page.read_text("utf-8")
    for typed in (*TYPED.findall(text), *ROWS.findall(text)):
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", typed)) <= options(typed), typed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_tests_are_there(page):
    text = page.read_text("utf-8")
    for name in FILES.findall(text):
        assert (ROOT / name).exists(), name
    for name, test in TESTS.findall(text):
        file = ROOT / "tests" / name
        assert file.is_file() and f"def {test}" in file.read_text("utf-8"), (name, test)


def test_what_the_readme_types_is_found():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(TYPED.findall(text)) >= 20 and len(ROWS.findall(text)) >= 15
    assert "--preset" in options("pretrain apc") and "--model" in options("corpus fmllr PATH")
    with pytest.raises(KeyError):
        options("prtrain apc")
