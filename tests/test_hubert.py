import copy
import math
import shutil

import pytest
import soundfile
import torch
import torch.nn.functional as F
from command import refuses, works
from safetensors.torch import load_file
from speech_like import batch_of, corpus, speech_like

from mockingjay.core.config import read_toml
from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Batch, Grid, Utterance, Waves
from mockingjay.core.untrusted import Hollow
from mockingjay.data.batches import BatchPlan, Loader
from mockingjay.encoders.encoder import Encoder
from mockingjay.moves import label
from mockingjay.moves.mask import choose_masked
from mockingjay.objectives import build_objective
from mockingjay.open import open_representation
from mockingjay.settings import settings


def nano(*changes, batch=None):
    torch.manual_seed(1)
    objective = build_objective(settings("hubert", "nano", changes).objective)
    objective.listen(open_representation)
    objective.prepare([batch or batch_of()])
    return objective


def test_the_published_size():
    """95 million (table I): the encoder of wav2vec 2.0 BASE, its mask, and vectors of width 256 for 100 clusters."""
    with Hollow():
        objective = build_objective(settings("hubert", "base").objective)
    encoder = sum(each.numel() for each in objective.encoder.parameters())
    assert encoder == 94_370_944
    assert sum(each.numel() for each in objective.parameters()) == encoder + 768 + 256 * 768 + 256 + 256 * 100


def test_units_are_those_of_the_cepstra_in_the_middle_of_each_step():
    objective, batch = nano(), batch_of()
    time = int(objective.encoder.frontend.count(batch.waves.lengths).max())
    told = objective.tell(batch, time)
    cepstra = objective.cepstra(batch.waves)
    for row in range(4):
        for step in range(int(objective.encoder.frontend.count(batch.waves.lengths)[row])):
            middle = 320 * step + 200  # samples; cepstra lie 160 apart from 0 on
            nearest = min(range(int(cepstra.lengths[row])), key=lambda frame: abs(160 * frame - middle))
            apart = (cepstra.values[row, nearest] - objective.clusters.centroids).norm(dim=1)
            assert told[row, step] == apart.argmin()
    assert objective.clusters.shares.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("share", [1.0, 0.7])
def test_the_loss_is_what_a_loop_finds(share):
    objective, batch, draw = nano(f"objective.masked={share}").eval(), batch_of(), Draw(0)
    encoder, context = objective.encoder, objective.encoder.context
    frames = encoder.frontend(batch.waves)
    time = frames.values.shape[1]
    told = objective.tell(batch, time)
    ids = tuple(each.id for each in batch.utterances)
    hidden = choose_masked(objective.config.masks, frames.lengths, time, draw, ids).hidden
    embedded = context.project(context.inputs_norm(frames.values))
    states = context.read(torch.where(hidden[..., None], objective.mask, embedded), frames.lengths).last
    total, weight, marginal, loud = 0.0, 0.0, 0.0, 0.0
    for row in range(4):
        own = 0.0
        for step in range(int(frames.lengths[row])):
            scores = F.cosine_similarity(objective.head(states[row, step])[None], objective.units) / 0.1
            scale = share if hidden[row, step] else 1 - share
            total += scale * F.cross_entropy(scores[None], told[row, step][None]).item()
            marginal -= scale * objective.clusters.shares[told[row, step]].log().item()
            own += scale
        weight += own
        loud += own * frames.values[row, : frames.lengths[row]].square().mean().item()
    loss = objective(batch, 0.0, draw)
    assert loss.weight.item() == pytest.approx(weight)
    assert loss.sum.item() == pytest.approx(total + 10 * loud, rel=1e-4)
    assert loss.parts["chance"].item() == pytest.approx(weight * math.log(8) + 10 * loud, rel=1e-4)
    assert loss.parts["marginal"].item() == pytest.approx(marginal + 10 * loud, rel=1e-4)
    parts = objective.train()(batch, 0.5, draw).parts
    assert set(parts) == {"accuracy"} and 0 <= parts["accuracy"] <= weight


def test_cosines_are_single_precision_under_autocast():
    objective = nano()
    hidden = torch.randn(2, 7, objective.encoder.dim)
    with torch.autocast("cpu", torch.bfloat16):
        told, scores = objective.head(hidden), objective._compare(hidden)
    assert told.dtype == torch.bfloat16
    assert torch.equal(scores, F.normalize(told.float(), dim=-1) @ F.normalize(objective.units, dim=-1).T / 0.1)


def test_a_teacher_is_heard_and_never_trained():
    objective, batch = nano("objective.teacher=random:mockingjay/nano@3", "objective.layer=2"), batch_of()
    teacher = open_representation("random:mockingjay/nano@3")
    layer = teacher(batch.waves).layers[2]
    torch.testing.assert_close(objective._heard(batch.waves).values, layer)
    time = int(objective.encoder.frontend.count(batch.waves.lengths).max())
    told, own = objective.tell(batch, time), objective.clusters(objective._heard(batch.waves))
    nearest = ((320 * torch.arange(time) + 200 - teacher.grid.centre) / teacher.hop).round().long()
    for row in range(4):
        last = int(objective._heard(batch.waves).lengths[row]) - 1
        assert torch.equal(told[row], own[row, nearest.clamp(0, last)])
    objective.train()
    objective(batch, 0.5, Draw(0)).sum.backward()
    assert not objective.teacher.training and all(each.grad is None for each in objective.teacher.parameters())
    assert objective.encoder.context.project.weight.grad.abs().sum() > 0


