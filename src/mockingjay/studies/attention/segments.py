"""Where phones begin and end, from attention, hidden states or cepstra, without being told.

arXiv 2006.03265, section 4 and supplement: v are rows of an attention map, or other vectors of the same steps;
K[i, j] = exp(−|v_i − v_j| / α); ε_i = β · mean of K[i]; K_f[i, j] = 1 where every K[i, k] from i to j is above ε_i;
S[t] = Σ_k K_f[t − k, t + k]; boundaries are the local minima of S. α is counted in units of the utterance's median
distance here, so that one grid of settings serves all sources (ours). Steps longer than 10 ms are repeated first.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mockingjay import audio
from mockingjay.core.representation import Representation
from mockingjay.core.types import SAMPLE_RATE, Grid, Utterance, Waves
from mockingjay.data.quarantine import Quarantine
from mockingjay.downstream.scores import Difference, bounded
from mockingjay.open import open_representation
from mockingjay.studies.attention.passes import Look, looks

TOLERANCE = 0.020  # seconds (supplement)
FINE = 160  # samples of a step after repeating, about
ALPHAS = (0.25, 0.5, 1.0, 2.0)
BETAS = (0.6, 0.8, 1.0, 1.2, 1.5)
RATES = (0.6, 0.8, 1.0, 1.2, 1.4)  # of the uniform boundaries, over the true rate on dev

Counts = Float[np.ndarray, "*sets 3"]  # hits, true boundaries, found boundaries


@dataclass(frozen=True, slots=True)
class Setting:
    """What is chosen on dev."""

    alpha: float  # of the median distance
    beta: float  # of the mean similarity


SETTINGS = tuple(itertools.starmap(Setting, itertools.product(ALPHAS, BETAS)))


def distances(vectors: Float[Tensor, "time dim"]) -> Float[np.ndarray, "time time"]:
    """Measure Euclidean distances between all steps, in units of their median."""
    found = torch.cdist(vectors.double(), vectors.double(), compute_mode="donot_use_mm_for_euclid_dist")
    return (found / found.median().clamp(min=1e-12)).cpu().numpy()


def boundaries(apart: Float[np.ndarray, "time time"], setting: Setting, grid: Grid) -> Float[np.ndarray, " found"]:
    """Find boundaries in seconds.

    Args:
        apart: From `distances`.
        setting: Scale and threshold.
        grid: Where the steps lie.
    """
    factor = max(1, round(grid.hop / FINE))
    similar = np.exp(-apart / setting.alpha)
    above = similar > setting.beta * similar.mean(1, keepdims=True)
    joint = _joint(above).repeat(factor, 0).repeat(factor, 1)
    places = minima(spans(joint))
    fine = grid.hop / factor
    return (grid.centre - grid.hop / 2 + (places + 0.5) * fine) / SAMPLE_RATE


def spans(joint: Bool[np.ndarray, "time time"]) -> Int[np.ndarray, " time"]:
    """Count, around each step t, the pairs t − k, t + k that are one stretch."""
    first, last = np.nonzero(np.triu(joint))
    even = (first + last) % 2 == 0
    return np.bincount((first + last)[even] // 2, minlength=len(joint))


def minima(curve: Int[np.ndarray, " time"]) -> Float[np.ndarray, " found"]:
    """Find local minima, in steps; a flat one counts once, at its middle."""
    edges = np.flatnonzero(np.diff(curve)) + 1
    starts, ends = np.append(0, edges), np.append(edges, len(curve)) - 1
    heights = curve[starts]
    low = (heights[1:-1] < heights[:-2]) & (heights[1:-1] < heights[2:])
    return ((starts + ends) / 2)[1:-1][low]


def uniform(rate: float, seconds: float) -> Float[np.ndarray, " found"]:
    """Place boundaries evenly, so many a second: the baseline that has heard nothing."""
    return (np.arange(int(seconds * rate)) + 0.5) / rate


def reference(utterance: Utterance) -> Float[np.ndarray, " true"]:
    """List the true boundaries inside an utterance, in seconds: where one phone of its alignment meets the next."""
    edges = {round(time, 6) for start, end, _ in utterance.alignment or () for time in (start, end)}
    spoken = [end for _, end, _ in utterance.alignment or ()]
    last = min(utterance.seconds, max(spoken, default=0.0))
    return np.array(sorted(time for time in edges if 1e-6 < time < last - 1e-6))


def count(
    found: Float[np.ndarray, " found"], true: Float[np.ndarray, " true"], tolerance: float = TOLERANCE
) -> Float[np.ndarray, "3"]:
    """Count hits, true and found boundaries; each of them takes part in one hit at most."""
    hits = i = j = 0
    while i < len(found) and j < len(true):
        if abs(found[i] - true[j]) <= tolerance + 1e-9:
            hits, i, j = hits + 1, i + 1, j + 1
        elif found[i] < true[j]:
            i += 1
        else:
            j += 1
    return np.array([hits, len(true), len(found)], dtype=np.float64)


def scores(counts: Float[np.ndarray, "*sets 3"]) -> Float[np.ndarray, "*sets 4"]:
    """Compute R-value, F1, precision and recall from summed counts.

    Räsänen, Laine and Altosaar 2009 (Interspeech): with the hit rate HR and over-segmentation OS = found / true − 1,
    r₁ = √((1 − HR)² + OS²), r₂ = (HR − 1 − OS) / √2 and R = 1 − (|r₁| + |r₂|) / 2.
    """
    hits, true, found = np.moveaxis(counts, -1, 0)
    rate, over = hits / np.maximum(true, 1), found / np.maximum(true, 1) - 1
    first, second = np.hypot(1 - rate, over), (rate - 1 - over) / np.sqrt(2)
    precision = hits / np.maximum(found, 1)
    f1 = 2 * hits / np.maximum(found + true, 1)
    return np.stack([1 - (np.abs(first) + np.abs(second)) / 2, f1, precision, rate], -1)


def best(totals: Float[np.ndarray, "settings 3"]) -> int:
    """Choose the setting with the highest R-value."""
    return int(scores(totals)[:, 0].argmax())


def tried(apart: Float[np.ndarray, "time time"], grid: Grid, true: Sequence[float] | np.ndarray) -> Counts:
    """Count with every setting."""
    return np.stack([count(boundaries(apart, setting, grid), np.asarray(true)) for setting in SETTINGS])


def segment(
    representation: Representation,
    dev: Sequence[Utterance],
    test: Sequence[Utterance],
    candidates: Sequence[int],
    seed: int,
    quarantine: Quarantine,
) -> dict[str, Any]:
    """Find boundaries from attention, from hidden states, from cepstra and evenly, and score them.

    Args:
        representation: With attention.
        dev: Aligned; head, layer, scale and threshold are chosen on them.
        test: Aligned; measured once.
        candidates: Heads, numbered through the layers, one of which is chosen.
        seed: Of the intervals.
        quarantine: Takes in what cannot be read.

    Returns:
        What was chosen for each source, what it reaches, and how much more than cepstra and even boundaries.
    """
    cepstra = open_representation("mfcc")
    settings, reached, rate = _tune(_aligned(representation, dev, quarantine), representation, cepstra, candidates)
    kinds = {source.partition(" ")[0] for source in reached}
    chosen = {max((source for source in reached if source.startswith(kind)), key=reached.__getitem__) for kind in kinds}
    tested: dict[str, list[Any]] = {}
    for look in _aligned(representation, test, quarantine):
        true = reference(look.utterance)
        for source, apart, grid in _sources(look, representation, cepstra, candidates, chosen):
            tested.setdefault(source, []).append(count(boundaries(apart, settings[source], grid), true))
        tested.setdefault("uniform", []).append(count(uniform(rate, look.utterance.seconds), true))
    if not reached or not tested:
        return {}
    table = {source: np.stack(found) for source, found in tested.items()}
    rivals = [source for source in ("mfcc", "uniform") if source in table]
    return {
        "sources": [
            {
                "source": source,
                **_scored(found, seed),
                "over": {rival: _over(found, table[rival], seed) for rival in rivals if rival != source},
                "setting": {"rate": rate} if source == "uniform" else asdict(settings[source]),
                "dev": reached.get(source),
            }
            for source, found in table.items()
        ],
        "utterances": len(table["uniform"]),
        "boundaries": int(table["uniform"][:, 1].sum()),
    }


def _tune(
    seen: Iterator[Look], representation: Representation, cepstra: Representation, candidates: Sequence[int]
) -> tuple[dict[str, Setting], dict[str, float], float]:
    """Choose each source's setting, with the R-value it reaches, and the rate of even boundaries."""
    totals: dict[str, Any] = {}
    known: list[tuple[Float[np.ndarray, " true"], float]] = []
    for look in seen:
        true = reference(look.utterance)
        known.append((true, look.utterance.seconds))
        for source, apart, grid in _sources(look, representation, cepstra, candidates):
            totals[source] = totals.get(source, 0) + tried(apart, grid, true)
    spoken = sum(len(true) for true, _ in known) / max(sum(seconds for _, seconds in known), 1e-9)
    rates = [share * spoken for share in RATES]
    even = [sum((count(uniform(rate, seconds), true) for true, seconds in known), np.zeros(3)) for rate in rates]
    settings = {source: SETTINGS[best(found)] for source, found in totals.items()}
    reached = {source: float(scores(found)[:, 0].max()) for source, found in totals.items()}
    return settings, reached, rates[best(np.stack(even))]


