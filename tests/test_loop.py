import copy
import itertools
import math
import os
import re
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from toy_learner import Toy, speak, utterances

from mockingjay import audio
from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.errors import CheckpointError, ConfigError, MachineError, TrainingError
from mockingjay.core.types import Batch, Loss, Waves
from mockingjay.data.batches import BatchPlan, Loader
from mockingjay.train import pace, precision, signals
from mockingjay.train.distributed import Group
from mockingjay.train.estimate import Estimate, estimate
from mockingjay.train.loop import Run, _Stopwatch
from mockingjay.train.optimiser import Optimiser
from mockingjay.train.schedule import warmup_constant, warmup_linear


@pytest.fixture(autouse=True)
def spoken(monkeypatch):
    monkeypatch.setattr(audio, "read", speak)


def settings(**changes) -> Run.Config:
    return config.overlay(Run.Config(steps=20, learning_rate=0.01), changes)


def loader(slots=1) -> Loader:
    return Loader(BatchPlan(utterances(40), BatchPlan.Config(seconds=6.0), slots), workers=0)


def trained(steps=20, slots=1, dropout=0.0, **changes) -> Run:
    run = Run(Toy(dropout), settings(steps=steps, accumulate=slots, **changes))
    for _ in run.ticks(loader(slots).steps()):
        pass
    return run


def equal(one, two) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


# ---- the schedule


@pytest.mark.parametrize(
    ("step", "share"),
    [
        (0, 0.0),
        (1, 1 / 35_000),
        (7_000, 0.2),
        (17_500, 0.5),
        (34_999, 34_999 / 35_000),
        (35_000, 1.0),
        (150_000, 350 / 465),
        (267_500, 0.5),
        (453_500, 0.1),
        (500_000, 0.0),
    ],
)
def test_the_published_schedule(step, share):
    assert 4e-4 * warmup_linear(step, 500_000, 0.07) == pytest.approx(4e-4 * share, rel=1e-12, abs=1e-18)


def test_schedules_at_their_ends():
    assert [warmup_linear(step, 4, 0.0) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert [warmup_linear(step, 4, 1.0) for step in range(4)] == [0.0, 0.25, 0.5, 0.75]
    assert [warmup_constant(step, 4, 0.5) for step in range(5)] == [0.0, 0.5, 1.0, 1.0, 1.0]


def test_the_run_follows_the_schedule():
    run = Run(Toy(), settings(warmup=0.25))
    rates = [tick.lr for tick in run.ticks(loader().steps())]
    assert rates == [0.01 * warmup_linear(step, 20, 0.25) for step in range(20)]


# ---- the step


def test_accumulation_changes_nothing():
    whole, parts = trained(slots=1), trained(slots=4)
    for name, value in whole.learner.state_dict().items():
        assert (value - parts.learner.state_dict()[name]).abs().max() <= 1e-5, name


def test_gradient_is_that_of_the_mean_over_all_scored_cells():
    batches = next(loader(4).steps())
    run = Run(Toy(0.0), settings(clip=1e9, accumulate=4))
    tick = next(run.ticks([batches]))
    learner = Toy(0.0)
    waves = [wave[:length] for b in batches for wave, length in zip(b.waves.samples, b.waves.lengths)]
    joint = Batch(Waves.pad(waves), tuple(each for b in batches for each in b.utterances))
    loss = learner(joint, 0.0, Draw(0, 0)).mean
    loss.backward()
    norm = torch.cat([each.grad.flatten() for each in learner.parameters()]).norm()
    assert tick.loss == pytest.approx(loss.item(), rel=1e-6)
    assert tick.parts == {"error": pytest.approx(loss.item(), rel=1e-6)}
    assert tick.grad_norm == pytest.approx(norm.item(), rel=1e-5)


def test_a_step_is_torchs_adamw_with_clipping():
    batches = list(itertools.islice(loader().steps(), 5))
    run = Run(Toy(0.0), settings(clip=0.01, warmup=0.0))
    ticks = list(run.ticks(batches))
    assert max(tick.grad_norm for tick in ticks) > 0.01
    learner = Toy(0.0)
    matrices = [each for each in learner.parameters() if each.ndim > 1]
    vectors = [each for each in learner.parameters() if each.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.999), eps=1e-6)
    for step, (batch,) in enumerate(batches):
        for group in adam.param_groups:
            group["lr"] = 0.01 * warmup_linear(step, 20, 0.0)
        adam.zero_grad()
        learner(batch, step / 20, Draw(0, batch.epoch)).mean.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 0.01)
        adam.step()
    for name, value in learner.named_parameters():
        assert torch.allclose(value, run.learner.get_parameter(name), atol=1e-6), name


