"""How well scores tell bona fide speech from spoofs: equal error rate, tandem cost, and a threshold to decide by.

All are functions of two error rates at every threshold, misses (bona fide refused) and false alarms (spoofs let in).
The tandem cost is that of ASVspoof 2019 (T. Kinnunen et al., "t-DCF", Odyssey 2018, arXiv 1804.09618): what a
countermeasure costs in front of a speaker verifier. Where no verifier's scores are at hand its error rates are fixed,
about those that the challenge's verifier had on logical access.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from mockingjay.downstream.scores import RESAMPLES, bounded_over


@dataclass(frozen=True, slots=True)
class Tandem:
    """Priors and costs of the challenge's plan, and a verifier's error rates."""

    target: float = 0.9405  # prior of the claimed speaker
    other: float = 0.0095  # prior of another speaker
    spoof: float = 0.05  # prior of a spoof
    miss: float = 1.0  # cost, of verifier and countermeasure alike
    false_alarm: float = 10.0  # cost, of both
    verifier_misses: float = 0.025  # share; with the next two the cost is 2.4 · misses + false alarms (ours)
    verifier_accepts: float = 0.025  # share of other speakers
    verifier_refuses: float = 0.24  # share of spoofs

    @property
    def weights(self) -> tuple[float, float]:
        """What a miss and a false alarm cost, the smaller of them 1."""
        of_miss = self.target * self.miss * (1 - self.verifier_misses)
        of_miss -= self.other * self.false_alarm * self.verifier_accepts
        of_alarm = self.false_alarm * self.spoof * (1 - self.verifier_refuses)
        least = min(of_miss, of_alarm)
        return of_miss / least, of_alarm / least


@dataclass(frozen=True, slots=True)
class Curve:
    """Both error rates at every threshold, from accepting everything to refusing everything; one row a draw."""

    thresholds: Float[np.ndarray, " points"]  # what scores no less is accepted
    misses: Float[np.ndarray, "draws points"]
    alarms: Float[np.ndarray, "draws points"]

    @property
    def equal_error(self) -> Float[np.ndarray, " draws"]:
        """The rate at which both are the same, between thresholds by interpolation."""
        apart = self.misses - self.alarms
        after = np.argmax(apart >= 0, axis=1)  # not 0, for where everything is accepted nothing is missed
        rows = np.arange(len(apart))
        low, high = apart[rows, after - 1], apart[rows, after]
        return self.misses[rows, after - 1] + low / (low - high) * (
            self.misses[rows, after] - self.misses[rows, after - 1]
        )

    @property
    def threshold(self) -> float:
        """Where the first draw's rates are nearest to one another."""
        return float(self.thresholds[np.argmin(np.abs(self.misses[0] - self.alarms[0]))])

    def least_cost(self, tandem: Tandem) -> Float[np.ndarray, " draws"]:
        """The tandem cost at the threshold where it is least, 1 where a countermeasure is of no use."""
        of_miss, of_alarm = tandem.weights
        return (of_miss * self.misses + of_alarm * self.alarms).min(1)


def curve(
    scores: Float[np.ndarray, " utterances"],
    bonafide: Bool[np.ndarray, " utterances"],
    counts: Float[np.ndarray, "draws utterances"] | None = None,
) -> Curve:
    """Count errors at every threshold; thresholds lie midway between scores.

    Args:
        scores: Higher the more bona fide.
        bonafide: What is true; both occur.
        counts: How often each utterance counts; none: once.
    """
    assert bonafide.any() and not bonafide.all()
    order = np.argsort(scores)
    levels, begins = np.unique(scores[order], return_index=True)
    edges = np.append(begins, len(scores))  # so many lie below each threshold
    truth = bonafide[order]
    counts = np.ones((1, len(scores))) if counts is None else counts[:, order]
    below = [np.pad(counts * kind, ((0, 0), (1, 0))).cumsum(1)[:, edges] for kind in (truth, ~truth)]
    totals = [each[:, -1:].clip(min=1e-300) for each in below]
    thresholds = np.concatenate([[levels[0]], (levels[1:] + levels[:-1]) / 2, [levels[-1] + 1]])
    return Curve(thresholds, below[0] / totals[0], 1 - below[1] / totals[1])


def detection(
    scores: Float[np.ndarray, " utterances"],
    bonafide: Bool[np.ndarray, " utterances"],
    seed: int,
    resamples: int = RESAMPLES,
) -> dict[str, tuple[float, list[float]]]:
    """Measure EER and min t-DCF, each with a 95 % interval over utterances."""
    tandem = Tandem()

    def measure(counts: Float[np.ndarray, "draws utterances"]) -> Float[np.ndarray, "draws metrics"]:
        found = curve(scores, bonafide, counts)
        return np.stack([found.equal_error, found.least_cost(tandem)], 1)

    def both(counts: Int[np.ndarray, "draws utterances"]) -> Float[np.ndarray, "usable metrics"]:
        # A draw without one of the classes has no rates; of a few utterances that happens.
        usable = (counts[:, bonafide].sum(1) > 0) & (counts[:, ~bonafide].sum(1) > 0)
        return measure(counts[usable].astype(np.float64))

    values = measure(np.ones((1, len(scores))))[0]
    low, high = bounded_over(len(scores), both, resamples, seed)
    return {
        name: (float(value), [float(least), float(most)])
        for name, value, least, most in zip(("EER", "min t-DCF"), values, low, high)
    }
