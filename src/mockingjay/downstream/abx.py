"""ABX: is X, a phone said again, nearer to A, the same phone, than to B, another? Nothing is trained for it.

Schatz et al., "Evaluating speech features with the Minimal-Pair ABX task", Interspeech 2013, as the ZeroSpeech
challenges measure it (zrc_abx2, code). A, B and X share their context. Within speakers all three are of one voice and X
is another item of A's phone; across speakers X is of another voice. A cell's score is the share of (x, a, b) with
d(x, a) > d(x, b), a tie counting half; scores are averaged over contexts and X's voices, then over voices, then over
ordered pairs of phones. 50 % is chance, less is better.

Differs from the code: which items and voices are drawn, where there are more than are taken, is addressed by seed, so
that figures agree exactly only where nothing is drawn; steps lie where the representation's grid has them, where the
code takes every frame to be centred in its hop; and a time that falls on a frame's centre is taken at its word, where
the code's doubles gain or lose a frame at one such time in eleven (0.145 s at 100 frames a second). On items with no
such time zerospeech-libriabx2 0.9.8 and this agree to 1e-5 (tests/abx_reference.py).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from mockingjay.core.config import Config as Table
from mockingjay.core.draw import address
from mockingjay.core.representation import Representation
from mockingjay.core.types import Utterance
from mockingjay.data.quarantine import Quarantine
from mockingjay.downstream.features import represent
from mockingjay.downstream.items import Item, span
from mockingjay.downstream.scores import bounded
from mockingjay.downstream.warp import angles, directions, warp

Mode = Literal["within", "across"]
MODES: tuple[Mode, ...] = ("within", "across")
_PAIRS, _CELLS = 100_000, 8_000_000  # of items, and of their frames, that are compared at once
_BATCH = 4096  # pairs of nearly one size that are warped together
_RESAMPLES = 1000


class Config(Table):
    """Defaults are zrc_abx2's (code)."""

    context: Literal["same", "any"] = "same"
    """Whether A, B and X stand between the same phones, or anywhere."""
    items: int = Field(default=10, ge=2)
    """Of a phone, a voice and a context, at most."""
    speakers: int = Field(default=5, ge=1)
    """Other voices from which X comes, at most, for each voice, phone and context."""
    seed: int = Field(default=3459, ge=0, lt=2**63)
    """Of what is drawn where there is more."""


@dataclass(frozen=True, slots=True)
class Cell:
    """X against A and B: ranges of items. Columns are all items of a voice in a context, A's among them."""

    speaker: str
    phone: str
    rows: range
    columns: range


@dataclass(frozen=True, slots=True)
class Heard:
    """The frames of items, one after the other."""

    items: tuple[Item, ...]  # ordered by context, voice and phone
    frames: tuple[Float[Tensor, "frames dim"], ...]  # of each layer
    bounds: Int[np.ndarray, " bounds"]  # item i: frames bounds[i] to bounds[i + 1]


@dataclass(frozen=True, slots=True)
class Found:
    """What an ABX test found.

    Attributes:
        errors: Of each voice and ordered pair of phones, averaged over contexts and X's voices; not a number where
            there was no cell.
        cells: How many were scored.
        items: How many items were X.
    """

    speakers: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    errors: Float[np.ndarray, "speakers pairs"]
    cells: int
    items: int

    @property
    def value(self) -> float:
        """The error rate: the mean over pairs of means over voices."""
        return float(np.nanmean(self.errors, 0).mean())

    def interval(self, seed: int = 0) -> tuple[float, float] | None:
        """Bound the value with 95 % confidence, drawing voices; None where there is one voice alone."""
        if len(self.speakers) < 2:
            return None
        there = ~np.isnan(self.errors)
        sums = np.concatenate([np.nan_to_num(self.errors), there], 1)

        def measure(totals: Float[np.ndarray, "draws kinds"]) -> Float[np.ndarray, " draws"]:
            errors, counts = np.split(totals, 2, axis=1)
            means = errors / np.where(counts, counts, 1)
            return means.sum(1) / np.count_nonzero(counts, axis=1)

        low, high = bounded(sums, measure, _RESAMPLES, seed)
        return float(low), float(high)


def drawn(items: Sequence[Item], config: Config) -> list[Item]:
    """Draw the items of a test, in the order that it needs, without those that have nothing beside them."""
    groups: defaultdict[tuple[tuple[str, ...], str, str], list[Item]] = defaultdict(list)
    for item in items:
        groups[_context(item, config), item.speaker, item.phone].append(item)
    voices = {key[:2]: 0 for key in groups}
    for context, speaker, _ in groups:
        voices[context, speaker] += 1
    useful = {context for (context, _), phones in voices.items() if phones > 1}
    chosen = []
    for key in sorted(groups):
        if key[0] in useful:
            group = groups[key]
            group.sort(key=lambda item: address(config.seed, "item", item.utterance, item.onset))
            chosen += group[: config.items]
    return chosen