def test_ticks_tell_what_happened():
    corpus = loader()
    run = Run(Toy(), settings(steps=4))
    ticks = list(run.ticks(corpus.steps()))
    assert [tick.step for tick in ticks] == [1, 2, 3, 4]
    assert run.learner.seen == 4
    assert ticks[-1].loss < ticks[0].loss
    batch = corpus.plan.step(0)[1]
    assert ticks[0].audio_seconds == pytest.approx(sum(each.seconds for each in batch), abs=1e-3)
    longest = max(each.seconds for each in batch)
    assert ticks[0].padding == pytest.approx(1 - sum(each.seconds for each in batch) / (longest * len(batch)), abs=1e-3)
    row = ticks[0].row()
    names = {"step", "seconds", "waited", "loss", "lr", "grad_norm", "audio_seconds", "hours_per_second", "padding"}
    assert names | {"error"} == set(row)
    assert 0 <= ticks[0].waited <= ticks[0].seconds


def test_stops_where_the_data_end_or_the_caller_does():
    run = Run(Toy(), settings())
    assert len(list(run.ticks(itertools.islice(loader().steps(), 3)))) == 3
    for tick in run.ticks(loader().steps(run.step)):
        if tick.step == 7:
            break
    assert run.step == 7


def test_dropout_depends_on_step_and_seed_not_on_the_past():
    one = trained(steps=3, dropout=0.5)
    torch.rand(17)
    assert equal(one.learner.state_dict(), trained(steps=3, dropout=0.5).learner.state_dict())
    assert not equal(one.learner.state_dict(), trained(steps=3, dropout=0.5, seed=1).learner.state_dict())


def test_nothing_scored_changes_no_weight_by_its_gradient():
    class Silent(Toy):
        def forward(self, batch, progress, draw):
            loss = super().forward(batch, progress, draw)
            return Loss(loss.sum * 0, torch.zeros(()), {})

    run = Run(Silent(), settings(warmup=0.0, optimiser={"weight_decay": 0.0}))
    before = copy.deepcopy(run.learner.state_dict())
    tick = next(run.ticks(loader().steps()))
    assert tick.loss == 0.0 and tick.grad_norm == 0.0
    assert torch.equal(before["inner.weight"], run.learner.state_dict()["inner.weight"])


def test_frozen_parameters_stay_and_cost_nothing():
    learner = Toy()
    learner.inner.requires_grad_(False)
    before = learner.inner.weight.clone()
    run = Run(learner, settings(steps=2))
    list(run.ticks(loader().steps()))
    assert torch.equal(before, learner.inner.weight)
    assert not any(name.startswith("inner") for name in run.optimiser.tensors())
    learner.requires_grad_(False)
    with pytest.raises(ConfigError, match="no trainable parameter"):
        Run(learner, settings())


# ---- what is not finite


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_stops_before_a_step_that_is_not_finite(value):
    def spoiled(batches):
        for step, (batch,) in enumerate(batches):
            if step == 2:
                samples = batch.waves.samples.clone()
                samples[0, 500] = value
                batch = replace(batch, waves=Waves(samples, batch.waves.lengths))
            yield (batch,)

    run = Run(Toy(), settings())
    ids = [each.id for each in loader().plan.step(2)[1]]
    with pytest.raises(TrainingError) as caught:
        for _ in run.ticks(spoiled(loader().steps())):
            kept = copy.deepcopy((run.learner.state_dict(), run.optimiser.tensors()))
    text = str(caught.value)
    assert text.startswith("step 3: gradient norm is nan and the summed loss ")
    assert f"(utterances {', '.join(ids[:3])} and {len(ids) - 3} more)" in text
    assert "last whole step 2: " in text
    assert run.step == 2
    assert equal(kept[0], run.learner.state_dict()) and equal(kept[1], run.optimiser.tensors())


