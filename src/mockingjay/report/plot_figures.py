"""The pictures of one representation: its layers as heat maps, and where phones and voices lie."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure as Canvas
from torch import Tensor

from mockingjay.report.figures import ACCENT, LEAF, PLUM, SOFT, STYLE, WARM, WIDTH, Drawing

_COLOURS = (ACCENT, WARM, LEAF, PLUM, "#b8860b", "#2a8c8c", "#a33b5c", SOFT)
_MOST = 13  # layers that are drawn; of more, evenly chosen ones


def hidden_maps(layers: Float[Tensor, "depth time dim"], hop_seconds: float, name: str) -> Drawing:
    """Draw every layer's states over time, each on a range of its own around zero.

    Args:
        layers: From the input projection up.
        hop_seconds: Seconds from a step to the next.
        name: Of the utterance.
    """
    depth, steps, dim = layers.shape
    chosen = sorted({round(place) for place in np.linspace(0, depth - 1, min(depth, _MOST))})
    columns = 1 if len(chosen) == 1 else 2
    lines = -(-len(chosen) // columns)
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, 0.5 + 1.5 * lines), layout="constrained")
        panels = canvas.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for axes, layer in zip(panels.flat, chosen):
            values = layers[layer].numpy()
            # Not the largest value of all: a few units that are large throughout would hide all others.
            most = max(float(np.percentile(np.abs(values), 98)), 1e-12)
            shown: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -most, "vmax": most, "interpolation": "none"}
            extent = (0.0, steps * hop_seconds, 0.0, float(dim))
            axes.imshow(values.T, origin="lower", aspect="auto", extent=extent, **shown)
            axes.set_title(f"Layer {layer}: ±{most:.3g}")
        for axes in panels.flat[len(chosen) :]:
            axes.set_visible(False)
        for axes in panels[:, 0]:
            axes.set_ylabel("unit")
        for axes in panels[-1]:
            axes.set_xlabel("time (s)")
    caption = (
        f"Utterance {name}: units over time, layer 0 the lowest; red is above zero, blue below, and the strongest "
        "colours stand for the range beside the title, which holds 98 % of a layer’s values."
    )
    return Drawing(canvas, f"Heat maps of {len(chosen)} of {depth} layers on {name}.", caption)


def projections(maps: Mapping[str, Mapping[str, Any]], kind: str) -> Drawing:
    """Draw points of classes in the plane, one panel for each representation.

    Args:
        maps: Representation → kind → a `studies.pictures.Map`.
        kind: `phone` or `speaker`.
    """
    shown = {name: found[kind] for name, found in maps.items()}
    classes = sorted({label for each in shown.values() for label in each.labels})
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, 4.3), layout="constrained")
        panels = canvas.subplots(1, len(shown), squeeze=False)[0]
        for axes, (name, found) in zip(panels, shown.items()):
            labels = np.array(found.labels)
            for place, label in enumerate(classes):
                own = found.points[labels == label]
                look: dict[str, Any] = {
                    "s": 9,
                    "linewidths": 0,
                    "alpha": 0.85,
                    "color": _COLOURS[place % len(_COLOURS)],
                }
                axes.scatter(own[:, 0], own[:, 1], label=label, **look)
            axes.set_title(f"{name}: silhouette {_signed(found.silhouette, 2)}")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_aspect("equal", "datalim")
        handles = panels[0].get_legend_handles_labels()
        columns = max(1, min(len(classes), 110 // (max(map(len, classes)) + 8)))  # as many as the page is wide
        canvas.legend(*handles, loc="outside lower center", ncols=columns, frameon=False)
    scores = "; ".join(
        f"{name} {_signed(found.silhouette, 3)} in the plane, {_signed(found.before, 3)} before"
        for name, found in shown.items()
    )
    what = "the mean of a phone’s steps" if kind == "phone" else "the mean of a second of a voice"
    caption = (
        f"Each of {len(found.labels)} points is {what}, laid out by t-SNE after a principal component analysis; "
        f"silhouettes: {scores}."
    )
    return Drawing(canvas, f"Scatter plots coloured by {kind}: {scores}.", caption)


def sounds(waves: Sequence[tuple[str, Float[Tensor, " samples"]]], rate: int) -> Drawing:
    """Draw waves under one another, on one scale.

    Args:
        waves: Names and samples.
        rate: Samples per second.
    """
    most = max(float(wave.abs().max()) for _, wave in waves) or 1.0
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, 0.4 + 0.9 * len(waves)), layout="constrained")
        for axes, (name, wave) in zip(canvas.subplots(len(waves), 1, sharex=True, squeeze=False)[:, 0], waves):
            # The least and the most of each hundredth of a second: what a line of single samples would show.
            whole = wave[: len(wave) // 160 * 160].view(-1, 160)
            low, high = whole.amin(1).numpy(), whole.amax(1).numpy()
            axes.fill_between(np.arange(len(low)) * 160 / rate, low, high, color=ACCENT, linewidth=0)
            axes.set_ylim(-most, most)
            axes.set_title(name)
            axes.margins(x=0)
        axes.set_xlabel("time (s)")
    caption = (
        "What the true and the rebuilt frames sound like, phases found by Griffin and Lim’s rounds; a method that "
        "makes sound itself is heard as it is."
    )
    return Drawing(canvas, f"Waves of {', '.join(name for name, _ in waves)}.", caption)


def _signed(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")
