"""What every objective promises, over the table: a new one is tested the moment it is listed."""

from dataclasses import replace

import pytest
import torch
from speech_like import LENGTHS, batch_of

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


def test_padding_reaches_neither_loss_nor_hidden_states(objective):
    objective.eval()
    clean, dirty = batch_of(), noisy(batch_of())
    one, other = objective(clean, 0.0, Draw(0)), objective(dirty, 0.0, Draw(0))
    assert one.mean.item() == pytest.approx(other.mean.item(), abs=1e-5)
    hidden, changed = objective.encoder(clean.waves), objective.encoder(dirty.waves)
    for layer, same in zip(hidden.layers, changed.layers):
        torch.testing.assert_close(layer[hidden.valid], same[hidden.valid], atol=1e-5, rtol=0)


def test_batch_mates_change_nothing_but_what_is_declared(objective):
    objective.eval()
    batch = batch_of()
    if objective.draws_from == "batch":
        batch = replace(batch, utterances=tuple(replace(each, speaker="one") for each in batch.utterances))
        for parameter_name, parameter in objective.named_parameters():
            if not parameter_name.startswith("encoder."):  # at the start it hardly matters what is drawn
                torch.nn.init.normal_(parameter)
    together = objective.encoder(batch.waves)
    whole = objective(batch, 0.0, Draw(0))
    parts = []
    for row, length in enumerate(LENGTHS):
        alone = Batch(
            Waves(batch.waves.samples[row : row + 1, :length], batch.waves.lengths[row : row + 1]),
            batch.utterances[row : row + 1],
        )
        parts.append(objective(alone, 0.0, Draw(0)))
        hidden = objective.encoder(alone.waves)
        steps = int(hidden.lengths[0])
        assert steps == together.lengths[row]
        torch.testing.assert_close(hidden.last[0], together.last[row, :steps], atol=1e-5, rtol=0)
    same = sum(part.sum for part in parts).item() == pytest.approx(whole.sum.item(), rel=1e-5)
    assert same == (objective.draws_from == "utterance")
    assert sum(part.weight for part in parts).item() == pytest.approx(whole.weight.item())


def test_declared_causality_holds(objective):
    context = objective.encoder.context.eval()
    frames = objective.encoder.frontend(batch_of().waves)
    changed = type(frames)(frames.values.clone(), frames.lengths)
    changed.values[:, 20:] += torch.randn_like(changed.values[:, 20:])
    before, after = context(frames).last[:, : 20 // context.stride], context(changed).last[:, : 20 // context.stride]
    assert torch.allclose(before, after, atol=1e-6) == context.causal


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
    assert first.sum == second.sum and first.parts == second.parts
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
