"""The picture of a probe: which classes it takes for which."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle

from mockingjay.report.figures import ACCENT, INK, SOFT, STYLE, WIDTH, Drawing

MOST = 72  # classes that can be told apart in a picture
_TOLD = 14  # classes whose shares are written into the cells
_STRONGEST = 0.7  # opacity of a share of one: dark enough to see, light enough to read through


def confusion(names: Sequence[str], counts: Float[np.ndarray, "meant said"]) -> Drawing:
    """Draw how often each class is taken for each: a row is a class meant, and its cells are shares of it.

    Args:
        names: Of rows and columns.
        counts: How often.
    """
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, min(7.2, 1.3 + 0.4 * len(names))), layout="constrained")
        axes = canvas.subplots()
        _frame(axes, names)
        for row, column in np.argwhere(counts > 0).tolist():
            _cell(axes, row, column, shares[row, column], len(names) <= _TOLD)
    right = np.diag(shares)
    said = ", ".join(f"{name} {100 * share:.0f} %" for name, share in zip(names, right))
    caption = "Rows are the classes meant, columns what was said for them; the darker, the larger a row’s share"
    caption += ", in percent." if len(names) <= _TOLD else ". On the diagonal stands what was said rightly."
    return Drawing(canvas, f"Confusion of {len(names)} classes; rightly named: {said}.", caption)


def _frame(axes: Axes, names: Sequence[str]) -> None:
    size = 8.5 if len(names) <= 30 else 6.5 if len(names) <= 50 else 5
    upright = len(names) > _TOLD or max(map(len, names)) * len(names) > 80
    axes.set_xlim(0, len(names))
    axes.set_ylim(len(names), 0)
    middles = np.arange(len(names)) + 0.5
    axes.set_xticks(middles, names, color=INK, fontsize=size, rotation=90 if upright else 0)
    axes.set_yticks(middles, names, color=INK, fontsize=size)
    axes.tick_params(length=0)
    axes.set_xlabel("said")
    axes.set_ylabel("meant")
    if len(names) > _TOLD:
        axes.plot([0, len(names)], [0, len(names)], color=SOFT, linewidth=0.4, zorder=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _cell(axes: Axes, row: int, column: int, share: float, told: bool) -> None:
    gap = 0.02
    style = {"facecolor": ACCENT, "alpha": _STRONGEST * share, "linewidth": 0}
    axes.add_patch(Rectangle((column + gap, row + gap), 1 - 2 * gap, 1 - 2 * gap, **style))
    if told:
        place = {"ha": "center", "va": "center_baseline", "fontsize": 8}
        axes.text(column + 0.5, row + 0.5, f"{100 * share:.0f}", color=INK, **place)
