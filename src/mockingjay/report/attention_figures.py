"""The pictures of the study of attention: maps, kinds of heads, phone relations, curves of what is removed, layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from mockingjay.report.figures import ACCENT, INK, LEAF, PLUM, SOFT, STYLE, WARM, WIDTH, Drawing

KINDS = ("global", "vertical", "diagonal")
COLOURS = {"globalness": ACCENT, "verticality": WARM, "diagonality": LEAF, "weight": INK, "weakest output": PLUM}
_KIND_COLOURS = (ACCENT, WARM, LEAF)
_MARKS = ("o", "s", "^")
_GAP = 3  # cells between the maps of a row
_STRONG = 2.0  # relation to chance at which colours end: three times what uniform attention gives
_SMALL = {"fontsize": 5}


def maps(
    shown: Float[np.ndarray, "layers heads query key"], categories: Sequence[int], hop: float, name: str
) -> Drawing:
    """Draw every head's map of one utterance, a row for each layer.

    Args:
        shown: Attention, rows over keys.
        categories: Of each head, through the layers.
        hop: Seconds of a step.
        name: Of the utterance.
    """
    layers, heads, steps, _ = shown.shape
    height = min(WIDTH / heads, 1.6)
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, layers * (height + 0.22) + 0.1), layout="constrained")
        rows = canvas.subplots(layers, 1, squeeze=False)[:, 0]
        for layer, axes in enumerate(rows):
            mosaic = np.full((steps, heads * (steps + _GAP) - _GAP), np.nan)
            for head in range(heads):
                # The root shows what is spread out beside what is sharp.
                values = np.sqrt(shown[layer, head].astype(np.float64))
                mosaic[:, head * (steps + _GAP) :][:, :steps] = values / max(values.max(), 1e-9)
            axes.imshow(mosaic, cmap="magma", vmin=0, vmax=1, interpolation="none", aspect="equal")
            axes.set_axis_off()
            axes.text(-0.01, 0.5, str(layer + 1), transform=axes.transAxes, ha="right", va="center", color=SOFT)
            for head in range(heads):
                kind = categories[layer * heads + head]
                place = {"x": head * (steps + _GAP) + steps / 2, "y": -0.03 * steps, "ha": "center", "va": "bottom"}
                axes.text(s=KINDS[kind][:1].upper(), color=_KIND_COLOURS[kind], fontsize=7, **place)
    seconds = steps * hop
    caption = (
        f"Utterance {name}, its first {seconds:.1f} s: queries down, keys across, a row for each layer, the lowest "
        "first; bright is much, on a root scale of each map's own. The letter is the head's category."
    )
    return Drawing(canvas, f"Attention maps of {layers} layers with {heads} heads each on {name}.", caption)


def kinds(seen: Mapping[str, Any]) -> Drawing:
    """Draw globalness, verticality and diagonality of all heads by layer, with their intervals and categories."""
    heads, categories = seen["heads"], np.array(seen["categories"])
    layer = np.arange(len(categories)) // heads + 1
    within = (np.arange(len(categories)) % heads - (heads - 1) / 2) * 0.7 / heads
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, 2.6), layout="constrained")
        for place, (axes, title) in enumerate(zip(canvas.subplots(1, 3), ("Globalness", "Verticality", "Diagonality"))):
            value, low, high = (np.array(seen[key][place]) for key in ("measures", "low", "high"))
            axes.vlines(layer + within, low, high, color=SOFT, linewidth=0.8)
            for kind, (name, mark) in enumerate(zip(KINDS, _MARKS)):
                mine = categories == kind
                axes.plot(
                    (layer + within)[mine], value[mine], mark, color=_KIND_COLOURS[kind], markersize=4, label=name
                )
            axes.set_title(title)
            axes.set_xlabel("layer")
            axes.set_xticks(range(1, seen["layers"] + 1, 1 + seen["layers"] // 13))
            axes.grid(axis="y")
        canvas.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    counts = ", ".join(f"{int((categories == kind).sum())} {name}" for kind, name in enumerate(KINDS))
    caption = (
        f"Each head with its 95 % interval over {len(seen['ids'])} utterances, in nats, diagonality as a share of the "
        "length. A head’s category is the list in which it stands highest among all heads."
    )
    return Drawing(canvas, f"Measures of {len(categories)} heads by layer: {counts}.", caption)


def relations(related: Mapping[str, Any], titles: Sequence[str]) -> Drawing:
    """Draw the phone relation maps of the chosen heads."""
    phones, records = related["phones"], related["heads"]
    lines = -(-len(records) // 2)
    with mpl.rc_context(STYLE):
        # Placed by hand: a layout that measures some three hundred labels takes longer than all other pictures.
        height = 3.9 * lines + 0.5
        canvas = Canvas(figsize=(WIDTH, height))
        edges = {"left": 0.04, "right": 0.99, "bottom": 0.75 / height, "top": 1 - 0.3 / height}
        panels = canvas.subplots(lines, 2, squeeze=False, gridspec_kw={**edges, "wspace": 0.1, "hspace": 0.18})
        for axes, record, title in zip(panels.flat, records, titles):
            table = np.array(record["map"], dtype=np.float64)
            image = axes.imshow(table, cmap="RdBu_r", vmin=-_STRONG, vmax=_STRONG, interpolation="none")
            axes.set_title(title)
            axes.set_xticks(range(len(phones)), phones, rotation=90, **_SMALL)
            axes.set_yticks(range(len(phones)), phones, **_SMALL)
            axes.tick_params(length=0, pad=1)
        for axes in panels.flat[len(records) :]:
            axes.set_visible(False)
        bar = canvas.colorbar(
            image, cax=canvas.add_axes((0.3, 0.38 / height, 0.4, 0.08 / height)), orientation="horizontal"
        )
        bar.outline.set_visible(False)
        bar.set_label("less (−) or more (+) than uniform attention", fontsize=8)
    caption = (
        "From which phone (down) a head looks at which (across), against uniform attention: 0 as much, 1 twice "
        "as much, −1 not at all; white where the pair does not occur or is neither sought nor shunned. On "
        f"{related['utterances']} utterances."
    )
    return Drawing(canvas, f"Phone relation maps of {', '.join(titles)}.", caption)


def removed(pruning: Mapping[str, Any]) -> Drawing:
    """Draw what each measure falls to while heads are removed in several orders, beside random ones."""
    counts, names = pruning["removed"], list(pruning["n"])
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, 2.9), layout="constrained")
        panels = canvas.subplots(1, len(names), squeeze=False)[0]
        for axes, name in zip(panels, names):
            chance = [known for order, known in pruning["curves"].items() if order.startswith("random")]
            table = _scale(name) * np.array([[point["value"] for point in known[name]] for known in chance])
            axes.fill_between(counts, table.min(0), table.max(0), color=SOFT, alpha=0.25, linewidth=0)
            axes.plot(counts, table.mean(0), color=SOFT, linestyle=(0, (4, 2)), linewidth=1.2, label="random")
            for order, colour in COLOURS.items():
                values = _scale(name) * np.array([point["value"] for point in pruning["curves"][order][name]])
                axes.plot(counts, values, color=colour, marker="o", markersize=3, linewidth=1.4, label=order)
            _dress(axes, name, "heads removed")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        canvas.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    caption = (
        "Heads are removed cumulatively, the highest of a measure, the highest maximal weight or the weakest output "
        f"first; dashed is the mean of random orders with their range. {_scored(pruning['n'])}"
    )
    return Drawing(canvas, f"Curves of {', '.join(names)} while up to {counts[-1]} heads are removed.", caption)


def spans(limited: Mapping[str, Any]) -> Drawing:
    """Draw what is left when every step sees its neighbourhood alone."""
    widths, names = limited["spans"], list(limited["n"])
    places = np.arange(len(widths))
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, 2.7), layout="constrained")
        panels = canvas.subplots(1, len(names), squeeze=False)[0]
        for axes, name in zip(panels, names):
            whole = _scale(name) * np.array(limited["whole"][name]["value"])
            axes.axhline(whole, color=SOFT, linestyle=(0, (4, 2)), linewidth=1.2, label="no limit")
            for where, colour in (("before", ACCENT), ("after", WARM)):
                points = limited["curves"][where][name]
                values = _scale(name) * np.array([point["value"] for point in points])
                reach = np.abs(_scale(name) * np.array([point["ci95"] for point in points]).T - values)
                axes.errorbar(
                    places + (where == "after") * 0.12, values, reach, color=colour, marker="o", markersize=3,
                    linewidth=1.4, elinewidth=0.8, label=f"{where} the softmax",
                )  # fmt: skip
            axes.set_xticks(places, [str(width) for width in widths])
            _dress(axes, name, "steps to either side")
        canvas.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    caption = (
        "Keys farther away are taken from all heads: before the softmax, so that what is left sums to one, or after "
        "it, as the paper writes it, so that weight is lost. Bars are 95 % intervals over utterances. "
        f"{_scored(limited['n'])}"
    )
    return Drawing(canvas, f"Curves of {', '.join(names)} with attention limited to spans of steps.", caption)


def similarity(seen: Mapping[str, Any]) -> Drawing:
    """Draw how alike layers are: their states by CKA, their attention by divergence."""
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, 3.6), layout="constrained")
        panels = {"States: linear CKA": ("cka", 0), "Attention: Jensen–Shannon divergence": ("divergence", 1)}
        for axes, (title, (key, first)) in zip(canvas.subplots(1, 2), panels.items()):
            table = np.array(seen[key]["value"])
            most = 1.0 if key == "cka" else np.log(2)  # the most there can be
            axes.imshow(table, cmap="viridis", vmin=0, vmax=most, interpolation="none")
            axes.set_title(title)
            ticks = range(len(table))
            axes.set_xticks(ticks, [str(place + first) for place in ticks])
            axes.set_yticks(ticks, [str(place + first) for place in ticks])
            axes.tick_params(length=0)
            for (row, column), value in np.ndenumerate(table):
                dark = value < 0.6 * most
                look = {"ha": "center", "va": "center", "fontsize": 7 if len(table) < 8 else 4.5}
                axes.text(column, row, f"{value:.2f}", color="#ffffff" if dark else "#000000", **look)
    points = seen["cka"]["points"]
    caption = (
        f"Hidden layers from 0, the input projection, on {points:,} steps; layers of attention from 1, each the "
        "mean of its heads, in nats (0 the same, 0.69 nothing in common). Intervals are in results.json."
    )
    return Drawing(canvas, f"Two heat maps of the similarity of {len(seen['cka']['value'])} layers.", caption)


def by_layer(parts: Mapping[str, Any]) -> Drawing:
    """Draw what each layer knows, and how much of the noise at the input reaches it."""
    known, noise = parts.get("layers", {}), parts["noise"]
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, 2.4), layout="constrained")
        panels = canvas.subplots(1, len(known) + 1, squeeze=False)[0]
        for axes, (name, found) in zip(panels, known.items()):
            values = 100 * np.array([point["value"] for point in found["points"]])
            reach = np.abs(100 * np.array([point["ci95"] for point in found["points"]]).T - values)
            axes.errorbar(range(len(values)), values, reach, color=ACCENT, marker="o", markersize=4, elinewidth=0.8)
            _dress(axes, name, "layer")
        first = -1 if noise["input"] else 0
        for norm, colour in (("frobenius", ACCENT), ("spectral", WARM), ("frame", LEAF)):
            values = noise[norm]["mean"]
            panels[-1].plot(
                range(first, first + len(values)), values, color=colour, marker="o", markersize=3, label=norm
            )
        panels[-1].legend(frameon=False, fontsize=7)
        _dress(panels[-1], "noise to signal", "layer, −1 the input" if first else "layer")
        panels[-1].set_ylim(bottom=0)
        for axes in panels:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    caption = (
        "A probe on each layer alone, with 95 % intervals; at the right LNSR, the ratio of what "
        f"white noise at {noise['decibels']:g} dB changes to what was there, mean over {noise['utterances']} "
        "utterances in three norms."
    )
    counts = {name: found["n"] for name, found in known.items()}
    caption += f" {_scored(counts)}" if known else ""
    return Drawing(canvas, f"Curves over layers: {', '.join([*known, 'noise to signal'])}.", caption)


def _scored(counts: Mapping[str, int]) -> str:
    """Say on how many utterances each measure was scored."""
    told = ", ".join(f"{name.removeprefix('label:')} {count}" for name, count in counts.items())
    return f"Test utterances: {told}."


def _scale(name: str) -> int:
    """Show shares in percent, losses as they are."""
    return 1 if name.endswith("loss") else 100


def _dress(axes: Axes, name: str, across: str) -> None:
    axes.set_title(name.removeprefix("label:") + ("" if name.endswith(("loss", "signal")) else " (%)"), color=INK)
    axes.set_xlabel(across)
    axes.grid(axis="y")
    axes.locator_params(axis="y", nbins=5)
