"""The hidden states of a set, kept whole or computed in parts: training reads either in pieces of the same size.

Where a set does not fit in memory, a pass goes through its utterances in a random order, a part of them at a time; the
rows of a part are shuffled and read in pieces as those of a whole set are. Of the frames of a training set each
utterance gives a random share, such that a pass holds a tenth more than a training reads in all its updates: as where
states are kept, it reads rows of all utterances and not all rows of a few. What remains of a difference is that rows
read at about the same time come from the utterances of one part, and that a piece is never shorter than the others.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mockingjay.core.draw import address
from mockingjay.core.types import Utterance
from mockingjay.data.quarantine import Quarantine
from mockingjay.downstream.features import (
    Cache,
    Piece,
    bytes_needed,
    filled,
    gather,
    generator_at,
    rows_needed,
    unlabelled,
    unreadable,
)
from mockingjay.downstream.probe import Probe

SPARE = 1.1  # frames of a pass over those that a training reads; some have no label, and parts end unevenly


class States(ABC):
    """What a head reads of a set of utterances, and what it should guess from it."""

    @abstractmethod
    def once(self) -> Iterator[Cache]:
        """Go through the set; owners are indices into all of it.

        Raises:
            DataError: A file is missing or bad, or all are, or no label lies within the audio.
        """

    @abstractmethod
    def forever(self, size: int, seed: int) -> Iterator[Piece]:
        """Hand out shuffled pieces without end.

        Args:
            size: Guesses in a piece.
            seed: The same seed gives the same pieces.

        Raises:
            DataError: As `once`.
        """

    @abstractmethod
    def only(self, utterances: Sequence[int]) -> "States":
        """Keep what is about some of the utterances, by their indices.

        Raises:
            DataError: As `once`, of these.
        """


@dataclass(frozen=True, slots=True)
class Whole(States):
    """Computed once."""

    cache: Cache

    def once(self) -> Iterator[Cache]:
        yield self.cache

    def forever(self, size: int, seed: int) -> Iterator[Piece]:
        generator = generator_at("order", seed)
        while True:
            yield from self.cache.pieces(size, generator)

    def only(self, utterances: Sequence[int]) -> "States":
        kept = self.cache.only(utterances)
        if not len(kept.owners):
            raise unlabelled(len(utterances))
        return Whole(kept)


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of the states of a set.

    Attributes:
        room: Bytes for a whole set, or for a part of one.
        piece: Guesses that are read at once; a part holds two pieces at least.
        guesses: That a training reads in all; none: a pass holds all there are.
        seed: Shuffles the rows of a whole set; without it they stay as the utterances are.
    """

    room: float
    piece: int = 1
    guesses: int | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Parts(States):
    """Computed anew in every pass, a part at a time."""

    probe: Probe
    utterances: Sequence[Utterance]
    chosen: tuple[int, ...]  # indices of the utterances that it is about
    demand: Demand
    quarantine: Quarantine | None
    count: int  # parts of a pass
    share: float  # of an utterance's frames

    def once(self) -> Iterator[Cache]:
        yield from self._walk("once")

    def forever(self, size: int, seed: int) -> Iterator[Piece]:
        generator = generator_at("order", seed)
        for number in itertools.count():
            for part in self._walk("pass", seed, number):
                yield from part.pieces(size, generator, full=True)

    def only(self, utterances: Sequence[int]) -> "States":
        return hold(self.probe, self.utterances, self.demand, self.quarantine, tuple(utterances))

    def _walk(self, *where: object) -> Iterator[Cache]:
        order = torch.randperm(len(self.chosen), generator=generator_at(*where)).numpy()
        seed = address(*where) & (2**63 - 1)
        rows = np.array(rows_needed(self.probe, [self.utterances[self.chosen[place]] for place in order]))
        middles = rows.cumsum() - rows / 2
        parts = (middles * self.count / rows.sum()).astype(int).clip(max=self.count - 1)
        anything = read = False
        for number in range(self.count):
            some = [self.chosen[place] for place in order[parts == number]]
            part = gather(self.probe, self.utterances, some, seed, self.quarantine, self.share)
            read = read or part is not None
            if part is not None and len(part.owners):
                anything = True
                yield part
        if not anything:
            raise unlabelled(len(self.chosen)) if read else unreadable(self.utterances)


def hold(
    probe: Probe,
    utterances: Sequence[Utterance],
    demand: Demand,
    quarantine: Quarantine | None = None,
    chosen: tuple[int, ...] | None = None,
) -> States:
    """Keep the states of a set, or make ready to compute them in parts.

    Args:
        probe: Frozen; its task says what to guess.
        utterances: At least one.
        demand: Room for them, and how they are read.
        quarantine: As for `features.cache`.
        chosen: Indices of the utterances that it shall be about; none: all.

    Raises:
        DataError: A file is missing or bad, or all are, or no label lies within the audio.
    """
    chosen = tuple(range(len(utterances))) if chosen is None else chosen
    some = [utterances[place] for place in chosen]
    needed, guesses = bytes_needed(probe, some), _guesses(probe, some)
    share = 1.0
    if demand.guesses is not None and probe.task.resolution == "frame":
        share = min(1.0, SPARE * demand.guesses / guesses)
    if needed > demand.room:
        parts = math.ceil(share * needed / demand.room)
        count = max(1, min(parts, int(share * guesses) // (2 * demand.piece), len(chosen)))
        if count > 1 or share < 1:  # what two updates read has to be in memory, whatever room there is
            return Parts(probe, utterances, chosen, demand, quarantine, count, share)
    return Whole(filled(gather(probe, utterances, chosen, demand.seed, quarantine), some))


def heard(probe: Probe, utterances: Sequence[Utterance], guesses: int) -> float:
    """Tell how often parts of a set have been computed when so many guesses have been read; of frames once at least."""
    passes = guesses / _guesses(probe, utterances)
    return max(1.0, passes) if probe.task.resolution == "frame" else passes


def _guesses(probe: Probe, utterances: Sequence[Utterance]) -> int:
    return sum(rows_needed(probe, utterances)) if probe.task.resolution == "frame" else len(utterances)
