"""What there is to see of a representation: an utterance rebuilt, its layers, and where phones and voices lie.

The two-dimensional maps are t-SNE's (van der Maaten and Hinton 2008) after a principal component analysis, with the
settings of Audio ALBERT's code: 192 components, perplexity 50, learning rate 80, 1500 iterations. They are drawn beside
those of log-mel frames without normalisation, for normalised frames have no voice left in their mean. How well the
colours keep apart is the silhouette: 1 apart, 0 mixed, less is wrong.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from torch import Tensor

from mockingjay import audio
from mockingjay.core.draw import Draw, address
from mockingjay.core.representation import Representation
from mockingjay.core.types import SAMPLE_RATE, Batch, Utterance, Waves
from mockingjay.data.phones import folding_of
from mockingjay.downstream.features import device_of, represent
from mockingjay.downstream.items import span
from mockingjay.downstream.tasks.transcript import SILENCES
from mockingjay.encoders.frontends import Frontend
from mockingjay.moves.sound import sound

POINTS = 600  # of a map
ITERATIONS = 1500  # of t-SNE (code)
FEWEST = 20  # points of a class that is drawn (code)
CLASSES = 8  # that are drawn, the most frequent
STRETCH = 1.0  # seconds whose mean is one point of a voice
SECONDS = 300.0  # of speech that is looked at, at most
LONGEST = 10.0  # seconds of an utterance that is drawn


@runtime_checkable
class Shows(Protocol):
    """What is asked of an objective here."""

    def picture(self, batch: Batch, draw: Draw) -> Any:
        """Show the first utterance; `Picture` or None."""

    def reconstruct(self, batch: Batch, draw: Draw) -> Waves | None:
        """Make it sound."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """One utterance, as an objective sees it.

    Attributes:
        panels: The arguments of `report.figures.spectrograms`; None where a method rebuilds no spectrogram.
        sounds: What the true frames sound like, what the rebuilt ones, or what the method makes sound itself.
    """

    id: str
    panels: dict[str, Any] | None
    sounds: dict[str, Float[Tensor, " samples"]]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A phone or a second of a voice."""

    name: str
    utterance: str  # id
    onset: float  # seconds from the utterance's start
    offset: float  # seconds


@dataclass(frozen=True, slots=True)
class Map:
    """Points in the plane, their classes, and how well these keep apart, there and before."""

    points: Float[np.ndarray, "points 2"]
    labels: tuple[str, ...]
    silhouette: float
    before: float  # of the principal components


@torch.no_grad()
def rebuilt(learner: Shows, frontend: Frontend, utterance: Utterance, seed: int = 0) -> Rebuilt:
    """Show an utterance true, altered and rebuilt, and make it sound again.

    Args:
        learner: In evaluation mode, on the CPU.
        frontend: Whose frames are rebuilt.
        utterance: Its first seconds are read.
        seed: Of what is hidden, and of phases.

    Raises:
        DataError: The file is missing or bad.
    """
    wave = audio.read(utterance.path, utterance.start, min(utterance.seconds, LONGEST))
    batch, draw = Batch(Waves.pad([wave]), (utterance,)), Draw(seed)
    made, picture = learner.reconstruct(batch, draw), learner.picture(batch, draw)
    sounds = {} if made is None else {"rebuilt": made.samples[0, : int(made.lengths[0])]}
    if picture is None:
        return Rebuilt(utterance.id, None, sounds)
    panels = {"true": picture.true, "masked": picture.altered, "rebuilt": picture.rebuilt, "hidden": picture.hidden}
    for name in ("true", "rebuilt"):
        heard = None if name in sounds else sound(frontend, panels[name], wave, seed)
        if heard is not None:
            sounds[name] = heard
    return Rebuilt(utterance.id, {**panels, "hop_seconds": picture.hop / SAMPLE_RATE}, sounds)


@torch.no_grad()
def layers(representation: Representation, utterance: Utterance) -> Float[Tensor, "depth time dim"]:
    """Compute every layer of an utterance's first seconds.

    Raises:
        DataError: The file is missing or bad.
    """
    wave = audio.read(utterance.path, utterance.start, min(utterance.seconds, LONGEST))
    hidden = representation.eval()(Waves.pad([wave]).to(device_of(representation)))
    return torch.stack([layer[0].float().cpu() for layer in hidden.layers])


