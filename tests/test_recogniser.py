import copy
import json
import shutil

import pytest
import soundfile
import torch
from command import refuses, works
from speech_like import batch_of, corpus

from mockingjay.core.config import read_toml
from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Waves
from mockingjay.data.corpora import open_corpus
from mockingjay.downstream.recognise import filled_in, teach
from mockingjay.downstream.storage import load_probe
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends import Recogniser, build_frontend
from mockingjay.open import kept_name, open_representation
from mockingjay.rounds import resolved
from mockingjay.settings import settings

SMALL = (
    "--preset", "nano", "--set", "objective.encoder.context.layers=1", "--set", "objective.encoder.context.dim=16",
    "--set", "objective.encoder.context.feedforward=32", "--set", "batches.seconds=12",
)  # fmt: skip
FAST = (
    "--set", "seeds=1", "--set", "frozen.updates=40", "--set", "frozen.learning_rates=[0.01]", "--set", "unseen=drop",
)  # fmt: skip


@pytest.fixture(scope="module")
def phones(trained, talking, tmp_path_factory):
    """A phone probe on an encoder of ours."""
    folder = tmp_path_factory.mktemp("phones") / "probe"
    works("probe", trained, "--data", talking, "--task", "phone", "--out", folder, *FAST)
    return folder


@pytest.fixture(scope="module")
def listening(phones, talking, tmp_path_factory):
    """A SLU BERT that listens to that probe."""
    folder = tmp_path_factory.mktemp("slu") / "run"
    works("pretrain", "slu-bert", *SMALL, *of(phones), "--data", talking, "--out", folder, "--steps", 4)
    return folder


def of(phones):
    frontend = "objective.encoder.frontend"
    return ("--set", f"{frontend}.kind=recogniser", "--set", f"{frontend}.probe='{phones}'")


def chosen(phones):
    return Recogniser.Config(probe=str(phones))


def taught(phones):
    frontend = build_frontend(filled_in(chosen(phones), open_representation))
    teach(frontend, open_representation)
    return frontend


def test_its_posteriors_are_the_probe_s(phones):
    # The last is longer than the window in which the probe's encoder reads.
    frontend, probe = taught(phones), load_probe(phones, open_representation)
    waves = batch_of((16_000, 24_000, 70_000)).waves
    assert frontend.config.window == probe.representation.config.window == 100
    frames = frontend(waves)
    logits, steps = probe.guess(waves)
    assert torch.equal(frames.lengths, steps) and torch.equal(frontend.count(waves.lengths), steps)
    assert frontend.config.phones == probe.task.outputs and frontend.dim == len(probe.task.outputs)
    torch.testing.assert_close(frames.values[frames.valid], logits.softmax(-1)[frames.valid], atol=1e-5, rtol=1e-4)
    assert (frontend.grid, frontend.receptive) == (probe.representation.grid, probe.representation.receptive)
    assert [phone for phone, silent in zip(frontend.config.phones, frontend.silent) if silent] == ["sil"]


def test_padding_and_batch_mates_do_not_matter(phones):
    frontend, waves = taught(phones), batch_of().waves
    together = frontend(waves)
    assert not together.values[~together.valid].any()
    for row, length in enumerate(waves.lengths.tolist()):
        alone = frontend(Waves.pad([waves.samples[row, :length]])).values[0]
        torch.testing.assert_close(together.values[row, : len(alone)], alone, atol=1e-5, rtol=0)


def test_it_never_learns_nor_drops_out(phones):
    frontend = taught(phones)
    assert not list(frontend.parameters()) and not frontend.requires_grad_(True).train().inner.training
    frames = [copy.deepcopy(frontend).train()(batch_of().waves) for _ in range(2)]
    assert torch.equal(frames[0].values, frames[1].values) and not frames[0].values.requires_grad


