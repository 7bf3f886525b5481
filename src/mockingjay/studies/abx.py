"""ABX layer by layer, and what tells of a representation's health without any label.

The layer is chosen on voices of its own and reported on others. Beside the errors stand figures that need no labels
(`train/collapse.py`), and one that is only here: how smooth a layer is in time, the correlation of neighbouring steps
about the utterance's mean. A layer may be anything between them and still tell phones apart; at their ends it cannot.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mockingjay.core.draw import address
from mockingjay.core.errors import DataError
from mockingjay.core.representation import Representation
from mockingjay.core.types import SAMPLE_RATE, Utterance
from mockingjay.data.manifest import Corpus
from mockingjay.data.quarantine import Quarantine
from mockingjay.data.scan import check_reads
from mockingjay.data.splits import role
from mockingjay.downstream.abx import MODES, Config, Found, Heard, Mode, cells, drawn, hear, score
from mockingjay.downstream.features import represent
from mockingjay.downstream.items import Item, items_of
from mockingjay.train.collapse import STEPS, UTTERANCES, measure

CHOOSE = 0.3  # share of the voices that a layer is chosen on, where the corpus names no dev and test
BYTES = 2 * 2**30  # of items' frames that are kept at once; beyond it the corpus is represented again

Row = dict[str, Any]


def abx(
    name: str,
    representation: Representation,
    corpus: Corpus,
    layers: Sequence[int],
    config: Config,
    *,
    seed: int = 0,
    items: Sequence[Item] | None = None,
    quarantine: Quarantine | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[list[Row]]:
    """Measure ABX errors and health of some layers; hands out the rows that are known after each of them.

    Args:
        name: Of the representation.
        representation: Stays where it lives.
        corpus: With speakers, and aligned unless items are given.
        layers: Which are measured; where there are several, the best on dev is marked.
        config: Of the test.
        seed: Of the division into dev and test, and of the intervals.
        items: Instead of those of the alignments.
        quarantine: Takes in files that cannot be read.
        say: Told a line at a time.

    Raises:
        DataError: There is nothing to compare, or files cannot be read.
    """
    check_reads((each.path for each in corpus.utterances), representation.reads)
    quarantine = quarantine if quarantine is not None else Quarantine()
    long = [each for each in corpus.utterances if round(each.seconds * SAMPLE_RATE) >= representation.receptive]
    given = list(items) if items is not None else items_of(long)
    parts = {part: drawn(chosen, config) for part, chosen in _divided(given, long, seed).items()}
    if len(layers) == 1:
        parts.pop("dev", None)
    for part, chosen in parts.items():
        say(f"{part}: {len(chosen)} items of {len({each.speaker for each in chosen})} voices")
    base = {"representation": name, "seed": seed, "data": corpus.name, "context": config.context}
    rows: list[Row] = []
    ids = {each.utterance for each in parts["test"]}
    tested = [each for each in long if each.id in ids]
    for together in _together(representation, [each for part in parts.values() for each in part], layers):
        heard = {part: hear(representation, long, chosen, together, quarantine) for part, chosen in parts.items()}
        quarantine.check(len(long))
        lost = len(parts["test"]) - len(heard["test"].items)
        if lost and not rows:
            say(f"{lost} of the {len(parts['test'])} test items are too short for a step, and left out")
        found = {part: _found(each, config) for part, each in heard.items()}
        for place, layer in enumerate(together):
            for mode in MODES:
                one, other = (found[part][place][mode] if part in found else None for part in ("test", "dev"))
                if one is not None:
                    own = {"layer": layer, "dev": other and other.value, "lost": lost}
                    rows.append({**_row(base, mode, one, seed), **own})
                    say(f"{rows[-1]['task']}: {name} layer {layer}: {100 * one.value:.2f} %")
        if not rows:
            raise DataError(_nothing(corpus, config, given))
        _mark(rows)
        yield rows
    yield [*rows, *health(base, representation, tested, layers)]


def health(
    base: Mapping[str, Any], representation: Representation, utterances: Sequence[Utterance], layers: Sequence[int]
) -> list[Row]:
    """Measure effective rank, mean cosine and smoothness of layers, on a few utterances; no labels are read.

    Args:
        base: What every row holds.
        representation: Stays where it lives.
        utterances: Some of them are taken.
        layers: Which are measured.
    """
    few = sorted(utterances, key=lambda each: address("health", each.id))[:UTTERANCES]
    states: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for _, hidden in represent(representation, few, Quarantine()):
        for layer, kept in states.items():
            kept += [frames.float() for frames in hidden.split(layer) if len(frames) > 1]
    rows = []
    for layer, kept in states.items():
        if len(kept) < 2:
            continue
        shortest = min(map(len, kept))
        places = torch.linspace(0, shortest - 1, min(shortest, STEPS)).round().long()
        figures = measure(torch.stack([frames[places.to(frames.device)] for frames in kept]))
        figures["smoothness"] = sum(map(smoothness, kept)) / len(kept)
        rows += [
            {**base, "task": "health", "metric": metric, "value": figures[metric], "ci95": None, "n": len(kept)}
            | {"layer": layer, "hop": representation.hop}
            for metric in ("effective rank", "cosine", "smoothness")
        ]
    return rows


def smoothness(frames: Float[Tensor, "time dim"]) -> float:
    """Correlate neighbouring steps, about the utterance's mean: 1 is standing still, 0 no memory at all."""
    rest = frames.double() - frames.double().mean(0)
    size = (rest[1:].square().sum() + rest[:-1].square().sum()).item() / 2
    return (rest[1:] * rest[:-1]).sum().item() / size if size > 0 else 1.0


