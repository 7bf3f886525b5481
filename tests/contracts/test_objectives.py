"""What every objective promises, over the table: a new one is tested the moment it is listed."""

import copy

import pytest
import torch
from speech_like import LENGTHS, batch_of, speech_like
from still_objective import CASES, by_one_speaker, rows_of, still_objective

from mockingjay.core.config import read_toml, to_toml, validate
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Waves
from mockingjay.encoders.encoder import Encoder
from mockingjay.objectives import OBJECTIVES, build_objective
from mockingjay.settings import Settings, preset_names, settings
from mockingjay.train import checkpoint
from mockingjay.train.loop import Run


@pytest.fixture(params=list(OBJECTIVES))
def name(request):
    return request.param


@pytest.fixture
def chosen(name):
    return settings(name, "nano")


@pytest.fixture
def objective(chosen):
    torch.manual_seed(1)
    objective = build_objective(chosen.objective)
    objective.prepare([batch_of()])
    return objective


def noisy(batch):
    """The same batch with loud noise where there is padding."""
    padding = torch.arange(batch.waves.samples.shape[1]) >= batch.waves.lengths[:, None]
    samples = torch.where(padding, torch.randn_like(batch.waves.samples), batch.waves.samples)
    return Batch(Waves(samples, batch.waves.lengths), batch.utterances, batch.epoch)


def test_the_paper_s_presets_are_there(name):
    assert {"nano", "tiny", "base"} <= set(preset_names(name))
    for preset in preset_names(name):
        settings(name, preset)


def test_every_parameter_gets_a_finite_gradient(objective):
    objective.train()
    objective(batch_of(), 0.5, Draw(0)).sum.backward()
    for parameter_name, parameter in objective.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, parameter_name


@pytest.fixture(params=list(CASES))
def steady(request):
    return still_objective(request.param)


@pytest.mark.parametrize("training", [False, True])
def test_padding_reaches_neither_loss_nor_states(steady, training):
    """Nor, in training, what norms over the batch follow."""
    steady.train(training)
    twin, clean, dirty = copy.deepcopy(steady), batch_of(), noisy(batch_of())
    one, other = steady(clean, 0.0, Draw(0)), twin(dirty, 0.0, Draw(0))
    assert one.weight == other.weight
    assert one.mean.item() == pytest.approx(other.mean.item(), abs=1e-5)
    torch.testing.assert_close(twin.state_dict(), steady.state_dict(), atol=1e-5, rtol=1e-5)
    if not training:
        hidden, changed = steady.encoder(clean.waves), twin.encoder(dirty.waves)
        for layer, same in zip(hidden.layers, changed.layers):
            torch.testing.assert_close(layer[hidden.valid], same[hidden.valid], atol=1e-5, rtol=0)


@pytest.mark.parametrize("training", [False, True])
def test_batch_mates_change_nothing_but_what_is_declared(steady, training):
    steady.train(training)
    batch = by_one_speaker(batch_of())
    whole = steady(batch, 0.0, Draw(0))
    parts = [steady(rows_of(batch, slice(row, row + 1)), 0.0, Draw(0)) for row in range(len(LENGTHS))]
    same = sum(part.sum for part in parts).item() == pytest.approx(whole.sum.item(), rel=1e-5)
    assert same == ((steady.learns_from if training else steady.draws_from) == "utterance")
    assert sum(part.weight for part in parts).item() == pytest.approx(whole.weight.item())


def test_batch_mates_reach_no_hidden_state(steady):
    steady.eval()
    waves = batch_of().waves
    together = steady.encoder(waves)
    for row, length in enumerate(LENGTHS):
        hidden = steady.encoder(Waves(waves.samples[row : row + 1, :length], waves.lengths[row : row + 1]))
        steps = int(hidden.lengths[0])
        assert steps == together.lengths[row]
        torch.testing.assert_close(hidden.last[0], together.last[row, :steps], atol=1e-5, rtol=0)


