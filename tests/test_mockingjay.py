import time

import pytest
import torch
from speech_like import batch_of

from mockingjay.core.config import assignments, overlay
from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.objectives import build_objective
from mockingjay.objectives.mockingjay import Mockingjay
from mockingjay.settings import settings
from mockingjay.train.loop import Run

SMALL = [
    "objective.encoder.context.dim=32",
    "objective.encoder.context.feedforward=64",
    "objective.encoder.context.heads=2",
]


def small(preset, *changes):
    chosen = settings("mockingjay", preset, [*SMALL, "objective.encoder.context.layers=1", *changes])
    torch.manual_seed(0)
    return Mockingjay(chosen.objective)


@pytest.mark.parametrize(
    ("preset", "encoder", "head"), [("base", 21_388_800, 715_168), ("large", 85_425_408, 2_956_803)]
)
def test_published_sizes(preset, encoder, head):
    objective = Mockingjay(settings("mockingjay", preset).objective)
    assert sum(parameter.numel() for parameter in objective.encoder.parameters()) == encoder
    assert sum(parameter.numel() for parameter in objective.head.parameters()) == head


def test_the_defaults_are_base_as_published():
    assert settings("mockingjay", "base") == settings("mockingjay")
    chosen = settings("mockingjay")
    assert (chosen.train.steps, chosen.train.learning_rate, chosen.train.warmup) == (500_000, 4e-4, 0.07)
    assert (chosen.objective.hide.share, chosen.objective.hide.width) == (0.15, 7)


def test_large_masks_one_stacked_step_and_rebuilds_linear_spectra():
    objective = small("large")
    assert objective.spans.widths == (1, 1) and objective.encoder.grid.hop == 600
    loss = objective(batch_of(), 0.0, Draw(0))
    assert loss.mean.isfinite() and objective.head[-1].out_features == 3 * 1025


@pytest.mark.parametrize(("unit", "widths"), [("frame", (2, 2)), ("step", (6, 6))])
def test_widths_count_frames_or_steps(unit, widths):
    objective = small("tiny", "objective.hide.width=6", f"objective.unit={unit}")
    assert objective.spans.widths == widths


def test_the_loss_is_the_mean_absolute_error_on_selected_cells_alone():
    objective = small("base").eval()
    batch = batch_of()
    frames = objective.encoder.frontend(batch.waves)
    altered, selected = objective._hide(frames, batch, Draw(0))
    rebuilt = objective.head(objective.encoder.context(altered).last)
    loss = objective(batch, 0.0, Draw(0))
    by_hand = (rebuilt - frames.values).abs()[selected].sum()
    assert loss.sum.item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert loss.weight == selected.sum() * 160


def test_prediction_gets_its_gradient_from_selected_frames_alone():
    objective = small("base").eval()
    batch = batch_of()
    seen = {}
    objective.encoder.context.register_forward_hook(lambda module, inputs, hidden: seen.update(hidden=hidden.last))
    loss = objective(batch, 0.0, Draw(0))
    seen["hidden"].retain_grad()
    loss.sum.backward()
    _, selected = objective._hide(objective.encoder.frontend(batch.waves), batch, Draw(0))
    touched = seen["hidden"].grad.abs().sum(-1) > 0
    assert torch.equal(touched, selected)


def test_untouched_utterances_are_scored_too():
    objective = small("base", "objective.hide.zero=0.0", "objective.hide.random=0.0").train()
    batch = batch_of()
    frames = objective.encoder.frontend(batch.waves)
    altered, selected = objective._hide(frames, batch, Draw(0))
    assert torch.equal(altered.values, frames.values) and selected.any()
    assert objective(batch, 0.0, Draw(0)).weight == selected.sum() * 160


def test_dumb_predictors_are_measured_on_the_same_cells():
    objective = small("tiny").eval()
    loss = objective(batch_of(), 0.0, Draw(0))
    assert set(loss.parts) == {"utterance mean", "copy last", "interpolation"}
    assert loss.parts["interpolation"] < loss.parts["copy last"]


