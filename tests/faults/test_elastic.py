"""Workers, prefetching and ranks change nothing: how many there are may differ from start to start."""

import pytest
from command import works
from safetensors.torch import load_file
from speech_like import corpus
from test_pretrain import command, final, interrupt_rank_1, ranks, steps_of

from mockingjay.core.types import Utterance
from mockingjay.data.batches import BatchPlan

STILL = ("--set", "objective.encoder.context.dropout=0", "--set", "objective.encoder.context.attention_dropout=0")
STEPS = 14


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    return corpus(tmp_path_factory.mktemp("speech"), seconds=0.7)


def test_workers_and_cache_change_no_bit(speech, tmp_path):
    weights = []
    for workers, cache in [(0, 1), (1, 0), (4, 1)]:
        out = tmp_path / f"{workers}-{cache}"
        works(*command(speech, out, 4, "--set", f"upkeep.workers={workers}", "--set", f"upkeep.cache={cache}"))
        weights.append(final(out, 4))
    assert all(each == weights[0] for each in weights)


@pytest.mark.parametrize("then", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_two_ranks_then_as_many(speech, tmp_path, then):
    """Stopped with two ranks: as one rank from the start. Without dropout, which is drawn by rank."""
    works(*command(speech, tmp_path / "one", STEPS, *STILL))
    out = tmp_path / "run"
    words = command(speech, out, STEPS, *STILL)
    found = ranks(words, tmp_path, hurt=interrupt_rank_1)
    assert [code for code, _ in found] == [143, 143], found
    stopped = max(steps_of(out))
    assert 0 < stopped < STEPS
    if then == 1:
        assert f"at step {stopped} of {STEPS}" in works(*words)
    else:
        found = ranks(words, tmp_path)
        assert [code for code, _ in found] == [0, 0], found
    expected, weights = (load_file(tmp_path / name / "encoder" / "model.safetensors") for name in ("one", "run"))
    assert max(float((expected[key] - weights[key]).abs().max()) for key in expected) <= 1e-5
    assert steps_of(out) == list(range(STEPS + 1))


def test_how_far_the_order_is_independent_of_ranks():
    """Declared: always where a step holds 4/3 of what its slots need; below, a tiny corpus may be cut otherwise."""
    for count in range(4, 60):
        corpus = [Utterance(f"u{number}", "", 1.0 + 0.01 * (number % 7)) for number in range(count)]
        plans = [BatchPlan(corpus, BatchPlan.Config(seconds=4 / 3 * 2 * 1.06), slots) for slots in (1, 2)]
        assert [plans[0].step(step) for step in range(40)] == [plans[1].step(step) for step in range(40)]
    corpus = [Utterance(f"u{number}", "", 1.0) for number in range(7)]
    one, two = (BatchPlan(corpus, BatchPlan.Config(seconds=2.0), slots) for slots in (1, 2))
    assert (one.steps_per_epoch, two.steps_per_epoch) == (4, 3)