def test_only_norms_and_draws_over_the_batch_are_declared():
    declared = {case: (each.learns_from, each.draws_from) for case in CASES for each in [still_objective(case)]}
    negatives, codes = {"cpc", "modified-cpc"}, {"wav2vec2"}
    norms = {"audio2vec", "temporal-gap", "phase", "mpc", "npc", "autoencoder by batch", "modified-cpc within by batch"}
    assert {case for case, (learns, _) in declared.items() if learns == "batch"} == negatives | codes | norms
    assert {case for case, (_, draws) in declared.items() if draws == "batch"} == negatives | codes


def test_declared_causality_holds(objective):
    context = objective.encoder.context.eval()
    frames = objective.encoder.frontend(batch_of().waves)
    changed = type(frames)(frames.values.clone(), frames.lengths)
    changed.values[:, 20:] += torch.randn_like(changed.values[:, 20:])
    before, after = context(frames).last[:, : 20 // context.stride], context(changed).last[:, : 20 // context.stride]
    assert torch.allclose(before, after, atol=1e-6) == context.causal


def test_what_an_encoder_knows_of_the_future_is_declared(objective):
    """From samples to hidden states: by a causal context what the frontend leaks, all of it and nothing else."""
    encoder, samples, now = objective.encoder.eval(), speech_like(24_000, 0), 16_000
    changed = torch.cat([samples[:now], 3 * speech_like(24_000, 7)[now:]])
    early = (now - 8_000) // encoder.hop
    with torch.no_grad():
        one, other = (encoder(Waves.pad([each])).last[:, :early] for each in (samples, changed))
    same = torch.allclose(one, other, atol=1e-5)
    if encoder.frontend.leaks != "nothing":
        assert not same
    elif encoder.context.causal:
        assert same


def test_the_loss_falls_on_one_batch(objective):
    run, losses = Run(objective, Run.Config(steps=60, learning_rate=2e-3)), []
    for tick in run.ticks([(batch_of(),)] * 60):
        losses.append(tick.loss)
        if len(losses) >= 15 and sum(losses[-10:]) / 10 < 0.9 * sum(losses[:5]) / 5:
            return
    assert sum(losses[-10:]) / 10 < 0.95 * sum(losses[:5]) / 5


def test_evaluation_is_deterministic_and_has_its_trivial_predictors(objective):
    objective.eval()
    first, second = (objective(batch_of(), 0.0, Draw(0)) for _ in range(2))
    assert first.sum == second.sum and first.parts and first.parts == second.parts
    assert all(torch.isfinite(part) for part in first.parts.values())


def test_a_resumed_run_is_the_run(name, chosen, tmp_path):
    def begin():
        torch.manual_seed(2)
        return Run(build_objective(chosen.objective), Run.Config(steps=6))

    steps = [(batch_of(seed=10 * step),) for step in range(6)]
    straight, first, second = begin(), begin(), begin()
    for run in (straight, first):  # the second finds what was prepared in the checkpoint
        run.learner.prepare([batch_of()])
    list(straight.ticks(steps))
    list(first.ticks(steps[:3]))
    checkpoint.save(tmp_path, first.checkpoint())
    second.restore(checkpoint.load_latest(tmp_path, print))
    list(second.ticks(steps[3:]))
    for key, value in straight.learner.state_dict().items():
        assert torch.equal(value, second.learner.state_dict()[key]), key
    for key, value in straight.optimiser.tensors().items():
        assert torch.equal(value, second.optimiser.tensors()[key]), key


def test_settings_and_encoder_come_back_as_they_went(chosen, objective, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(to_toml(chosen))
    assert validate(Settings, read_toml(path)) == chosen
    objective.encoder.eval().save(tmp_path / "encoder")
    loaded = Encoder.load(tmp_path / "encoder")
    waves = batch_of().waves
    for mine, theirs in zip(objective.encoder(waves).layers, loaded(waves).layers):
        assert torch.equal(mine, theirs)
    assert len(objective.encoder(waves).layers) == loaded.depth and loaded(waves).last.shape[-1] == loaded.dim


def test_a_picture_is_at_frame_rate(objective):
    picture = objective.eval().picture(batch_of(), Draw(0))
    if picture is not None:
        assert len(picture.true) == len(picture.altered) == len(picture.rebuilt) == len(picture.hidden)
        assert picture.hidden.any() and not picture.hidden.all()
