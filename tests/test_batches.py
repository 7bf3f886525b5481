import dataclasses
import itertools
import os
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_learner import speak, utterances

from mockingjay import audio
from mockingjay.core.errors import ConfigError, DataError, MachineError
from mockingjay.core.types import Utterance
from mockingjay.data import batches
from mockingjay.data.batches import BatchPlan, Loader


def plan(count=60, slots=1, low=0.3, high=2.0, **changes) -> BatchPlan:
    settings = {"seconds": 8.0, "crop": 1.5, **changes}
    return BatchPlan(utterances(count, low, high), BatchPlan.Config(**settings), slots)


def epoch(plan: BatchPlan, number: int) -> list[tuple[Utterance, ...]]:
    steps = range(number * plan.steps_per_epoch, (number + 1) * plan.steps_per_epoch)
    found = [plan.step(step) for step in steps]
    assert {each for each, _ in found} == {number}
    return [chosen for _, chosen in found]


def test_every_utterance_once_per_epoch():
    corpus = plan()
    for number in range(3):
        ids = Counter(each.id for chosen in epoch(corpus, number) for each in chosen)
        assert ids == Counter(each.id for each in corpus.utterances)


def test_order_depends_on_seed_and_epoch_alone():
    one, two = plan(), plan()
    late = two.step(5 * two.steps_per_epoch + 2)  # asked out of order
    assert [two.step(step) for step in range(30)] == [one.step(step) for step in range(30)]
    assert late == one.step(5 * one.steps_per_epoch + 2)
    assert epoch(one, 0) != epoch(one, 1)
    assert epoch(one, 0) != epoch(plan(seed=1), 0)


def test_batch_mates_change_between_epochs():
    corpus = plan(400)
    pairs = [
        {
            frozenset(pair)
            for chosen in epoch(corpus, number)
            for pair in itertools.combinations([u.id for u in chosen], 2)
        }
        for number in (0, 1)
    ]
    assert len(pairs[0] & pairs[1]) < 0.5 * len(pairs[0])


def test_batches_hold_the_asked_seconds():
    corpus = plan(400)
    held = [sum(min(each.seconds, 1.5) for each in chosen) for chosen in epoch(corpus, 0)]
    assert min(held) > 8.0 - 2.0 and max(held) < 8.0 + 2.0
    assert corpus.seconds_per_epoch == pytest.approx(sum(held), abs=0.01)


def test_padding_of_a_corpus_of_2_to_20_seconds():
    generator = np.random.default_rng(0)
    corpus = [Utterance(str(i), "", float(s)) for i, s in enumerate(generator.uniform(2, 20, 4000))]
    divided = BatchPlan(corpus, BatchPlan.Config(seconds=96.0, crop=20.0))
    held = wasted = 0.0
    for chosen in epoch(divided, 0):
        seconds = [each.seconds for each in chosen]
        held += sum(seconds)
        wasted += max(seconds) * len(seconds) - sum(seconds)
    assert wasted / (held + wasted) <= 0.06


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0.2, 30.0), min_size=8, max_size=60), st.integers(1, 8), st.floats(1.0, 4.0), st.integers(0, 3)
)
def test_every_slot_gets_an_utterance(seconds, slots, factor, number):
    corpus = [Utterance(str(i), "", s) for i, s in enumerate(seconds)]
    longest = min(15.0, max(seconds))
    divided = BatchPlan(corpus, BatchPlan.Config(seconds=factor * slots * longest + 0.001), slots)
    chosen = epoch(divided, number)
    assert all(len(each) >= slots for each in chosen)
    assert sum(map(len, chosen)) == len(corpus)


def test_a_corpus_smaller_than_a_batch_is_one_batch():
    corpus = plan(5, seconds=100.0)
    assert corpus.steps_per_epoch == 1
    assert len(corpus.step(0)[1]) == 5