def hear(
    representation: Representation,
    utterances: Sequence[Utterance],
    items: Sequence[Item],
    layers: Sequence[int],
    quarantine: Quarantine | None = None,
) -> Heard:
    """Represent utterances and keep the frames of the items; those without frames are left out.

    Args:
        representation: Stays where it lives.
        utterances: With the items' ids, each long enough to give one step.
        items: From `drawn`.
        layers: Which are kept.
        quarantine: Takes in files that cannot be read; without it the first of them is raised.

    Raises:
        DataError: A file is missing or bad.
    """
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        places[item.utterance].append(place)
    wanted = [each for each in utterances if each.id in places]
    kept: dict[int, Float[Tensor, "layers frames dim"]] = {}
    for indices, hidden in represent(representation, wanted, quarantine):
        stack = torch.stack([hidden.layers[layer] for layer in layers])
        for row, (index, steps) in enumerate(zip(indices, hidden.lengths.tolist())):
            for place in places[wanted[index].id]:
                inside = span(representation.grid, items[place].onset, items[place].offset, steps)
                if inside:
                    kept[place] = stack[:, row, inside.start : inside.stop].clone()
    order = sorted(kept)
    lengths = [kept[place].shape[1] for place in order]
    joined = torch.cat([kept[place] for place in order], 1) if order else torch.zeros(len(layers), 0, 1)
    return Heard(tuple(items[place] for place in order), tuple(joined), np.cumsum([0, *lengths]))


def cells(items: Sequence[Item], mode: Mode, config: Config) -> Iterator[Cell]:
    """List what is compared with what.

    Args:
        items: In the order of `drawn`.
        mode: Within speakers or across.
        config: As of `drawn`.
    """
    for context, blocks in _blocks(items, config).items():
        holders: defaultdict[str, list[str]] = defaultdict(list)
        for speaker, phones in blocks.items():
            for phone in phones:
                holders[phone].append(speaker)
        for speaker, phones in blocks.items():
            columns = range(min(each.start for each in phones.values()), max(each.stop for each in phones.values()))
            for phone, block in phones.items() if len(phones) > 1 else ():
                if mode == "within" and len(block) > 1:
                    yield Cell(speaker, phone, block, columns)
                elif mode == "across":
                    others = [other for other in holders[phone] if other != speaker]
                    others.sort(key=lambda other: address(config.seed, "voice", context, speaker, phone, other))
                    for other in others[: config.speakers]:
                        yield Cell(speaker, phone, blocks[other][phone], columns)


