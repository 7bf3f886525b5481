import math
import shutil

import pytest
import torch
import torch.nn.functional as F
from command import refuses, works
from safetensors.torch import load_file
from speech_like import batch_of, corpus

from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.untrusted import Hollow
from mockingjay.encoders.encoder import Encoder
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
    told = objective.tell(batch.waves, time)
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
    told = objective.tell(batch.waves, time)
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


def test_a_teacher_is_heard_and_never_trained():
    objective, batch = nano("objective.teacher=random:mockingjay/nano@3", "objective.layer=2"), batch_of()
    teacher = open_representation("random:mockingjay/nano@3")
    layer = teacher(batch.waves).layers[2]
    torch.testing.assert_close(objective._heard(batch.waves).values, layer)
    time = int(objective.encoder.frontend.count(batch.waves.lengths).max())
    told, own = objective.tell(batch.waves, time), objective.clusters(objective._heard(batch.waves))
    nearest = ((320 * torch.arange(time) + 200 - teacher.grid.centre) / teacher.hop).round().long()
    for row in range(4):
        last = int(objective._heard(batch.waves).lengths[row]) - 1
        assert torch.equal(told[row], own[row, nearest.clamp(0, last)])
    objective.train()
    objective(batch, 0.5, Draw(0)).sum.backward()
    assert not objective.teacher.training and all(each.grad is None for each in objective.teacher.parameters())
    assert objective.encoder.context.project.weight.grad.abs().sum() > 0


def test_a_teacher_must_have_the_layer_and_read_sound():
    with pytest.raises(ConfigError, match=r"objective.layer: 6, but mel has the layers 0 to 0; choose one of them"):
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