def test_a_teacher_must_have_the_layer_and_read_sound():
    with pytest.raises(ConfigError, match=r"encoder\.frontend: 'precomputed' reads files of features, expected what"):
        nano("objective.encoder.frontend.kind=precomputed")
    with pytest.raises(ConfigError, match=r"objective.layer: 6, but mel has layers 0 to 0; choose one"):
        nano("objective.teacher=mel", "objective.layer=6")
    with pytest.raises(ConfigError, match=r"objective.teacher: precomputed:40 reads files of features, expected what"):
        nano("objective.teacher='precomputed:40'")
    with pytest.raises(
        ConfigError, match=r"context.kind 'recurrent' masks nothing, expected 'convolutional-transformer'"
    ):
        nano("objective.encoder.context.kind=recurrent")


def test_a_second_round_learns_from_the_first_and_resumes(tmp_path, monkeypatch):
    data, first, second = corpus(tmp_path / "data", count=10), tmp_path / "first", tmp_path / "second"
    words = ("--preset", "nano", "--data", data, "--set", "batches.seconds=4", "--set", "upkeep.workers=0")
    works("pretrain", "hubert", *words, "--out", first, "--steps", 2)
    monkeypatch.chdir(tmp_path)
    another = (*words, "--out", second, "--set", "objective.teacher=first", "--set", "objective.clusters.units=6")
    works("pretrain", "hubert", *another, "--steps", 2, "--save-every", 1)
    monkeypatch.chdir("/")  # what was named from there is found from anywhere
    assert f'teacher = "{first}"' in (second / "config.toml").read_text()
    saved = load_file(second / "checkpoints" / "step-000002" / "model.safetensors")
    teacher = Encoder.load(first / "encoder").state_dict()
    assert all(torch.equal(saved[f"teacher.{name}"], value) for name, value in teacher.items())
    assert saved["clusters.centroids"].shape == (6, 32) and saved["clusters.centroids"].any()
    assert set(Encoder.load(second / "encoder").state_dict()) == set(teacher)  # the teacher stays behind

    straight = (second / "checkpoints" / "step-000002" / "model.safetensors").read_bytes()
    shutil.rmtree(second / "checkpoints" / "step-000002")
    again = [word if word != "objective.teacher=first" else f"objective.teacher={first}" for word in another]
    works("pretrain", "hubert", *again, "--steps", 2, "--save-every", 1)
    assert (second / "checkpoints" / "step-000002" / "model.safetensors").read_bytes() == straight
    gone = [word if word != second else tmp_path / "third" for word in another]
    gone = [word if word != "objective.teacher=first" else "objective.teacher=nowhere" for word in gone]
    refuses(2, r"nowhere: no such representation, expected one of", "pretrain", "hubert", *gone, "--steps", 2)


def labelled(folder, seconds=(2.0, 1.3, 1.71), teacher=True):
    """An objective that has labelled wav files, and their utterances."""
    utterances = []
    for number, each in enumerate(seconds):
        path = folder / f"{number}.wav"
        soundfile.write(path, speech_like(round(each * 16_000), number).numpy(), 16_000, "FLOAT")
        utterances.append(Utterance(f"u{number}", str(path), each))
    changes = ("objective.teacher=random:mockingjay/nano@3", "objective.layer=2") if teacher else ()
    objective = nano(*changes).eval()
    objective.label(utterances, folder)
    return objective, utterances