@pytest.mark.parametrize(
    ("ours", "losses", "gradients", "said"),
    [
        (1.0, math.nan, math.nan, "of another rank, which names them"),
        (math.nan, 0.0, 0.0, "{named}"),
        (1.0, 0.0, math.nan, "{named} or another rank's"),
    ],
)
def test_of_several_ranks_each_names_its_own_utterances(ours, losses, gradients, said, monkeypatch):
    """The other rank adds a loss, or only a gradient, that is not finite, or nothing to one that was so already."""
    shares = iter((losses, gradients))
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda values: values.add_(next(shares)))
    ids = [each.id for each in loader().plan.step(0)[1]]
    (batch,) = next(loader().steps())
    batch = replace(batch, waves=Waves(batch.waves.samples * ours, batch.waves.lengths))
    with pytest.raises(TrainingError) as caught:
        next(Run(Toy(), settings(), group=Group(ranks=2)).ticks([(batch,)]))
    named = f"{', '.join(ids[:3])} and {len(ids) - 3} more"
    assert f"(utterances {said.format(named=named)}), expected finite numbers; " in str(caught.value)


def test_a_step_can_be_skipped_on_the_device():
    """On CUDA the host learns of a step that is not finite one step later; the device must not have taken it."""
    optimiser = Optimiser(Toy(), Optimiser.Config())
    optimiser.clear()
    optimiser.gradients += 1
    optimiser.step(0.1, torch.tensor(0.0))
    before = copy.deepcopy((dict(optimiser.parameters), optimiser.tensors()))
    optimiser.gradients *= float("nan")
    optimiser.step(0.1, torch.tensor(1.0))
    assert equal(before[0], optimiser.parameters) and equal(before[1], optimiser.tensors())


@pytest.mark.gpu
def test_on_cuda_a_step_that_is_not_finite_is_told_one_step_later():
    def spoiled(batches):
        for step, (batch,) in enumerate(batches):
            factor = float("nan") if step == 2 else 1.0
            yield (replace(batch, waves=Waves(batch.waves.samples * factor, batch.waves.lengths)),)

    run = Run(Toy(), settings(), "cuda")
    with pytest.raises(TrainingError, match=r"step 3: gradient norm is nan .* last whole step 2: "):
        for tick in run.ticks(spoiled(loader().steps())):
            if tick.step == 2:
                kept = copy.deepcopy((run.learner.inner.weight, run.optimiser.tensors()))
    assert torch.equal(kept[0], run.learner.inner.weight) and equal(kept[1], run.optimiser.tensors())


class Passed:
    """Stands in for CUDA's event."""

    def record(self):
        pass

    def synchronize(self):
        pass


def test_no_row_is_made_of_a_step_that_is_told_later():
    """As on CUDA, where a tick is handed out before anybody knows whether it was finite."""

    def spoiled(batches):
        for step, (batch,) in enumerate(batches):
            factor = float("nan") if step == 2 else 1.0
            yield (replace(batch, waves=Waves(batch.waves.samples * factor, batch.waves.lengths)),)

    run, rows = Run(Toy(), settings()), []
    run._watch._copied = Passed()
    with pytest.raises(TrainingError, match=r"step 3: gradient norm is nan .* last whole step 2: "):
        for tick in run.ticks(spoiled(loader().steps())):
            rows.append(tick.row())
            kept = copy.deepcopy(run.learner.inner.weight)
    assert [row["step"] for row in rows] == [1, 2] and run.step == 3
    assert torch.equal(kept, run.learner.inner.weight)


