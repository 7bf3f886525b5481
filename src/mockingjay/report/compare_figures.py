"""The pictures of a comparison: what each objective gains over log-mel and its own beginnings, and how each learnt."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle

from mockingjay.report.figures import ACCENT, INK, SOFT, STYLE, WARM, WIDTH, Drawing
from mockingjay.report.tables import Column, Row
from mockingjay.train.validation import BOUND

_STRONGEST = 0.55  # opacity of the largest difference: dark enough to see, light enough to read through
_UNSURE = 0.15  # the same where chance may have made it
_PANELS = 3  # learning curves side by side


def features_as_they_are(rows: Sequence[Row]) -> tuple[str, str]:
    """Find the name and the word of what stands in the first row: log-mel, or features made elsewhere."""
    name = rows[0]["representation"]
    return name, "log-mel" if name == "mel" else "the features"


def gains(names: Sequence[str], columns: Sequence[Column], rows: Sequence[Row]) -> Drawing:
    """Draw how much better each trained encoder is than features as they are, and than the same network untrained.

    Args:
        names: Of the trained encoders, from the top.
        columns: Of the questions.
        rows: Result rows; `over` holds the paired differences to the features and to `random:<name>`.
    """
    cells = {(row["representation"], row["task"], row["data"]): row.get("over", {}) for row in rows}
    plain, word = features_as_they_are(rows)
    bar = f"against {word}"
    panels = {bar: plain, "against the same network untrained": "random:{}"}
    found: dict[tuple[str, str, Column], Mapping[str, Any]] = {}
    for title, rival in panels.items():
        for name in names:
            for column in columns:
                over = cells.get((name, column.task, column.data), {}).get(rival.format(name))
                if over is not None:
                    found[title, name, column] = over
    largest = {
        column: max((abs(o["value"]) for (_, _, c), o in found.items() if c == column), default=0.0)
        for column in columns
    }
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, 1.25 + 0.27 * len(names)), layout="constrained")
        for axes, title in zip(canvas.subplots(1, 2, sharey=True), panels):
            _frame(axes, title, names, columns)
            for row, name in enumerate(names):
                for place, column in enumerate(columns):
                    _cell(axes, place, row, found.get((title, name, column)), largest[column], column)
    sure = sum(over["verdict"] == "holds" for (title, *_), over in found.items() if title == bar)
    measured = sum(title == bar for title, *_ in found)
    caption = (
        "Differences in percentage points, of R² in hundredths, paired by utterance: blue is better, orange worse, the "
        "stronger the larger within a question. Bold where the 95 % interval of the difference leaves out zero; "
        "the pale ones may be chance."
    )
    return Drawing(canvas, f"Heat map of differences; {sure} of {measured} are surely better than {word}.", caption)


def learning_curves(curves: Mapping[str, Sequence[Row]]) -> Drawing:
    """Draw every objective on held-out speech beside its trivial predictors, one panel each."""
    shown = {name: [line for line in lines if line.get("validation")] for name, lines in curves.items()}
    lines = -(-len(shown) // _PANELS)
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, 0.4 + 1.75 * lines), layout="constrained")
        panels = canvas.subplots(lines, min(_PANELS, len(shown)), squeeze=False)
        for axes, (name, checked) in zip(panels.flat, shown.items()):
            _curve(axes, name, checked)
        for axes in panels.flat[len(shown) :]:
            axes.set_visible(False)
    caption = (
        "The objective on held-out speech by optimiser step, each in its own units; dashed is what predictors reach "
        "that learn nothing, named at their height."
    )
    if any(BOUND in line["validation"] for checked in shown.values() for line in checked):
        caption += f" Below the {BOUND} of its targets no model can go."
    return Drawing(canvas, f"Held-out learning curves of {', '.join(shown)}.", caption)


def _frame(axes: Axes, title: str, names: Sequence[str], columns: Sequence[Column]) -> None:
    axes.set_title(title)
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(names), 0)
    axes.set_xticks(
        np.arange(len(columns)) + 0.5, [column.task.removeprefix("label:") for column in columns], color=INK
    )
    axes.set_yticks(np.arange(len(names)) + 0.5, names, color=INK)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _cell(axes: Axes, place: int, row: int, over: Mapping[str, Any] | None, largest: float, column: Column) -> None:
    middle = {"x": place + 0.5, "y": row + 0.5, "ha": "center", "va": "center_baseline", "fontsize": 8}
    if over is None:
        axes.text(s="–", color=SOFT, **middle)
        return
    value, sure = over["value"], over["verdict"] != "undecided"
    strength = (_STRONGEST if sure else _UNSURE) * abs(value) / largest if largest else 0.0
    colour = ACCENT if value > 0 else WARM
    axes.add_patch(Rectangle((place + 0.02, row + 0.04), 0.96, 0.92, facecolor=colour, alpha=strength, linewidth=0))
    text = f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")
    axes.text(s=text, color=INK if sure else SOFT, fontweight="bold" if sure else "normal", **middle)


def _curve(axes: Axes, name: str, checked: Sequence[Row]) -> None:
    axes.set_title(name)
    axes.margins(x=0.02)
    axes.grid(axis="y")
    axes.locator_params(nbins=4)
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    steps = [line["step"] for line in checked]
    predictors = [key for key in checked[-1]["validation"] if key != "model"] if checked else []
    for predictor in predictors:
        values = [line["validation"][predictor] for line in checked]
        axes.plot(steps, values, color=WARM, linewidth=0.9, linestyle=(0, (5, 2)))
        place = {"xytext": (0, 2), "textcoords": "offset points", "ha": "right", "va": "bottom"}
        axes.annotate(predictor, (steps[-1], values[-1]), color=WARM, fontsize=6.5, **place)
    axes.plot(steps, [line["validation"]["model"] for line in checked], color=ACCENT, linewidth=1.6)