def _aligned(representation: Representation, utterances: Sequence[Utterance], quarantine: Quarantine) -> Iterator[Look]:
    return (look for look in looks(representation, utterances, quarantine) if len(reference(look.utterance)))


def _sources(
    look: Look,
    representation: Representation,
    cepstra: Representation,
    candidates: Sequence[int],
    wanted: set[str] | None = None,
) -> Iterator[tuple[str, Float[np.ndarray, "time time"], Grid]]:
    """List the distances between an utterance's steps by the name of what they are measured in."""
    maps = look.maps.flatten(0, 1)
    vectors = {f"head {head}": (maps[head], representation.grid) for head in candidates}
    vectors |= {f"layer {layer}": (states, representation.grid) for layer, states in enumerate(look.hidden)}
    if representation.reads is None and (wanted is None or "mfcc" in wanted):
        wave = audio.read(look.utterance.path, look.utterance.start, look.utterance.seconds)
        vectors["mfcc"] = (cepstra(Waves.pad([wave])).last[0], cepstra.grid)
    for source, (rows, grid) in vectors.items():
        if wanted is None or source in wanted:
            yield source, distances(rows), grid


def _scored(counts: Float[np.ndarray, "utterances 3"], seed: int) -> dict[str, Any]:
    low, high = bounded(counts, scores, seed=seed)
    value = scores(counts.sum(0))
    return {
        name: {"value": float(value[place]), "ci95": [float(low[place]), float(high[place])]}
        for place, name in enumerate(("R-value", "f1", "precision", "recall"))
    }


def _over(
    first: Float[np.ndarray, "utterances 3"], second: Float[np.ndarray, "utterances 3"], seed: int
) -> dict[str, Any]:
    """Subtract R-values, paired by utterance."""

    def difference(sums: Float[np.ndarray, "draws 6"]) -> Float[np.ndarray, " draws"]:
        return scores(sums[:, :3])[:, 0] - scores(sums[:, 3:])[:, 0]

    sums = np.concatenate([first, second], 1)
    low, high = bounded(sums, difference, seed=seed)
    found = Difference(float(difference(sums.sum(0)[None])[0]), (float(low), float(high)))
    return asdict(found) | {"verdict": found.verdict}


def _joint(above: Bool[np.ndarray, "time time"]) -> Bool[np.ndarray, "time time"]:
    """Mark j ≥ i where row i is above its threshold all the way from i to j."""
    fails = np.cumsum(~above & ~np.eye(len(above), dtype=bool), 1)
    own = fails.diagonal()[:, None]
    return np.triu(fails == own)
