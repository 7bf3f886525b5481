"""The pictures: numbers in, drawings out.

Drawn on `Figure` objects without pyplot, so no figure is global and no display is needed. On the page a drawing is
inline SVG whose colours are the page's own (a `var()` with the light scheme's colour as fallback), so it follows the
dark scheme; in the run folder it is a PNG. The same numbers give the same bytes.
"""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from torch import Tensor

from mockingjay.core.files import write_atomically
from mockingjay.report.page import Figure
from mockingjay.report.tables import Column, Layout, Row, lay_out, metric
from mockingjay.train.validation import BOUND

PAPER, INK, SOFT, LINE = "#fdfdfc", "#1c1d20", "#5d626a", "#d8d9d5"
ACCENT, WARM, LEAF, PLUM = "#1c5d99", "#b4531a", "#3c7a3f", "#7a4a8c"
# The names these colours have in page.css, where the dark scheme changes them.
VARIABLES = {
    **{PAPER: "paper", INK: "ink", SOFT: "soft", LINE: "line"},
    **{ACCENT: "accent", WARM: "warm", LEAF: "leaf", PLUM: "plum"},
}
WIDTH = 7.65  # inches; the page's column at 96 pixels per inch
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlepad": 8,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "text.color": INK,
    "text.parse_math": False,  # a task may be called $x$
    "axes.formatter.use_mathtext": False,
    "figure.facecolor": "none",
    "figure.constrained_layout.h_pad": 0.09,
    "svg.fonttype": "none",
    "path.simplify": True,
}
_DASHES = ((WARM, (0, (5, 2))), (LEAF, (0, (1.5, 1.5))), (PLUM, (0, (5, 2, 1.5, 2))))


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture with the words that stand for it."""

    canvas: Canvas
    alt: str
    caption: str


def inline(drawing: Drawing, name: str) -> Figure:
    """Turn a drawing into a block of the page; the name keeps its ids apart from other drawings'."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    _save(drawing.canvas, buffer, {"svg.hashsalt": name}, format="svg", metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # figure_1, line2d_1 …: referred to by nobody, twice on a page
    svg = re.sub(r": (#[0-9a-f]{6})\b", lambda found: f": {_variable(found[1])}", svg)
    return Figure(svg, drawing.alt, drawing.caption)


def save_png(drawing: Drawing, path: Path) -> None:
    """Save a drawing as a PNG on a light ground.

    Raises:
        MachineError: The file cannot be written.
    """
    buffer = io.BytesIO()
    _save(drawing.canvas, buffer, {}, format="png", dpi=200, facecolor=PAPER, metadata={"Software": None})
    write_atomically(path, buffer.getvalue())


def training_curve(metrics: Sequence[Mapping[str, Any]], measure: str = "loss") -> Drawing:
    """Draw the loss, and on held-out speech the model's beside the dumb predictors' where it was measured.

    Args:
        metrics: Logged lines with `step` and `loss`; some have `validation`, mapping `model` and each predictor to its
            own.
        measure: What that is, for example "mean absolute error on masked frames".
    """
    checked = [line for line in metrics if line.get("validation")]
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, 2.3 + 2.5 * bool(checked)), layout="constrained")
        rows = canvas.subplots(1 + bool(checked), 1, sharex=True, squeeze=False)[:, 0]
        logged = [line for line in metrics if line.get("loss") is not None]
        _line(rows[0], [line["step"] for line in logged], [line["loss"] for line in logged], color=ACCENT, linewidth=1)
        rows[0].set_title("Training loss")
        if checked:
            _held_out(rows[1], checked, measure)
        for axes in rows:
            axes.grid(axis="y")
            axes.margins(x=0.01)
        rows[-1].set_xlabel("step")
        rows[-1].xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    alt = f"Training loss from step {metrics[0]['step']} to {metrics[-1]['step']}."
    if checked:
        last = checked[-1]
        values = ", ".join(f"{name} {value:.3f}" for name, value in last["validation"].items())
        alt += f" Held-out {measure} at step {last['step']}: {values}."
    caption = "Loss per optimiser step" + (
        f"; below, the {measure} of held-out speech, the model beside predictors that learn nothing."
        if checked
        else ". No validation has been logged yet, so nothing can be said about held-out speech."
    )
    if checked and BOUND in checked[-1]["validation"]:
        caption += f" Below the {BOUND} of its targets no model can go."
    return Drawing(canvas, alt, caption)