def test_on_cuda_a_step_lasts_from_event_to_event(monkeypatch):
    class Event(Passed):
        def __init__(self, enable_timing):
            assert enable_timing
            self.at = next(passes)

        def elapsed_time(self, other):
            return other.at - self.at

    class Stream:
        def record_event(self, event):
            return event

    passes = iter((1_000.0, 1_250.0))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    stopwatch = _Stopwatch(torch.device("cuda"))
    stopwatch.stop()
    assert stopwatch.read() == 0.25 and stopwatch.waited() < 0.25


@pytest.mark.gpu
def test_on_cuda_seconds_are_those_of_the_device():
    class Slow(Toy):
        def forward(self, batch, progress, draw):
            torch.cuda._sleep(2 * 10**8)  # cycles, 0.1 s or so
            return super().forward(batch, progress, draw)

    ticks = list(Run(Slow(), settings(steps=4), "cuda").ticks(loader().steps()))
    assert all(0.03 < tick.seconds < 1 for tick in ticks[1:])


# ---- resuming


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_resuming_is_bit_identical(stop):
    straight = trained(steps=6, slots=2, dropout=0.3)
    first = Run(Toy(0.3), settings(steps=6, accumulate=2))
    list(first.ticks(itertools.islice(loader(2).steps(), stop)))
    saved = copy.deepcopy(first.checkpoint(best=0.5))
    assert saved.step == stop and saved.notes == {"best": 0.5}
    second = Run(Toy(0.3), settings(steps=6, accumulate=2))
    second.restore(saved)
    list(second.ticks(loader(2).steps(second.step)))
    assert equal(straight.learner.state_dict(), second.learner.state_dict())
    assert equal(straight.optimiser.tensors(), second.optimiser.tensors())


def test_a_checkpoint_of_another_model_is_refused():
    saved = trained(steps=1).checkpoint()
    other = Run(Toy(), settings())
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: outer\.bias is absent, expected \(160,\); use the config"
    ):
        other.restore(replace(saved, model={k: v for k, v in saved.model.items() if k != "outer.bias"}))
    with pytest.raises(CheckpointError, match=r"inner\.weight is \(2, 160\), expected \(24, 160\)"):
        other.restore(replace(saved, model={**saved.model, "inner.weight": torch.zeros(2, 160)}))
    with pytest.raises(
        CheckpointError, match=r"optimizer\.safetensors: other\.exp_avg \(3,\) fits no trainable parameter"
    ):
        other.restore(replace(saved, optimiser={"other.exp_avg": torch.zeros(3)}))


# ---- settings


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"learning_rate": -1.0},
        {"learning_rate": float("nan")},
        {"warmup": 1.5},
        {"clip": 0.0},
        {"accumulate": 0},
        {"precision": "float16"},
        {"optimiser": {"betas": (0.9, 1.0)}},
        {"optimiser": {"eps": 0.0}},
        {"stepps": 3},
    ],
)
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        settings(**change)


def test_defaults_are_the_published_ones():
    chosen = Run.Config()
    assert (chosen.steps, chosen.learning_rate, chosen.warmup) == (500_000, 4e-4, 0.07)
    assert chosen.optimiser == Optimiser.Config(betas=(0.9, 0.999), eps=1e-6, weight_decay=0.01)


def test_precision_on_a_cpu(monkeypatch, tmp_path):
    cpu = torch.device("cpu")
    assert precision.precision_of("auto", cpu) is torch.float32
    monkeypatch.setattr(precision, "_processor_has_bfloat16", lambda: False)
    with pytest.raises(
        MachineError, match=r"train\.precision: bfloat16 has no instruction .* set train\.precision to float32"
    ):
        precision.precision_of("bfloat16", cpu)
    monkeypatch.setattr(precision, "_processor_has_bfloat16", lambda: True)
    assert precision.precision_of("bfloat16", cpu) is torch.bfloat16
    run = Run(Toy(), settings(steps=2, precision="bfloat16"))
    assert all(tick.loss > 0 for tick in run.ticks(loader().steps()))
    assert run.learner.inner.weight.dtype is torch.float32