def test_a_recurrent_encoder_can_be_listened_to(talking, tmp_path):
    works("probe", "random:apc/nano", "--data", talking, "--task", "phone", "--out", tmp_path / "probe", *FAST)
    frontend, probe = taught(tmp_path / "probe"), load_probe(tmp_path / "probe", open_representation)
    waves = batch_of().waves
    for heard in (frontend, copy.deepcopy(frontend)):
        logits, _ = probe.guess(waves)
        frames = heard(waves)
        torch.testing.assert_close(frames.values[frames.valid], logits.softmax(-1)[frames.valid], atol=1e-5, rtol=1e-4)


def test_the_run_holds_its_recogniser_whole(phones, listening, tmp_path):
    settled = read_toml(listening / "config.toml")["objective"]["encoder"]["frontend"]
    assert settled["kind"] == "recogniser" and "sil" in settled["phones"] and settled["frontend"]["kind"] == "stacked"
    shutil.copytree(listening, tmp_path / "run")
    encoder = Encoder.load(tmp_path / "run" / "encoder")
    torch.testing.assert_close(encoder.frontend(batch_of().waves).values, taught(phones)(batch_of().waves).values)
    untrained = open_representation(f"random:{tmp_path / 'run'}", 3)
    assert torch.equal(untrained.frontend.weight, encoder.frontend.weight)
    assert not torch.equal(untrained.context.project.weight, encoder.context.project.weight)


def test_the_same_command_goes_on(phones, talking, tmp_path):
    words = ("pretrain", "slu-bert", *SMALL, *of(phones), "--data", talking, "--out", tmp_path, "--save-every", 2)
    works(*words, "--steps", 4)
    shutil.rmtree(tmp_path / "checkpoints" / "step-000004")
    shutil.rmtree(tmp_path / "encoder")
    assert f"resuming {tmp_path} at step 2 of 4" in works(*words, "--steps", 4)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4] and all("mfu" in row for row in rows[1:])