def spectrograms(
    true: Float[Tensor, "time dim"],
    masked: Float[Tensor, "time _"],
    rebuilt: Float[Tensor, "time dim"],
    hidden: Bool[Tensor, " time"],
    hop_seconds: float,
) -> Drawing:
    """Draw what was said, what the network was shown and what it rebuilt, in one colour range.

    Args:
        true: The frames as they are.
        masked: The network's actual input.
        rebuilt: The network's answer for every frame.
        hidden: The frames that were selected; marked by a bar over each panel.
        hop_seconds: Seconds from a frame to the next.
    """
    panels = [values.detach().float().cpu().numpy() for values in (true, masked, rebuilt)]
    low, high = np.percentile(np.concatenate([panel.ravel() for panel in panels]), (0.5, 99.5))
    chosen = hidden.cpu().numpy()
    seconds = len(chosen) * hop_seconds
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, 5.6), layout="constrained")
        axes = canvas.subplots(3, 1, sharex=True)
        for row, panel, title in zip(axes, panels, ("True", "Masked: what the network reads", "Rebuilt")):
            extent = (0, seconds, 0, panel.shape[1])
            shown = {"cmap": "magma", "vmin": low, "vmax": high, "interpolation": "none"}
            image = row.imshow(panel.T, origin="lower", aspect="auto", extent=extent, **shown)
            row.set_title(title, pad=13)
            row.set_ylabel("channel")
            _mark(row, chosen, hop_seconds)
        axes[-1].set_xlabel("time (s)")
        bar = canvas.colorbar(image, ax=axes, shrink=0.5, aspect=30, pad=0.015, label="value, one range for all three")
        bar.outline.set_visible(False)
    count = f"{chosen.sum()} of {len(chosen)} frames"
    alt = f"Spectrograms of {seconds:.1f} s of speech: true, masked and rebuilt; {count} were masked."
    return Drawing(canvas, alt, f"Bars over the panels mark what was masked, {count}.")


def layer_weights(weights: Mapping[str, Sequence[float]]) -> Drawing:
    """Draw the mixing weights per layer, one panel per task; layer 0 is the input projection."""
    columns = min(len(weights), 3)
    lines = -(-len(weights) // columns)
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, 0.4 + 1.9 * lines), layout="constrained")
        panels = canvas.subplots(lines, columns, sharey=True, squeeze=False)
        for axes, (task, values) in zip(panels.flat, weights.items()):
            axes.bar(range(len(values)), values, width=0.72, color=ACCENT)
            axes.axhline(1 / len(values), color=WARM, linewidth=1, linestyle=(0, (4, 3)))
            axes.set_title(task)
            axes.set_xticks(range(0, len(values), 1 + len(values) // 14))
            axes.grid(axis="y")
            axes.set_xlabel("layer")
        for axes in panels.flat[len(weights) :]:
            axes.set_visible(False)
        for axes in panels[:, 0]:
            axes.set_ylabel("weight")
    tops = [f"{task}: most on layer {np.argmax(values)}, {max(values):.2f}" for task, values in weights.items()]
    caption = (
        "Weights with which each probe mixes the layers; layer 0 is the input projection, the dashed line an even mix."
    )
    return Drawing(canvas, f"Layer weights. {'; '.join(tops)}.", caption)


def results_intervals(rows: Sequence[Row]) -> Drawing:
    """Draw every result as a dot on its 95 % interval, one panel per task, with the majority baseline as a line."""
    grid = lay_out(rows)
    columns = 1 if len(grid.columns) <= 3 else 2
    lines = -(-len(grid.columns) // columns)
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, (0.75 + 0.24 * len(grid.names)) * lines), layout="constrained")
        panels = canvas.subplots(lines, columns, sharey=True, squeeze=False)
        for axes, column in zip(panels.flat, grid.columns):
            _intervals(axes, grid, column)
        for axes in panels.flat[len(grid.columns) :]:
            axes.set_visible(False)
        for axes in panels[:, 0]:
            axes.set_yticks(range(len(grid.names)), grid.names, color=INK)
        panels[0, 0].set_ylim(len(grid.names) - 0.4, -0.6)
    tasks = ", ".join(dict.fromkeys(column.task for column in grid.columns))
    caption = (
        "The same values as dots on their 95 % intervals; "
        "a dashed line is what always giving the commonest answer reaches."
    )
    return Drawing(canvas, f"Dots with 95 % intervals of {len(grid.names)} representations on {tasks}.", caption)


def health_histograms(durations: Sequence[float], levels: Sequence[float]) -> Drawing:
    """Draw how long (s) and how loud (dB re full scale) the utterances are."""
    given = [
        (values, title, unit)
        for values, title, unit in ((durations, "Durations", "seconds"), (levels, "Levels", "dB re full scale"))
        if len(values)
    ]
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, 2.3), layout="constrained")
        panels = canvas.subplots(1, len(given), squeeze=False)[0]
        for axes, (values, title, unit) in zip(panels, given):
            heights, edges = np.histogram(values, bins=40)
            axes.stairs(heights, edges, fill=True, color=ACCENT)
            axes.set_title(title)
            axes.set_xlabel(unit)
            axes.grid(axis="y")
            axes.yaxis.get_major_locator().set_params(integer=True)
        panels[0].set_ylabel("utterances")
    words = [
        f"{title.lower()} from {min(values):.1f} to {max(values):.1f} {unit}, median {np.median(values):.1f}"
        for values, title, unit in given
    ]
    sentence = "; ".join(words).replace("-", "\N{MINUS SIGN}") + "."
    return Drawing(canvas, f"Histograms: {sentence}", sentence[:1].upper() + sentence[1:])