@pytest.mark.parametrize("name", ["mockingjay", "tera", "audio-albert", "masked-reconstruction", "mpc"])
def test_the_log_tells_the_share_of_frames_that_was_hidden(name):
    objective, batch = build_objective(settings(name, "nano").objective).train(), batch_of()
    objective.prepare([batch])
    altered = objective._alter(batch, Draw(0, 0))
    share = altered.steps.sum().item() / altered.true.lengths.sum().item()
    (tick,) = Run(objective, Run.Config(steps=1)).ticks([(batch,)])
    assert tick.row()["hidden"] == pytest.approx(share, rel=1e-5) and 0 < share < 1


def test_the_share_of_hidden_frames_is_told_in_training_and_where_time_is_hidden():
    objective = small("tiny")
    assert set(objective.train()(batch_of(), 0.0, Draw(0)).parts) == {"hidden"}
    noisy = build_objective(settings("tera", "nano", ['objective.axes=["magnitude"]']).objective)
    assert noisy.train()(batch_of(), 0.0, Draw(0)).parts == {}


def test_spans_are_fresh_every_epoch():
    objective = small("base").eval()
    assert objective(batch_of(), 0.0, Draw(0, 0)).sum != objective(batch_of(), 0.0, Draw(0, 1)).sum
    assert objective(batch_of(), 0.0, Draw(0, 1)).sum == objective(batch_of(), 0.0, Draw(0, 1)).sum


def test_a_silence_inside_is_speech_like_any_other():
    objective = small("base").eval()
    batch = batch_of()
    batch.waves.samples[1, 8000:12_000] = 0.0
    loss = objective(batch, 0.0, Draw(0))
    assert loss.mean.isfinite()
    assert objective.encoder(batch.waves).lengths[1] == 24_000 // 200 + 1


def test_a_target_off_the_input_s_steps_is_refused():
    with pytest.raises(ConfigError, match=r"objective: target has its steps on Grid\(hop=160.*expected the encoder's"):
        overlay(settings("mockingjay"), assignments(["objective.target.kind=log-mel", "objective.target.hop=160"]))


@pytest.mark.parametrize("name", ["mockingjay", "tera", "audio-albert", "masked-reconstruction"])
def test_a_context_of_several_frames_a_step_is_refused(name):
    strided = ("kind=subsampled-transformer", "filters=2", "layers=1")
    chosen = settings(name, changes=[f"objective.encoder.context.{each}" for each in strided])
    with pytest.raises(ConfigError, match=r"encoder\.context: 'subsampled-transformer' has 4 frames a step, expected"):
        build_objective(chosen.objective)


def test_stacked_frames_are_fewer_steps():
    wide, narrow = small("base"), small("tiny")
    waves = batch_of((48_000,)).waves
    assert len(wide.encoder(waves).last[0]) >= 2.3 * len(narrow.encoder(waves).last[0])


@pytest.mark.slow
def test_three_frames_a_step_take_at_most_half_the_time():
    """Of forward and backward over 1500 frames on one thread, the best of five rounds after one for warming."""
    chosen = [settings("mockingjay", "tiny", [f"objective.encoder.frontend.factor={factor}"]) for factor in (1, 3)]
    objectives, batch = [Mockingjay(each.objective).train() for each in chosen], batch_of((1499 * 160,))
    assert [each.encoder.frontend(batch.waves).lengths.item() for each in objectives] == [1500, 500]

    def seconds(objective):
        began = time.perf_counter()
        objective(batch, 0.0, Draw(0)).mean.backward()
        return time.perf_counter() - began

    rounds = [[seconds(each) for each in objectives] for _ in range(6)]
    single, stacked = (min(times) for times in zip(*rounds[1:]))
    assert stacked <= 0.5 * single, (single, stacked)
