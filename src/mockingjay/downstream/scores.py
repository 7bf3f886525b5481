"""Values with intervals: an utterance is the unit of chance, because the frames inside one are not independent.

Intervals are percentile bootstraps over utterances (Bisani and Ney, ICASSP 2004): utterances are drawn with replacement
and the pooled value, earned / total, is recomputed. Two results on the same utterances are compared by drawing the
same utterances for both.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from mockingjay.core.errors import DataError
from mockingjay.downstream.tasks.task import Better

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Scores:
    """What guesses about each test utterance earned, averaged over seeds.

    Of classes a label point named rightly is earned, so that the value is the accuracy. Of measured values it is the
    squared error that the training mean would have made, less the probe's own: the value is R². Of sequences it is what
    they cost, the edits: the value is an error rate, and less is better.
    """

    ids: tuple[str, ...]
    earned: Float[np.ndarray, " utterances"]
    total: Float[np.ndarray, " utterances"]  # what there was to earn, all above 0
    better: Better = "higher"

    @property
    def value(self) -> float:
        """The task's metric: what was earned over what there was to earn."""
        return float(self.earned.sum() / self.total.sum())

    def interval(self, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
        """Bound the value with 95 % confidence."""
        draws = [counts @ self.earned / (counts @ self.total) for counts in _resampled(len(self.ids), resamples, seed)]
        return _middle(np.concatenate(draws))


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better the first of two results is."""

    value: float
    ci95: tuple[float, float]

    @property
    def verdict(self) -> Literal["holds", "does not", "undecided"]:
        """Whether *the first is better* holds: decided only where the interval leaves out zero."""
        low, high = self.ci95
        return "holds" if low > 0 else "does not" if high < 0 else "undecided"


def paired_difference(first: Scores, second: Scores, resamples: int = RESAMPLES, seed: int = 0) -> Difference:
    """Say how much better the first is, with a 95 % interval over the utterances both were tested on.

    The second's value is subtracted from the first's, and the other way round where less is better.

    Raises:
        DataError: The two were tested on different utterances, or more is better of one and less of the other.
    """
    if first.better != second.better:
        raise DataError(
            f"comparison: {first.better} is better of one result and {second.better} of the other, "
            "expected one metric; compare what was measured alike"
        )
    if set(first.ids) != set(second.ids):
        alone = sorted(set(first.ids) ^ set(second.ids))
        raise DataError(
            f"comparison: {len(alone)} utterances were tested in one result only (first {alone[0]!r}), "
            "expected the same test set; probe both on the same split"
        )
    place = {id: index for index, id in enumerate(second.ids)}
    order = np.array([place[id] for id in first.ids])
    earned, total = second.earned[order], second.total[order]
    sign = 1 if first.better == "higher" else -1
    draws = [
        sign * (counts @ first.earned / (counts @ first.total) - counts @ earned / (counts @ total))
        for counts in _resampled(len(first.ids), resamples, seed)
    ]
    return Difference(sign * (first.value - second.value), _middle(np.concatenate(draws)))


def bounded(
    sums: Float[np.ndarray, "utterances kinds"],
    measure: Callable[[Float[np.ndarray, "draws kinds"]], Float[np.ndarray, "draws ..."]],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """Bound any function of an utterance set's summed numbers with 95 % confidence.

    Args:
        sums: What each utterance adds to each sum.
        measure: Sums over a drawn set → what is to be bounded, for many draws at once.
        resamples: Draws.
        seed: Of the draws; the same for all that is compared.
    """
    return bounded_over(len(sums), lambda counts: measure(counts @ sums), resamples, seed)


def bounded_over(
    utterances: int,
    measure: Callable[[Int[np.ndarray, "draws utterances"]], Float[np.ndarray, "draws ..."]],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """Bound any function of how often each utterance is drawn, with 95 % confidence.

    Args:
        utterances: How many there are.
        measure: Such counts → what is to be bounded, for many draws at once.
        resamples: Draws.
        seed: Of the draws; the same for all that is compared.
    """
    draws = [measure(counts) for counts in _resampled(utterances, resamples, seed)]
    low, high = np.quantile(np.concatenate(draws), (0.025, 0.975), axis=0)
    return np.asarray(low), np.asarray(high)


def _resampled(utterances: int, resamples: int, seed: int) -> Iterator[Int[np.ndarray, "draws utterances"]]:
    """How often each utterance is drawn, in slices of a few megabytes."""
    random = np.random.default_rng(seed)
    slice_size = max(1, 1_000_000 // utterances)
    even = np.full(utterances, 1 / utterances)
    for begin in range(0, resamples, slice_size):
        yield random.multinomial(utterances, even, size=min(slice_size, resamples - begin))


def _middle(draws: Float[np.ndarray, " draws"]) -> tuple[float, float]:
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)
