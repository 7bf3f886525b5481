"""The picture of fewer labels: accuracy over the share of the labels, one line a row of the table, and the decks'."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from mockingjay.report.figures import ACCENT, INK, LEAF, PLUM, SOFT, STYLE, WARM, WIDTH, Drawing, apart
from mockingjay.report.tables import Row

_BAND = 0.13  # opacity
_LOOKS: Mapping[str, tuple[str, Any]] = {
    "Mel": (INK, "-"),
    "BASE": (ACCENT, (0, (1.5, 1.5))),
    "LARGE": (ACCENT, (0, (5, 2))),
    "LARGE-WS": (ACCENT, "-"),
    "BASE-FT2": (WARM, "-"),
    "APC": (LEAF, "-"),
    "BASE untrained": (SOFT, (0, (1.5, 1.5))),
    "BASE-FT2 from scratch": (PLUM, (0, (5, 2, 1.5, 2))),
}


def fewer_labels(rows: Sequence[Row], published: Mapping[str, Mapping[str, float]]) -> Drawing:
    """Draw every row's value over its shares, on a logarithmic axis, with bands; below, the decks' figure.

    Args:
        rows: Of one column, with `share`, `ci95` and `values`.
        published: The decks' figures in %: row → share such as "0.1 %" → value; none for other columns than theirs.
    """
    names = list(dict.fromkeys(row["representation"] for row in rows))
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, 3.9 + 3.1 * bool(published)), layout="constrained")
        ratios = [1.0, 0.72][: 1 + bool(published)]
        panels = canvas.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
        panels[0].set_title(f"Measured here: {rows[0]['task']} of {rows[0]['data']}")
        lines = {name: [row for row in rows if row["representation"] == name] for name in names}
        for name, line in lines.items():
            _measured(panels[0], name, line)
        _name(panels[0], {name: (line[-1]["share"], 100 * line[-1]["value"]) for name, line in lines.items()})
        if published:
            _theirs(panels[1], published)
        ticks = sorted({row["share"] for row in rows} | {float(s[:-2]) / 100 for p in published.values() for s in p})
        for axes in panels:
            axes.set_xscale("log")
            axes.set_xlim(ticks[-1] * 1.15, ticks[0] / 1.15)
            axes.set_xticks(ticks, [f"{100 * tick:g}" for tick in ticks])
            axes.minorticks_off()
            axes.grid(axis="y")
            axes.set_ylabel("accuracy (%)")
        panels[-1].set_xlabel("share of the labels (%), fewer to the right")
    least = min(row["share"] for row in rows)
    last = ", ".join(f"{row['representation']} {100 * row['value']:.1f} %" for row in rows if row["share"] == least)
    caption = (
        "Lines are means over draws of the labels, dots single draws, bands 95 % intervals of the mean over test "
        "utterances." + (" Below, the decks' figure on LibriSpeech, read off the paper's." if published else "")
    )
    return Drawing(canvas, f"Accuracy over shares of the labels; with {100 * least:g} % of them: {last}.", caption)


def _measured(axes: Axes, name: str, line: Sequence[Row]) -> None:
    colour, dashes = _LOOKS.get(name, (SOFT, "-"))
    shares = [row["share"] for row in line]
    low, high = ([100 * row["ci95"][end] for row in line] for end in (0, 1))
    axes.fill_between(shares, low, high, color=colour, alpha=_BAND, linewidth=0)
    axes.plot(shares, [100 * row["value"] for row in line], color=colour, linestyle=dashes, linewidth=1.5)
    dots = [(row["share"], 100 * value) for row in line for value in row["values"]]
    axes.plot(*zip(*dots), "o", color=colour, markersize=2.2, alpha=0.7)


def _theirs(axes: Axes, published: Mapping[str, Mapping[str, float]]) -> None:
    axes.set_title("The decks: 72 phones of LibriSpeech, 100 % are 360 hours")
    ends = {}
    for name, figures in published.items():
        colour, dashes = _LOOKS.get(name, (SOFT, "-"))
        points = [(float(share[:-2]) / 100, value) for share, value in figures.items()]
        axes.plot(*zip(*points), color=colour, linestyle=dashes, linewidth=1.5)
        ends[name] = min(points)
    _name(axes, ends)


def _name(axes: Axes, ends: Mapping[str, tuple[float, float]]) -> None:
    """Write each line's name at its right end."""
    low, high = axes.get_ylim()
    heights = apart({name: value for name, (_, value) in ends.items()}, 0.055 * (high - low))
    for name, (share, _) in ends.items():
        place = {"xytext": (8, 0), "textcoords": "offset points", "va": "center", "annotation_clip": False}
        axes.annotate(name, (share, heights[name]), color=_LOOKS.get(name, (SOFT, "-"))[0], fontsize=8.5, **place)
