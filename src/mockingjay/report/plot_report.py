"""The pictures of one representation as one page; what cannot be shown is said in words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mockingjay.core.types import SAMPLE_RATE
from mockingjay.report import figures, plot_figures
from mockingjay.report.figures import Drawing, inline
from mockingjay.report.page import Page, Section

Drawings = Mapping[str, Mapping[str, Drawing]]  # by section, then by name of the file

TITLES = {
    "curve": "Learning curve",
    "rebuilt": "Masked and rebuilt",
    "sound": "Made to sound",
    "layers": "Layer by layer",
    "phone": "Phones in the plane",
    "speaker": "Voices in the plane",
    "weights": "Layer weights",
}
ABSENT = {
    "curve": "The folder holds no metrics.jsonl, so nothing is known of the training.",
    "rebuilt": "There is no run with a checkpoint here, or its method rebuilds no spectrogram.",
    "sound": "Nothing was rebuilt that can be made to sound: log-mel or linear spectra, centred.",
    "layers": "No utterance could be represented.",
    "phone": "No aligned phones were at hand, or too few of each.",
    "speaker": "No two speakers with enough speech were at hand.",
    "weights": "No probe that mixes layers was at hand; name some with --probe.",
}
TEXTS = {
    "curve": "The loss of the training, and what was measured on held-out speech.",
    "rebuilt": "What was said, what the network was shown, and what it made of it.",
    "sound": "The files lie beside this page.",
    "layers": "Where a layer forgets time, or a unit is never still, it shows here.",
    "phone": "Colours that keep apart are phones that a layer tells apart; the silhouette says how well.",
    "speaker": "Colours that keep apart are voices that a layer tells apart.",
    "weights": "What each probe takes from each layer; weights compare layers as far as their values are of one size.",
}


def drawings(
    *,
    metrics: Sequence[Mapping[str, Any]],
    rebuilt: Sequence[tuple[str, Mapping[str, Any] | None, Mapping[str, Float[Tensor, " samples"]]]],
    layers: tuple[str, Float[Tensor, "depth time dim"], float] | None,
    maps: Mapping[str, Mapping[str, Any]],
    weights: Mapping[str, Sequence[float]],
) -> dict[str, dict[str, Drawing]]:
    """Draw everything that there is.

    Args:
        metrics: Logged lines of the training.
        rebuilt: Of each utterance its id, the arguments of `figures.spectrograms`, and sounds by name.
        layers: An utterance's id, its layers, and seconds from a step to the next.
        maps: As for `plot_figures.projections`.
        weights: Mixing weights per layer, by probe.

    Returns:
        Drawings by section, then by name of the file.
    """
    found: dict[str, dict[str, Drawing]] = {name: {} for name in TITLES}
    if metrics:
        found["curve"]["curve"] = figures.training_curve(metrics)
    for number, (_, panels, waves) in enumerate(rebuilt, 1):
        if panels is not None:
            found["rebuilt"][f"rebuilt-{number}"] = figures.spectrograms(**panels)
        if waves:
            found["sound"][f"sound-{number}"] = plot_figures.sounds(list(waves.items()), SAMPLE_RATE)
    if layers is not None:
        name, values, hop_seconds = layers
        found["layers"]["layers"] = plot_figures.hidden_maps(values, hop_seconds, name)
    for kind in ("phone", "speaker"):
        own = {name: each for name, each in maps.items() if kind in each}
        if own:
            found[kind][f"{kind}s"] = plot_figures.projections(own, kind)
    if weights:
        found["weights"]["weights"] = figures.layer_weights(weights)
    return found


def plot_page(*, title: str, command: str, found: Drawings, said: Sequence[str]) -> Page:
    """Assemble the page.

    Args:
        title: Of the page.
        command: What reproduces it.
        found: From `drawings`.
        said: Sentences for its beginning.
    """
    return Page(title, "\n\n".join(said), command, tuple(_sections(found)))


def _sections(found: Drawings) -> Iterator[Section]:
    for name, title in TITLES.items():
        blocks = tuple(inline(drawing, each) for each, drawing in found[name].items())
        yield Section(title, TEXTS[name] if blocks else ABSENT[name], blocks)