def test_too_few_utterances():
    with pytest.raises(DataError, match=r"corpus: 2 of 3 utterances last 0\.5 s or longer, expected at least 4 "):
        BatchPlan(
            [Utterance("a", "", 1.0), Utterance("b", "", 1.0), Utterance("c", "", 0.1)],
            BatchPlan.Config(minimum=0.5),
            slots=4,
        )


def test_seconds_below_what_the_slots_need():
    with pytest.raises(
        ConfigError, match=r"batches\.seconds: 2 s per step cannot hold 4 micro-batches .* at least 6; raise"
    ):
        plan(seconds=2.0, slots=4)


def test_short_utterances_are_left_out_and_told():
    corpus = plan(60, minimum=1.0)
    assert len(corpus.left_out) + len(corpus.utterances) == 60
    assert all(each.seconds < 1.0 for each in corpus.left_out)


def test_crops_are_addressed_and_cover_the_utterance():
    corpus = plan(2)
    long = Utterance("long", "", 10.0)
    firsts = [corpus.stretch(long, number) for number in range(300)]
    assert firsts[7] == plan(2).stretch(long, 7)
    assert {samples for _, samples in firsts} == {24_000}
    assert min(first for first, _ in firsts) < 5_000 and 131_000 < max(first for first, _ in firsts) <= 136_000
    assert corpus.stretch(Utterance("short", "", 1.0), 3) == (0, 16_000)


def test_fingerprint_sees_ids_lengths_and_order():
    given = utterances(6)
    config = BatchPlan.Config()
    one = BatchPlan(given, config).fingerprint
    assert one == BatchPlan(list(given), config).fingerprint
    assert one != BatchPlan(given[::-1], config).fingerprint
    assert one != BatchPlan([*given[:-1], dataclasses.replace(given[-1], seconds=0.9)], config).fingerprint


# ---- the loader


@pytest.fixture
def spoken(monkeypatch):
    monkeypatch.setattr(audio, "read", speak)


def first_steps(loader, count, start=0):
    return list(itertools.islice(loader.steps(start), count))