@pytest.mark.parametrize("native", [True, False])
def test_precision_on_a_card_that_emulates_bfloat16(native, monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert precision.precision_of("auto", cuda) is (torch.bfloat16 if native else torch.float32)
    if not native:
        with pytest.raises(MachineError, match="bfloat16 has no instruction on this machine's cuda"):
            precision.precision_of("bfloat16", cuda)


def test_compiling_needs_transformer_blocks():
    Run(Toy(), settings())
    with pytest.raises(
        ConfigError, match=r"train\.compile: 'on' compiles Transformer blocks, expected .*; set it to off"
    ):
        Run(Toy(), settings(compile="on"))


# ---- estimates and signals


def test_an_estimate_leaves_no_trace():
    learner = Toy()
    before = copy.deepcopy(learner.state_dict())
    state = torch.random.get_rng_state()
    found = estimate(learner, settings(), list(itertools.islice(loader().steps(), 3)))
    assert 0 < found.seconds < 5 and found.memory > 10**7
    assert found.flops is not None and 1e6 < found.peak < 1e14
    assert equal(before, learner.state_dict())
    assert all(each.grad is None for each in learner.parameters())
    assert torch.equal(state, torch.random.get_rng_state())


def test_an_estimate_of_a_step_that_is_not_finite_says_so():
    class Late(Toy):
        def forward(self, batch, progress, draw):
            loss = super().forward(batch, progress, draw)
            return replace(loss, sum=loss.sum / 0) if progress else loss

    with pytest.raises(TrainingError, match=r"step 2: gradient norm is nan"):
        estimate(Late(), settings(), list(itertools.islice(loader().steps(), 4)))


def test_operations_are_those_of_its_products():
    (step,) = itertools.islice(loader().steps(), 1)
    found = estimate(Toy(), settings(), [step])
    frames = sum(batch.waves.samples.shape[1] // 160 for batch in step for _ in batch.utterances)
    seconds = sum(int(batch.waves.lengths.sum()) for batch in step) / 16_000
    # Forward 160 → 24 → 160; backward towards both matrices, and from the upper one towards its input.
    assert found.flops * seconds == pytest.approx(2 * frames * 160 * 24 * 5, rel=0.01)
    tick = next(Run(Toy(), settings()).ticks([step]))
    assert found.utilisation(tick) == pytest.approx(found.flops * seconds / tick.seconds / found.peak)
    assert tick.row()["hours_per_second"] == pytest.approx(seconds / tick.seconds / 3600)


def test_recurrent_operations_are_not_counted():
    class Recurrent(Toy):
        def __init__(self):
            super().__init__()
            self.idle = torch.nn.GRU(2, 2)

    found = estimate(Recurrent(), settings(), list(itertools.islice(loader().steps(), 1)))
    assert found.flops is None and found.utilisation(next(Run(Toy(), settings()).ticks(loader().steps()))) is None


def test_the_first_step_is_told_at_once_and_others_without_long_silence(monkeypatch):
    clock, told = SimpleNamespace(now=100.0), []
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: clock.now))
    keeper = pace.Pace(told.append, 20, 0)
    for tick in Run(Toy(), settings()).ticks(loader().steps()):
        clock.now += 8.0
        keeper.tell(tick, None, tick.step == 20)
    assert re.fullmatch(r"step 1/20  loss \d+\.\d{4}  \d+ s of audio per s  2 min 32 s left", told[0])
    steps = [int(line.removeprefix("step ").partition("/")[0]) for line in told]
    assert steps == [1, 4, 7, 10, 13, 16, 19, 20]


def test_a_budget_becomes_steps():
    assert Estimate(0.5, 0).steps(60.0) == 120
    assert Estimate(0.5, 0).steps(0.1) == 1


@pytest.fixture
def hangup():
    """The default for SIGHUP, also where the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_is_a_wish(number, code, hangup):
    before = signal.getsignal(number)
    with signals.listening() as stop:
        assert not stop.requested and stop.exit_code == 0
        os.kill(os.getpid(), number)
        assert stop.requested and stop.exit_code == code
        if number != signal.SIGHUP:
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(number) is before


def test_a_hangup_that_nohup_has_ignored_stays_so(hangup):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with signals.listening() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.exit_code == 143
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
