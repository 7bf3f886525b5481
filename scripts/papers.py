"""Write docs/papers.md from the table of objectives: run `python scripts/papers.py` after a change to one of them.

What a method's module says of its paper stands there once and is only quoted here; sizes and strides are those of the
preset `base`, whose encoder is built without memory. `docs/compare.json`, where there is one, holds rows of a
`results.json` that `mockingjay compare` wrote.
"""

import inspect
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mockingjay.core.types import SAMPLE_RATE
from mockingjay.core.untrusted import Hollow
from mockingjay.encoders.encoder import Encoder
from mockingjay.objectives import OBJECTIVES
from mockingjay.objectives.objective import Objective
from mockingjay.settings import settings

DOCS = Path(__file__).parents[1] / "docs"
HEAD = """# Methods and their papers

Written by `python scripts/papers.py` from the table of objectives; change the modules and not this page. Parameters are
those of the encoder that the preset `base` trains, and the stride is that of its steps. Standings are those of
`docs/compare.json`: the value of each task and the place among the objectives compared, where any were.

| objective | paper | parameters | stride | in `compare` |
|---|---|---|---|---|
"""


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the page.

    Args:
        rows: Of a comparison's `results.json`; none where there was no comparison.
    """
    lines, parts = [], []
    for name, objective in OBJECTIVES.items():
        title, citation, differences = sections(objective)
        with Hollow():
            encoder = Encoder(settings(name, "base").objective.encoder)
        millions = sum(each.numel() for each in encoder.parameters()) / 1e6
        stride = f"{1000 * encoder.hop / SAMPLE_RATE:g} ms"
        row = (f"[`{name}`](#{name})", linked(citation), f"{millions:.2f} M", stride, standing(name, rows))
        lines.append(f"| {' | '.join(row)} |\n")
        parts.append("\n\n".join([f"\n## {name}", title, citation, *differences]) + "\n")
    return HEAD + "".join(lines) + "".join(parts)


def sections(objective: type[Objective]) -> tuple[str, str, list[str]]:
    """Cut a module's docstring into its title, its citation, and what it says to differ."""
    document = inspect.getdoc(sys.modules[objective.__module__])
    assert document is not None, "tests/test_architecture.py holds this"
    paragraphs = [" ".join(each.split()) for each in document.split("\n\n")]
    return paragraphs[0], paragraphs[1], [each for each in paragraphs if each.startswith("Differs from")]


def linked(citation: str) -> str:
    """Link the papers that a citation has on arXiv, or name where it was published."""
    numbers = re.findall(r"arXiv (\d{4}\.\d{4,5})", citation)
    if numbers:
        return ", ".join(f"[{number}](https://arxiv.org/abs/{number})" for number in numbers)
    published = re.search(r"(ICASSP|Interspeech|NeurIPS|ICML|ICLR|ACL) \d{4}", citation)
    return published.group() if published else "–"


def standing(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Say how a comparison found an objective, task by task: the value, and the place among all objectives."""
    tasks: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["representation"] in OBJECTIVES and row["task"] != "objective" and row["value"] is not None:
            tasks.setdefault(row["task"], {})[row["representation"]] = row["value"]
    found = [
        f"{task} {values[name]:.3f} ({1 + sum(other > values[name] for other in values.values())} of {len(values)})"
        for task, values in tasks.items()
        if name in values
    ]
    return "; ".join(found) or "–"


def compared(docs: Path) -> list[dict[str, Any]]:
    """Read the rows of the comparison that the documents keep, if they do."""
    path = docs / "compare.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else []


if __name__ == "__main__":
    (DOCS / "papers.md").write_text(page(compared(DOCS)), "utf-8")