def same(one, two):
    return len(one) == len(two) and all(
        torch.equal(a.waves.samples, b.waves.samples)
        and torch.equal(a.waves.lengths, b.waves.lengths)
        and a.utterances == b.utterances
        and a.epoch == b.epoch
        for x, y in zip(one, two)
        for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("cache", [0, 200_000, 10**9])
def test_workers_and_cache_change_nothing(spoken, workers, cache):
    count = 3 * plan().steps_per_epoch
    expected = first_steps(Loader(plan(), workers=0), count)
    assert same(expected, first_steps(Loader(plan(), workers=workers, cache=cache), count))


def test_starting_anywhere_continues(spoken):
    expected = first_steps(Loader(plan(), workers=0), 25)
    assert same(expected[17:], first_steps(Loader(plan(), workers=2), 8, start=17))


def test_ranks_and_accumulation_are_slices(spoken):
    whole = first_steps(Loader(plan(slots=4), workers=0), 6)
    ranked = [first_steps(Loader(plan(slots=4), rank=rank, ranks=2, workers=0), 6) for rank in (0, 1)]
    for step in range(6):
        micro = [*ranked[0][step], *ranked[1][step]]
        assert same([whole[step]], [tuple(micro)])
        ids = [each.id for batch in micro for each in batch.utterances]
        assert sorted(ids) == sorted(each.id for each in plan(slots=4).step(step)[1])
        seconds = [batch.waves.lengths.sum().item() / 16_000 for batch in micro]
        assert max(seconds) - min(seconds) <= 1.5 + 0.5  # balanced


def test_bad_files_are_left_out_and_named(monkeypatch):
    bad = {"u0003", "u0011"}

    def read(path, start=0.0, seconds=None):
        if path[-9:-4] in bad:
            raise DataError(f"{path}: broken")
        return speak(path, start, seconds)

    monkeypatch.setattr(audio, "read", read)
    told: list[str] = []
    loader = Loader(plan(), workers=2, refuse=lambda utterance, error: told.append(f"{utterance.id} {error}"))
    found = first_steps(loader, 3 * plan().steps_per_epoch)
    assert sorted(told) == ["u0003 /corpus/u0003.wav: broken", "u0011 /corpus/u0011.wav: broken"]
    ids = Counter(each.id for step in found for batch in step for each in batch.utterances)
    assert set(ids.values()) == {3} and len(ids) == 58
    again = Loader(plan(), workers=0, refused=bad)
    assert same(found, first_steps(again, len(found)))
    with pytest.raises(DataError, match="broken"):
        first_steps(Loader(plan(), workers=2), len(found))


def test_a_lost_micro_batch_is_replaced_by_the_plans_next(monkeypatch):
    corpus = plan()
    lost = {each.id for each in corpus.step(1)[1]} | {corpus.step(2)[1][0].id}

    def read(path, start=0.0, seconds=None):
        if path[-9:-4] in lost:
            raise DataError(f"{path}: broken")
        return speak(path, start, seconds)

    monkeypatch.setattr(audio, "read", read)
    found = first_steps(Loader(plan(), workers=2, refuse=lambda *_: None), 3)
    assert [each.id for each in found[1][0].utterances] == [corpus.step(2)[1][1].id]
    lost.update(each.id for each in corpus.utterances)
    with pytest.raises(DataError, match="none of its 60 utterances can be read"):
        first_steps(Loader(plan(), workers=0, refuse=lambda *_: None), 1)


def test_a_disk_that_hangs(monkeypatch):
    gone = threading.Event()
    monkeypatch.setattr(audio, "read", lambda *_: gone.wait(20) or speak("u0001.wav"))
    monkeypatch.setattr(batches, "STALL", 0.2)
    with pytest.raises(MachineError, match=r"a batch is not read after 0\.2 s"):
        first_steps(Loader(plan(), workers=1), 1)
    gone.set()


def test_flac_and_resampled_files_are_cropped_exactly(tmp_path):
    generator = np.random.default_rng(0)
    corpus = []
    for name, rate in (("a", 16_000), ("b", 22_050), ("c", 16_000)):
        samples = generator.uniform(-0.5, 0.5, 3 * rate)
        soundfile.write(tmp_path / f"{name}.flac", samples, rate, subtype="PCM_16")
        corpus.append(Utterance(name, str(tmp_path / f"{name}.flac"), 3.0))
    config = BatchPlan.Config(crop=2.0, seconds=6.0)
    plain = first_steps(Loader(BatchPlan(corpus, config), workers=0), 8)
    cached = first_steps(Loader(BatchPlan(corpus, config), workers=2, cache=10**8), 8)
    assert same(plain, cached)
    for (batch,) in plain:
        assert batch.waves.lengths.tolist() == [32_000] * 3
    by_name = dict(zip([each.id for each in plain[3][0].utterances], plain[3][0].waves.samples))
    first, _ = BatchPlan(corpus, config).stretch(corpus[0], plain[3][0].epoch)
    assert torch.equal(by_name["a"], audio.read(corpus[0].path)[first : first + 32_000])


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_leaves_no_threads(spoken):
    first_steps(Loader(plan(), workers=4), 5)
    for thread in threading.enumerate():
        if thread.name.startswith("reader"):
            thread.join(5)
            assert not thread.is_alive()


@pytest.mark.slow
def test_ten_thousand_batches_stay_flat(monkeypatch):
    monkeypatch.setattr(audio, "read", lambda path, start, seconds: torch.zeros(round(seconds * 16_000)))
    steps = Loader(plan(), workers=2).steps()
    for _ in itertools.islice(steps, 1_000):
        pass
    before = resident()
    for _ in itertools.islice(steps, 10_000):
        pass
    assert resident() - before < 30e6