def _divided(items: Sequence[Item], utterances: Sequence[Utterance], seed: int) -> dict[str, list[Item]]:
    """Tell dev items from test items: as the corpus says where it names both, otherwise by voice."""
    roles = {each.id: role(each.split) for each in utterances}
    given = {part: [each for each in items if roles.get(each.utterance) == part] for part in ("dev", "test")}
    if all(given.values()):
        return given
    voices = sorted({each.speaker for each in items}, key=lambda voice: address(seed, "abx", voice))
    if len(voices) < 4:  # two on either side, for X may be another voice
        return {"test": list(items)}
    chosen = set(voices[: max(2, round(CHOOSE * len(voices)))])
    return {
        "dev": [each for each in items if each.speaker in chosen],
        "test": [each for each in items if each.speaker not in chosen],
    }


def _together(
    representation: Representation, items: Sequence[Item], layers: Sequence[int]
) -> Iterator[tuple[int, ...]]:
    """Say which layers are kept at once."""
    steps = sum(each.offset - each.onset for each in items) * SAMPLE_RATE / representation.hop
    count = max(1, int(BYTES / (4 * representation.dim * max(steps, 1))))
    for place in range(0, len(layers), count):
        yield tuple(layers[place : place + count])


def _found(heard: Heard, config: Config) -> list[dict[Mode, Found | None]]:
    """Score each layer in both modes."""
    asked = {mode: list(cells(heard.items, mode, config)) for mode in MODES}
    return [{mode: score(heard, place, asked[mode]) for mode in MODES} for place in range(len(heard.frames))]


def _row(base: Mapping[str, Any], mode: Mode, found: Found, seed: int) -> Row:
    return {
        **base,
        "task": f"abx:{mode}",
        "metric": "error",
        "value": found.value,
        "ci95": (bounds := found.interval(seed)) and list(bounds),
        "over": "speakers",  # what the interval draws
        "n": found.items,
        "speakers": len(found.speakers),
        "pairs": len(found.pairs),
        "cells": found.cells,
        "chance": 0.5,
    }


def _mark(rows: Sequence[Row]) -> None:
    """Mark the layer that is best on dev, of each kind of error."""
    for mode in MODES:
        own = [row for row in rows if row["task"] == f"abx:{mode}"]
        known = [row for row in own if row["dev"] is not None]
        best = min(known, key=lambda row: row["dev"]) if len(known) > 1 else None
        for row in own:
            row["chosen"] = row is best


def _nothing(corpus: Corpus, config: Config, items: Sequence[Item]) -> str:
    if config.context == "same":
        what = "of phones said twice by a voice between the same two phones"
        mend = "set --set context=any, or give more speech"
    else:
        what, mend = "of two phones of one voice", "give more speech, its alignments and its speakers"
    return f"{corpus.name}: {len(items)} items make no cell {what}, expected some; {mend}"