def _save(canvas: Canvas, buffer: io.StringIO | io.BytesIO, style: Mapping[str, Any], **how: Any) -> None:
    with mpl.rc_context(STYLE | dict(style)), warnings.catch_warnings():
        # Labels in any script: the browser has fonts for what matplotlib's own lacks.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph", category=UserWarning)
        canvas.savefig(buffer, **how)


def _variable(colour: str) -> str:
    return f"var(--{VARIABLES[colour]}, {colour})" if colour in VARIABLES else colour


def _line(axes: Axes, steps: Sequence[int], values: Sequence[float], **style: Any) -> None:
    axes.plot(steps, values, marker="o" if len(steps) == 1 else None, markersize=4, solid_joinstyle="round", **style)


def _held_out(axes: Axes, checked: Sequence[Mapping[str, Any]], measure: str) -> None:
    names = [name for name in checked[-1]["validation"] if name != "model"]
    styles: dict[str, dict[str, Any]] = {
        name: {"color": colour, "linestyle": dashes, "linewidth": 1.2}
        for name, (colour, dashes) in zip(names, _DASHES * (1 + len(names) // len(_DASHES)))
    }
    styles["model"] = {"color": ACCENT, "linewidth": 2}
    ends = {}
    for name, style in styles.items():
        values = [(line["step"], line["validation"].get(name)) for line in checked]
        points = [(step, value) for step, value in values if value is not None]
        if points:
            _line(axes, *zip(*points), **style)
            ends[name] = points[-1]
    axes.set_title(f"Held-out {measure}")
    low, high = axes.get_ylim()
    heights = apart({name: value for name, (_, value) in ends.items()}, 0.075 * (high - low))
    for name, (step, _) in ends.items():
        place = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "annotation_clip": False}
        look = {"color": styles[name]["color"], "fontsize": 8.5, "fontweight": "bold" if name == "model" else "normal"}
        axes.annotate(name, (step, heights[name]), **place, **look)


def apart(heights: Mapping[str, float], gap: float) -> dict[str, float]:
    """Push labels apart until neighbours stand a gap from one another, around their middle."""
    order = sorted(heights, key=heights.__getitem__)
    placed = {name: heights[name] for name in order}
    for _ in range(50):
        for below, above in pairwise(order):
            lack = gap - (placed[above] - placed[below])
            if lack > 0:
                placed[below] -= lack / 2
                placed[above] += lack / 2
    return placed


def _mark(axes: Axes, chosen: Bool[np.ndarray, " time"], hop_seconds: float) -> None:
    edges = np.flatnonzero(np.diff(chosen.astype(np.int8), prepend=0, append=0)) * hop_seconds
    spans = [(start, end - start) for start, end in zip(edges[::2], edges[1::2])]
    over = axes.get_xaxis_transform()
    axes.broken_barh(spans, (1.03, 0.06), transform=over, facecolor=WARM, linewidth=0, clip_on=False)
    axes.vlines(edges, 0, 1, transform=over, color="#ffffff", linewidth=0.5, alpha=0.7)


def _intervals(axes: Axes, grid: Layout, column: Column) -> None:
    scale = 100 if metric(column.metric).share else 1
    bounds = {row["majority"] for _, row in grid.column(column) if row.get("majority") is not None}
    for bound in bounds:
        axes.axvline(scale * bound, color=WARM, linewidth=1, linestyle=(0, (4, 3)))
    best = grid.best(column)
    for name, row in grid.column(column):
        height = grid.names.index(name)
        colour = ACCENT if row["value"] == best or best is None else SOFT
        if row["ci95"] is not None:
            reach = [scale * bound for bound in row["ci95"]]
            axes.plot(reach, [height] * 2, color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot(scale * row["value"], height, "o", color=colour, markersize=5.5)
    axes.set_title(column.task)
    axes.set_xlabel(f"{column.metric}{' (%)' if scale == 100 else ''}{', ' + column.data if column.data else ''}")
    axes.grid(axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.08)