def some(utterances: Sequence[Utterance], seed: int = 0) -> list[Utterance]:
    """Take utterances in an order that follows from the seed, up to `SECONDS`."""
    taken, seconds = [], 0.0
    for each in sorted(utterances, key=lambda each: address(seed, "pictures", each.id)):
        if seconds + each.seconds <= SECONDS or not taken:
            taken.append(each)
            seconds += each.seconds
    return taken


def stretches(utterances: Sequence[Utterance], seed: int = 0) -> dict[str, list[Stretch]]:
    """Draw the stretches whose means are points: phones, and seconds of voices; what the labels do not allow is absent.

    Args:
        utterances: Some.
        seed: Of what is drawn.
    """
    fold = folding_of({phone for each in utterances for *_, phone in each.alignment or ()})
    found = {
        "phone": [each for utterance in utterances for each in _phones(utterance, fold)],
        "speaker": [each for utterance in utterances for each in _voices(utterance)],
    }
    chosen = {kind: _drawn(every, seed) for kind, every in found.items()}
    return {kind: drawn for kind, drawn in chosen.items() if drawn}


def maps(
    representation: Representation,
    utterances: Sequence[Utterance],
    drawn: Mapping[str, Sequence[Stretch]],
    layer: int,
    seed: int = 0,
) -> dict[str, Map]:
    """Lay stretches out in the plane by the means of their steps, or by the nearest step where none lies inside.

    Args:
        representation: Stays where it lives.
        utterances: Those of the stretches, each long enough to give one step.
        drawn: From `stretches`; the same for all that is compared.
        layer: Whose states are laid out.
        seed: Of the layout.

    Raises:
        DataError: A file is missing or bad.
    """
    places: defaultdict[str, list[tuple[str, int, Stretch]]] = defaultdict(list)
    for kind, chosen in drawn.items():
        for place, each in enumerate(chosen):
            places[each.utterance].append((kind, place, each))
    points = {kind: np.zeros((len(chosen), representation.dim)) for kind, chosen in drawn.items()}
    wanted = [each for each in utterances if each.id in places]
    for indices, hidden in represent(representation, wanted):
        for index, states in zip(indices, hidden.split(layer)):
            for kind, place, each in places[wanted[index].id]:
                inside = span(representation.grid, each.onset, each.offset, len(states))
                middle = torch.tensor([(each.onset + each.offset) / 2], dtype=torch.float64)
                nearest = int(representation.grid.nearest(middle, len(states)))
                begin, end = (inside.start, inside.stop) if inside else (nearest, nearest + 1)
                points[kind][place] = states[begin:end].double().mean(0).cpu().numpy()
    return {kind: _laid_out(values, [each.name for each in drawn[kind]], seed) for kind, values in points.items()}


def _phones(utterance: Utterance, fold: Mapping[str, str]) -> Iterator[Stretch]:
    for onset, offset, phone in utterance.alignment or ():
        if (name := fold.get(phone, phone)) not in SILENCES:
            yield Stretch(name, utterance.id, onset, offset)


def _voices(utterance: Utterance) -> Iterator[Stretch]:
    for number in range(int(utterance.seconds / STRETCH) if utterance.speaker else 0):
        yield Stretch(str(utterance.speaker), utterance.id, number * STRETCH, (number + 1) * STRETCH)


def _drawn(every: Sequence[Stretch], seed: int) -> list[Stretch]:
    """Draw evenly among the most frequent classes; nothing where there are not two of a size."""
    counts = Counter(each.name for each in every)
    names = [name for name, count in counts.most_common(CLASSES) if count >= FEWEST]
    random = np.random.default_rng(seed)
    chosen = []
    for name in sorted(names):
        own = [each for each in every if each.name == name]
        chosen += [own[place] for place in random.permutation(len(own))[: POINTS // len(names)]]
    return chosen if len(names) > 1 else []


def _laid_out(values: Float[np.ndarray, "points dim"], labels: Sequence[str], seed: int) -> Map:
    count = min(192, *values.shape)
    components = PCA(count, svd_solver="full").fit_transform(values)
    settings: dict[str, Any] = {"perplexity": min(50.0, (len(values) - 1) / 4), "learning_rate": 80.0}
    layout = TSNE(2, max_iter=ITERATIONS, random_state=seed & 0xFFFFFFFF, **settings)
    plane = layout.fit_transform(components).astype(np.float64)
    scores = [float(silhouette_score(each, list(labels))) for each in (plane, components)]
    return Map(plane, tuple(labels), *scores)
