"""docs/papers.md is what scripts/papers.py writes; run that after a change to an objective's module or preset."""

import runpy
from pathlib import Path

import pytest

from mockingjay.objectives import OBJECTIVES

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def papers():
    return runpy.run_path(str(ROOT / "scripts" / "papers.py"))


def test_the_page_is_up_to_date(papers):
    written = (ROOT / "docs" / "papers.md").read_text("utf-8")
    assert papers["page"](papers["compared"](ROOT / "docs")) == written, "run `python scripts/papers.py`"


def test_every_objective_has_its_paper_and_says_how_it_differs(papers):
    page = papers["page"]([])
    for name, objective in OBJECTIVES.items():
        _, citation, differences = papers["sections"](objective)
        assert papers["linked"](citation) != "–" and differences, name
        assert f"\n## {name}\n" in page and f"| [`{name}`](#{name}) |" in page


def test_standings_are_places_among_objectives(papers):
    def row(name, task, value):
        return {"representation": name, "task": task, "value": value}

    rows = [
        row("mel", "phone", 0.9), row("random:apc", "phone", 0.8), row("apc", "phone", 0.5), row("tera", "phone", 0.6),
        row("apc", "objective", 0.1), row("apc", "pitch", 0.25), row("mpc", "phone", None),
    ]  # fmt: skip
    assert papers["standing"]("apc", rows) == "phone 0.500 (2 of 2); pitch 0.250 (1 of 1)"
    assert papers["standing"]("tera", rows) == "phone 0.600 (1 of 2)"
    assert papers["standing"]("mpc", rows) == "–"