@pytest.mark.parametrize("teacher", [True, False])
def test_kept_units_are_those_of_whole_utterances_and_cost_a_step_nothing(tmp_path, teacher, monkeypatch):
    objective, utterances = labelled(tmp_path, teacher=teacher)
    ears, grid = objective.teacher or objective.cepstra, objective.encoder.grid
    live = {}
    for each in utterances:
        wave = Waves.pad([torch.from_numpy(soundfile.read(each.path, dtype="float32")[0])])
        time = int(objective.encoder.frontend.count(wave.lengths))
        live[each.id] = objective._live(wave, time)[0]
        assert torch.equal(objective.labels.read(each.id, 0, grid, time), live[each.id])
    calls = []
    ears.register_forward_hook(lambda *call: calls.append(1))
    plan = BatchPlan(utterances, BatchPlan.Config(crop=1.3, seconds=4.0))
    for micro in Loader(plan, workers=0).steps():
        (batch,) = micro
        assert batch.starts == tuple(plan.stretch(each, batch.epoch)[0] for each in batch.utterances)
        told = objective.tell(batch, 64)
        for row, (each, start) in enumerate(zip(batch.utterances, batch.starts)):
            if start % 320 == 0:
                shifted = live[each.id][start // 320 :][:64]
                assert torch.equal(told[row, : len(shifted)], shifted)
        objective(batch, 0.5, Draw(0))
        if batch.epoch == 3:
            break
    assert not calls
    copied = copy.deepcopy(objective)
    assert copied.labels is objective.labels
    monkeypatch.setattr("mockingjay.audio.read", None)  # what lies there already is not told again
    objective.label(utterances, tmp_path)
    assert not calls and len(list((tmp_path / "units").iterdir())) == 1


def test_a_crop_s_units_are_the_utterance_s():
    """Moved by a whole number of hops they move with it; in between, the nearest is taken, of two the later."""
    units, steps = Grid(160, 0.0), Grid(320, 200.0)
    whole = label.nearest(units, steps, 50)
    assert whole[:3].tolist() == [1, 3, 5]  # middles lie at 1.25, 3.25 and 5.25 units
    assert torch.equal(label.nearest(units, steps, 40, 3200), whole[10:])
    assert label.nearest(units, steps, 1, 39).tolist() == [1] and label.nearest(units, steps, 1, 40).tolist() == [2]
    coarse, off = Grid(480, 240.0), Grid(320, 0.0)  # ties: middles lie half-way between two units
    whole = label.nearest(coarse, off, 99)
    assert whole.min() == 0 and torch.equal(label.nearest(coarse, off, 90, 2880), whole[9:])


def test_long_utterances_are_heard_in_stretches_and_ranks_share_the_files(tmp_path, monkeypatch):
    objective, utterances = labelled(tmp_path)
    grid = objective.encoder.grid
    whole = objective.labels.read("u0", 0, grid, 99)
    monkeypatch.setattr(label, "STRETCH", 1)
    monkeypatch.setattr(label, "SHARE", 1)
    (tmp_path / "two").mkdir()
    gone = Utterance("gone", str(tmp_path / "gone.wav"), 1.0)
    for rank in range(2):
        objective.label([*utterances, gone], tmp_path / "two", rank, 2)
        assert len(list((tmp_path / "two" / "units").iterdir())) == 2 * (rank + 1)
    pieces = objective.labels.read("u0", 0, grid, 99)
    assert (pieces == whole).float().mean() > 0.5  # the teacher has heard a second instead of two
    assert objective.labels.read("gone", 0, grid, 9) is None and objective.labels.read("who", 0, grid, 9) is None
    batch = batch_of()
    unknown = Batch(batch.waves, tuple(Utterance(f"x{row}", "/x", 1.0) for row in range(4)))
    assert torch.equal(objective.tell(unknown, 20)[2:3], objective._live(_row(batch, 2), 20))


def _row(batch, row):
    length = batch.waves.lengths[row : row + 1]
    return Waves(batch.waves.samples[row : row + 1, : int(length)], length)


def test_two_rounds_in_one_command(tmp_path):
    data, run = corpus(tmp_path / "data", count=10), tmp_path / "run"
    words = ("pretrain", "hubert", "--preset", "nano", "--data", data, "--steps", 2, "--save-every", 1)
    words += ("--set", "batches.seconds=4", "--set", "upkeep.workers=0", "--set", "objective.rounds=2")
    said = works(*words, "--out", run)
    first = run / "rounds" / "1"
    assert f"round 1 of 2, in {first}" in said and f"round 2 of 2, in {run}" in said
    second = read_toml(run / "config.toml")["objective"]
    assert second["teacher"] == str(first) and second["clusters"]["units"] == 6 and second["rounds"] == 1
    kept = read_toml(first / "config.toml")["objective"]
    assert kept["teacher"] == "" and kept["clusters"]["units"] == 8
    last, before = (load_file(each / "checkpoints" / "step-000002" / "model.safetensors") for each in (run, first))
    assert last["units"].shape[0] == 6 and before["units"].shape[0] == 8
    opened = open_representation(str(run)).state_dict()
    assert all(torch.equal(last[f"encoder.{name}"], value) for name, value in opened.items())
    assert all(torch.equal(last[f"teacher.{name}"], before[f"encoder.{name}"]) for name in opened)

    shutil.rmtree(run / "checkpoints" / "step-000002")  # as if it had been stopped in its second round
    shutil.rmtree(run / "encoder")
    kept = [path for folder in ("rounds", "units") for path in (run / folder).rglob("*") if path.is_file()]
    stamps = {path: path.stat().st_mtime_ns for path in kept}
    said = works(*words, "--out", run)
    assert f"resuming {run} at step 1 of 2" in said and "round 1 of 2" not in said
    assert len(kept) > 9 and all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    again = load_file(run / "checkpoints" / "step-000002" / "model.safetensors")
    assert all(torch.equal(again[name], value) for name, value in last.items())
    another = (*words, "--out", run, "--set", "objective.layer=2")
    refuses(2, r"1: holds a run with other settings \(objective.layer\)", *another)
    with pytest.raises(ConfigError, match=r"layer 3 is to be clustered, expected one of 0 to 2"):
        settings("hubert", "nano", ("objective.rounds=2", "objective.layer=3"))