@pytest.fixture
def intents(tmp_path):
    """Commands that nobody can mistake, though no phone is said: a hiss, and knocks with silence between."""
    (tmp_path / "intents").mkdir()
    rows, knocks = ["path,intent"], (torch.arange(16_000) % 4000 < 800).float()
    for number in range(48):
        intent = ("begin", "end")[number % 2]
        hiss = 0.2 * torch.randn(16_000, generator=torch.Generator().manual_seed(number))
        samples = hiss * knocks.clamp(min=0.01).roll(83 * number) if intent == "end" else hiss
        soundfile.write(tmp_path / "intents" / f"{number:02d}.wav", samples.numpy(), 16_000)
        rows.append(f"{number:02d}.wav,{intent}")
    (tmp_path / "intents" / "list.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "intents" / "list.csv"


def test_intents_are_fine_tuned(listening, intents, tmp_path):
    before = Encoder.load(listening / "encoder")
    more = ("--set", "seeds=1", "--set", "live.seconds=6", "--set", "live.learning_rates=[0.005]", "--json")
    words = ("finetune", listening, "--data", intents, "--task", "label:intent", "--out", tmp_path / "tuned")
    row = json.loads(works(*words, *more))
    assert (row["tune"], row["classes"], row["majority"]) == ("all", 2, 0.5) and row["value"] >= 0.9
    probe = load_probe(tmp_path / "tuned", open_representation)
    frontend, context = probe.representation.frontend, probe.representation.context
    assert torch.equal(frontend.weight, before.frontend.weight) and not list(frontend.parameters())
    assert not torch.equal(context.project.weight, before.context.project.weight)
    for number, intent in enumerate(("begin", "end")):
        assert works("predict", tmp_path / "tuned", intents.parent / f"{number:02d}.wav").split("\t")[1] == intent


@pytest.mark.slow
def test_intents_are_fine_tuned_on_clusters_too(talking, tmp_path):
    works("pretrain", "slu-bert", *SMALL, "--data", talking, "--out", tmp_path / "run", "--steps", 2)
    more = ("--set", "seeds=1", "--set", "unseen=drop", "--json", "--out", tmp_path / "tuned")
    row = json.loads(works("finetune", tmp_path / "run", "--data", talking, "--task", "label:sentiment", *more))
    before, after = Encoder.load(tmp_path / "run" / "encoder"), load_probe(tmp_path / "tuned", open_representation)
    assert row["tune"] == "all" and torch.equal(after.representation.frontend.centroids, before.frontend.centroids)


def test_silence_of_the_probe_is_never_hidden(phones, talking):
    objective = settings("slu-bert", "nano", [word for word in of(phones) if word != "--set"])
    frontend = resolved(objective).objective.encoder.frontend
    assert frontend == filled_in(chosen(phones), open_representation) == filled_in(frontend, open_representation)
    from mockingjay.objectives import build_objective

    learner = build_objective(resolved(objective).objective)
    teach(learner.encoder.frontend, open_representation)
    waves = Waves.pad([torch.zeros(16_000), batch_of().waves.samples[1]])
    batch = batch_of((16_000, 24_000))
    batch = type(batch)(waves, batch.utterances)
    frames = learner.encoder.frontend(waves)
    silent = learner.encoder.frontend.silent[frames.values.argmax(-1)]
    for epoch in range(20):
        assert not (learner._hide(frames, batch, Draw(0, epoch)) & silent).any()


def test_what_is_no_phone_probe_is_refused(trained, phones, talking, tmp_path):
    pretrain = ("pretrain", "slu-bert", *SMALL, "--data", talking, "--out", tmp_path / "run")
    kind = ("--set", "objective.encoder.frontend.kind=recogniser")
    refuses(2, r"frontend.probe: none, expected the folder of a phone probe; make one with", *pretrain, *kind)
    refuses(4, r"expected a probe's folder with probe.json", *pretrain, *of(tmp_path))
    speakers = tmp_path / "speakers"
    works("probe", trained, "--data", talking, "--task", "label:gender", "--out", speakers, *FAST)
    refuses(2, r"is a probe of label:gender with a linear head, expected one of phones", *pretrain, *of(speakers))
    with pytest.raises(ConfigError, match=r"frontend.recogniser: no phones, expected those of a phone probe; set its"):
        build_frontend(Recogniser.Config())
    with pytest.raises(ConfigError, match=r"frontend.recogniser: no weights, expected a phone probe's or saved ones"):
        build_frontend(filled_in(chosen(phones), open_representation))(batch_of().waves)


def test_another_probe_in_the_same_folder_is_refused(trained, phones, talking, tmp_path):
    full = filled_in(chosen(phones), open_representation)
    other = full.model_copy(update={"phones": full.phones[::-1]})
    with pytest.raises(ConfigError, match=r"another probe than the settings were filled in from, expected the same"):
        teach(build_frontend(other), open_representation)


# Untrained encoders whose frontends measure a corpus


@pytest.mark.parametrize("objective", ["slu-bert", "mpc"])
def test_an_untrained_encoder_measures_what_it_is_probed_on(objective, tmp_path):
    data = corpus(tmp_path / "data", count=40)
    name = f"random:{objective}/nano"
    words = ("--data", data, "--task", "label:speaker", "--out", tmp_path / "probe", *FAST)
    works("probe", name, *words)
    probe = load_probe(tmp_path / "probe", open_representation)
    assert probe.representation(batch_of().waves).last.isfinite().all()
    assert works("predict", tmp_path / "probe", data / "s0" / "000.wav").split("\t")[1].startswith("s")
    works("extract", name, "--data", data, "--out", tmp_path / "features")
    assert len((tmp_path / "features" / "index.jsonl").read_text().splitlines()) == 40


def test_other_untrained_encoders_keep_their_names(tmp_path):
    opened = open_representation("random:apc/nano", 2, open_corpus(corpus(tmp_path / "data", count=2)).utterances)
    assert kept_name(opened, "random:apc/nano", 2, tmp_path) == "random:apc/nano@2"
    assert not (tmp_path / "untrained").exists()
