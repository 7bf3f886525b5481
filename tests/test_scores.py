import math

import numpy as np
import pytest

from mockingjay.core.errors import DataError
from mockingjay.downstream.scores import Scores, paired_difference


def scores(correct, total=1.0, prefix="u"):
    correct = np.asarray(correct, dtype=np.float64)
    ids = tuple(f"{prefix}{index}" for index in range(len(correct)))
    return Scores(ids, correct, np.broadcast_to(total, correct.shape).astype(np.float64))


def test_interval_meets_the_binomial_closed_form():
    n, p = 400, 0.7
    result = scores([1.0] * int(n * p) + [0.0] * (n - int(n * p)))
    low, high = result.interval(resamples=20_000)
    margin = 1.96 * math.sqrt(p * (1 - p) / n)
    assert result.value == pytest.approx(p)
    assert low == pytest.approx(p - margin, abs=0.004)
    assert high == pytest.approx(p + margin, abs=0.004)


def test_frames_of_one_utterance_are_not_independent():
    few = scores([90.0, 10.0] * 5, total=100.0)  # 1000 frames, 10 utterances
    many = scores([1.0, 0.0] * 500)
    assert few.interval()[1] - few.interval()[0] > 3 * (many.interval()[1] - many.interval()[0])


def test_interval_weighs_utterances_by_their_points():
    result = Scores(("long", "short"), np.array([90.0, 0.0]), np.array([100.0, 10.0]))
    assert result.value == pytest.approx(90 / 110)
    assert result.interval() == pytest.approx((0.0, 0.9))


def test_interval_is_a_function_of_the_seed():
    result = scores(np.random.default_rng(0).uniform(0, 1, 50))
    assert result.interval(seed=1) == result.interval(seed=1)
    assert result.interval(seed=1) != result.interval(seed=2)


def test_pairing_decides_where_separate_intervals_overlap():
    random = np.random.default_rng(0)
    second = random.uniform(20, 80, 60)
    first = second + 3
    a, b = scores(first, 100.0), scores(second, 100.0)
    assert a.interval()[0] < b.interval()[1]
    difference = paired_difference(a, b)
    assert difference.value == pytest.approx(0.03)
    assert difference.ci95 == pytest.approx((0.03, 0.03))
    assert difference.verdict == "holds"
    assert paired_difference(b, a).verdict == "does not"
    assert paired_difference(a, a).verdict == "undecided"


def test_pairing_follows_ids_not_positions():
    a = scores([1.0, 0.0, 1.0])
    turned = Scores(a.ids[::-1], a.earned[::-1].copy(), a.total)
    assert paired_difference(a, turned).ci95 == (0.0, 0.0)


def test_other_utterances_are_refused():
    with pytest.raises(DataError, match=r"comparison: 1 utterances were tested in one result only \(first 'u2'\)"):
        paired_difference(scores([1.0, 0.0]), scores([1.0, 0.0, 1.0]))