def score(heard: Heard, layer: int, asked: Sequence[Cell]) -> Found | None:
    """Score cells by the frames of one layer; None where there is no cell.

    Args:
        heard: The items.
        layer: Its place among those that were kept.
        asked: From `cells`, of the same items.
    """
    if not asked:
        return None
    phones = sorted({item.phone for item in heard.items})
    speakers = sorted({cell.speaker for cell in asked})
    numbers = {name: number for number, name in enumerate(phones)}
    of_items = np.array([numbers[item.phone] for item in heard.items])
    first = np.array([numbers[cell.phone] for cell in asked])
    who = np.array([speakers.index(cell.speaker) for cell in asked])
    frames, count = directions(heard.frames[layer]), len(phones)
    sums, counts = np.zeros((2, len(speakers) * count * count))
    for begin, end in pairwise(_parts(asked, heard.bounds)):
        table, there = _errors(_Pairs.of(asked[begin:end], heard.bounds), frames, of_items, first[begin:end], count)
        place = (who[begin:end] * count + first[begin:end])[:, None] * count + np.arange(count)
        sums += np.bincount(place[there], table[there], minlength=len(sums))
        counts += np.bincount(place[there], minlength=len(sums))
    means = np.where(counts, sums / np.where(counts, counts, 1), np.nan).reshape(len(speakers), -1)
    known = np.flatnonzero(~np.isnan(means).all(0))
    pairs = tuple((phones[index // count], phones[index % count]) for index in known)
    said = {index for cell in asked for index in cell.rows}
    return Found(tuple(speakers), pairs, means[:, known], int(counts.sum()), len(said))


@dataclass(frozen=True, slots=True)
class _Pairs:
    """All pairs of rows and columns of some cells, flat; an item is not paired with itself."""

    cells: Sequence[Cell]
    bounds: Int[np.ndarray, " bounds"]
    cell: Int[np.ndarray, " pairs"]
    row: Int[np.ndarray, " pairs"]  # from 0, through all cells
    x: Int[np.ndarray, " pairs"]  # items
    y: Int[np.ndarray, " pairs"]

    @classmethod
    def of(cls, cells: Sequence[Cell], bounds: Int[np.ndarray, " bounds"]) -> "_Pairs":
        """List the pairs, by rows, then by columns."""
        sizes = np.array([(len(each.rows), len(each.columns)) for each in cells])
        firsts = np.array([(each.rows.start, each.columns.start) for each in cells])
        heights, areas = sizes[:, 0], sizes.prod(1)
        cell = np.repeat(np.arange(len(cells)), areas)
        inside = np.arange(len(cell)) - (np.cumsum(areas) - areas)[cell]
        row, column = np.divmod(inside, sizes[cell, 1])
        x, y = firsts[cell, 0] + row, firsts[cell, 1] + column
        row = row + (np.cumsum(heights) - heights)[cell]
        other = x != y
        return cls(cells, bounds, cell[other], row[other], x[other], y[other])

    def distances(self, frames: Float[Tensor, "frames dim"]) -> Float[np.ndarray, " pairs"]:
        """Warp all of them."""
        bounds, lengths = self.bounds, np.diff(self.bounds)
        places = bounds[[(c.rows.start, c.rows.stop, c.columns.start, c.columns.stop) for c in self.cells]]
        tables = [angles(frames[top:bottom], frames[left:right]) for top, bottom, left, right in places.tolist()]
        costs = torch.cat([table.flatten() for table in tables])
        widths = (places[:, 3] - places[:, 2])[self.cell]
        begins = np.cumsum([0, *(table.numel() for table in tables)])[self.cell]
        begins = begins + (bounds[self.x] - places[self.cell, 0]) * widths + bounds[self.y] - places[self.cell, 2]
        order = np.lexsort((lengths[self.y], lengths[self.x]))
        numbers = np.stack([begins, widths, lengths[self.x], lengths[self.y]])[:, order]
        found = [_warped(costs, numbers[:, place : place + _BATCH]) for place in range(0, len(order), _BATCH)]
        values = np.empty(len(order))
        values[order] = torch.cat(found).cpu().numpy()
        return values


def _warped(costs: Float[Tensor, " cells"], numbers: Int[np.ndarray, "4 pairs"]) -> Float[Tensor, " pairs"]:
    """Warp pairs, whose tables are said by begin, width, rows and columns, within one flat tensor."""
    begins, widths, rows, columns = torch.from_numpy(numbers).to(costs.device)
    down = torch.arange(int(numbers[2].max()), device=costs.device)[:, None, None].minimum(rows - 1)
    right = torch.arange(int(numbers[3].max()), device=costs.device)[:, None].minimum(columns - 1)
    return warp(costs[begins + down * widths + right], rows, columns)


def _errors(
    pairs: _Pairs,
    frames: Float[Tensor, "frames dim"],
    phones: Int[np.ndarray, " items"],
    first: Int[np.ndarray, " cells"],
    count: int,
) -> tuple[Float[np.ndarray, "cells phones"], np.ndarray]:
    """Score cells against each phone B, and say which scores there are."""
    distances = pairs.distances(frames)
    same = phones[pairs.y] == first[pairs.cell]
    # Distances to A, a row of the table for each x; what is not there is never farther than B.
    rows, near = pairs.row[same], distances[same]
    order = np.arange(len(rows)) - np.searchsorted(rows, rows)
    table = np.full((int(pairs.row.max()) + 1, int(order.max()) + 1), -np.inf)
    table[rows, order] = near
    others, far = pairs.row[~same], distances[~same, None]
    wrong = (table[others] > far).sum(1) + 0.5 * (table[others] == far).sum(1)
    shares = wrong / np.isfinite(table).sum(1)[others]
    place = pairs.cell[~same] * count + phones[pairs.y[~same]]
    sums, totals = (np.bincount(place, each, minlength=len(first) * count) for each in (shares, None))
    there = totals > 0
    return (sums / np.where(there, totals, 1)).reshape(-1, count), there.reshape(-1, count)


def _context(item: Item, config: Config) -> tuple[str, ...]:
    return (item.before, item.after) if config.context == "same" else ()


def _blocks(items: Sequence[Item], config: Config) -> Mapping[tuple[str, ...], dict[str, dict[str, range]]]:
    """Find the range of each context's, voice's and phone's items, which lie side by side."""
    blocks: dict[tuple[str, ...], dict[str, dict[str, range]]] = {}
    for place, item in enumerate(items):
        phones = blocks.setdefault(_context(item, config), {}).setdefault(item.speaker, {})
        before = phones.get(item.phone, range(place, place))
        assert before.stop == place, "items are in the order of drawn()"
        phones[item.phone] = range(before.start, place + 1)
    return blocks


def _parts(asked: Sequence[Cell], bounds: Int[np.ndarray, " bounds"]) -> list[int]:
    """Cut cells into parts of a bounded size."""
    cuts, pairs, size = [0], 0, 0
    for place, cell in enumerate(asked):
        own = len(cell.rows) * len(cell.columns)
        area = int(np.prod([bounds[part.stop] - bounds[part.start] for part in (cell.rows, cell.columns)]))
        if pairs and (pairs + own > _PAIRS or size + area > _CELLS):
            cuts.append(place)
            pairs = size = 0
        pairs, size = pairs + own, size + area
    return [*cuts, len(asked)]
