"""The pictures of the study of attacks: accuracy over the attack's bound, one line a defence."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from mockingjay.report.figures import ACCENT, INK, LEAF, PLUM, SOFT, STYLE, WARM, WIDTH, Drawing
from mockingjay.report.tables import Row

_BAND = 0.12  # opacity
_OWN: tuple[tuple[str, Any], ...] = ((ACCENT, "-"), (ACCENT, (0, (4, 1.5))))  # what is tried, as it is and rebuilt
_LOOKS: Mapping[str, tuple[str, Any]] = {
    "no defence": (INK, "-"),
    "trained again": (INK, (0, (1.5, 1.5))),
    "mean filter": (LEAF, (0, (1.5, 1.5))),
    "median filter": (LEAF, (0, (5, 2))),
    "Gaussian filter": (LEAF, "-"),
    "adversarial training": (PLUM, "-"),
    "untrained network": (WARM, (0, (5, 2))),
    "random noise": (SOFT, (0, (1, 2))),
}


def panels(titled: Mapping[str, Sequence[Row]], label: str, what: str, caption: str, falling: bool = False) -> Drawing:
    """Draw accuracies over levels, two panels side by side.

    Args:
        titled: Title of each panel → its rows with `representation`, `level`, `value` and `ci95`.
        label: Of the axis of levels.
        what: Is drawn, for the picture's words.
        caption: Below.
        falling: Whether attacks are stronger at lower levels; strong ones are always to the right.
    """
    names = list(dict.fromkeys(row["representation"] for found in titled.values() for row in found))
    looks = _chosen(names)
    lines = -(-len(titled) // 2)
    levels = sorted({row["level"] for found in titled.values() for row in found})
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, 0.75 + 2.35 * lines), layout="constrained")
        grid = canvas.subplots(lines, 2, sharex=True, sharey=True, squeeze=False)
        for axes, (title, found) in zip(grid.flat, titled.items()):
            _panel(axes, title, found, looks, _place(0.0, levels))
        for axes in grid.flat[len(titled) :]:
            axes.set_visible(False)
        _frame(grid[0, 0], levels, falling)
        for axes in grid[:, 0]:
            axes.set_ylabel("accuracy (%)")
        for axes in grid[-1]:
            axes.set_xlabel(label)
        handles, _ = grid[0, 0].get_legend_handles_labels()
        how = {"loc": "outside lower center", "ncols": 3, "frameon": False, "fontsize": 8, "handlelength": 3}
        canvas.legend(handles, names, **how)
    return Drawing(canvas, f"{what}: {_words(titled)}.", caption)


def noise(titled: Mapping[str, Sequence[Row]], caption: str) -> Drawing:
    """Draw the ratio of noise to signal over layers, the input first, one panel a countermeasure that was attacked.

    Args:
        titled: Title of each panel → its rows with `representation`, `method`, `level`, `layer` and `value`.
        caption: Below.
    """
    told = []
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, 3.1), layout="constrained")
        grid = canvas.subplots(1, len(titled), sharey=True, squeeze=False)[0]
        for axes, (title, found) in zip(grid, titled.items()):
            axes.set_title(title)
            axes.grid(axis="y")
            axes.set_xlabel("layer")
            lines = dict.fromkeys((row["representation"], row["method"], row["level"]) for row in found)
            strongest = max(found, key=lambda row: row["deviations"])["level"]
            for name, method, level in lines:
                own = [
                    row
                    for row in found
                    if (row["representation"], row["method"], row["level"]) == (name, method, level)
                ]
                colour = SOFT if name in _LOOKS else ACCENT if method == "PGD" else WARM
                dashes = "-" if level == strongest else (0, (4, 1.5))
                places = [-1 if row["layer"] == "input" else row["layer"] for row in own]
                values = [row["value"] for row in own]
                label = f"{name}, {method}, {level:g} dB"
                axes.plot(places, values, color=colour, linestyle=dashes, marker="o", markersize=3, label=label)
                told.append(f"{title}, {label}: {values[0]:.2f} at the input, {values[-1]:.2f} at the last layer")
            axes.set_xticks(places, ["input" if place < 0 else f"{place}" for place in places])
            axes.set_ylim(bottom=0)
        grid[0].set_ylabel("noise to signal")
        how = {"loc": "outside lower center", "ncols": 2, "frameon": False, "fontsize": 8, "handlelength": 3}
        canvas.legend(*grid[0].get_legend_handles_labels(), **how)
    return Drawing(canvas, f"Noise to signal over layers. {'; '.join(told)}.", caption)


def _panel(axes: Axes, title: str, found: Sequence[Row], looks: Mapping[str, tuple[str, Any]], left: float) -> None:
    axes.set_title(title)
    axes.grid(axis="y")
    axes.axhline(50, color=SOFT, linewidth=0.6)
    for name, (colour, dashes) in looks.items():
        line = sorted((row for row in found if row["representation"] == name), key=lambda row: row["level"])
        levels = [row["level"] or left for row in line]
        wide = 2 if (colour, dashes) in _OWN else 1.3
        if wide > 1.5:
            low, high = ([100 * row["ci95"][end] for row in line] for end in (0, 1))
            axes.fill_between(levels, low, high, color=colour, alpha=_BAND, linewidth=0)
        mark = "o" if len(line) == 1 else None
        values = [100 * row["value"] for row in line]
        axes.plot(levels, values, color=colour, linestyle=dashes, linewidth=wide, marker=mark, markersize=4, label=name)


def _frame(axes: Axes, levels: Sequence[float], falling: bool) -> None:
    axes.set_ylim(-3, 103)
    if not falling:
        axes.set_xscale("log")
    axes.set_xticks(
        [_place(level, levels) for level in levels], [f"{level:g}" if level else "none" for level in levels]
    )
    axes.minorticks_off()
    if len(levels) == 1:
        axes.set_xlim(levels[0] * 0.5, levels[0] * 2)
    if falling:
        axes.invert_xaxis()


def _place(level: float, levels: Sequence[float]) -> float:
    """Where a level stands; no attack at all stands left of the weakest, for the axis is logarithmic."""
    return level or min((each for each in levels if each), default=1.0) / 3


def _chosen(names: Sequence[str]) -> Mapping[str, tuple[str, Any]]:
    own = [name for name in names if name not in _LOOKS]
    return {name: _LOOKS[name] if name in _LOOKS else _OWN[own.index(name) % len(_OWN)] for name in names}


def _words(titled: Mapping[str, Sequence[Row]]) -> str:
    """Say where every line of every panel ends."""
    told = []
    for title, found in titled.items():
        ends = {row["representation"]: row for row in sorted(found, key=lambda row: row["deviations"])}
        told.append(f"{title}: " + ", ".join(f"{name} {100 * row['value']:.0f} %" for name, row in ends.items()))
    return f"at the strongest bound {'; '.join(told)}"
