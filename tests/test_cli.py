import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet
import pytest
import safetensors.numpy
import torch
from command import mockingjay, refuses, works

import mockingjay as package
from mockingjay.downstream.extract import read_index
from mockingjay.objectives import OBJECTIVES
from mockingjay.settings import preset_names

QUICK = ("--set", "frozen.updates=20", "--set", "frozen.learning_rates=[1e-2]", "--set", "seeds=1")
ROW = {"representation", "task", "metric", "value", "ci95", "n", "seed", "data"}


@pytest.fixture(scope="module")
def files(talking):
    return sorted((talking / "audio").glob("*.flac"))[:2]


def test_help_starts_without_torch():
    code = "import sys, mockingjay.cli.main; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    subprocess.run([sys.executable, "-m", "mockingjay", "-h"], check=True, stdout=subprocess.DEVNULL)
    said = mockingjay("--help")
    assert said.code == 0 and all(verb in said.out for verb in ("pretrain", "probe", "predict", "doctor"))


def test_list_names_what_there_is():
    said = works("list")
    for objective in OBJECTIVES:
        assert f"{objective} ({', '.join(preset_names(objective))})" in said
    assert all(f"\n{title}: " in said for title in ("frontends", "contexts", "tasks", "corpora", "representations"))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_show_prints_a_preset_that_can_be_given_back(objective, tmp_path):
    assert {"nano", "tiny"} <= set(preset_names(objective))
    for preset in (None, *preset_names(objective)):
        said = works("show", objective, *(["--preset", preset] if preset else []), "--set", "train.steps=7")
        assert f'kind = "{objective}"' in said and "steps = 7 # Optimiser steps in all" in said
        file = tmp_path / f"{preset}.toml"
        file.write_text(said)
        assert works("show", objective, "--preset", file) == said


def test_doctor_says_what_there_is():
    said = works("doctor")
    assert torch.__version__ in said and "FLAC" in said and "ready" in said


def test_corpus_inspect(talking):
    assert json.loads(works("corpus", "inspect", talking, "--json"))["utterances"] == 48
    assert "FLAC: 48" in works("corpus", "inspect", talking)


def test_corpus_talking_is_found_again(talking, monkeypatch):
    monkeypatch.setenv("MOCKINGJAY_CACHE", str(talking.parent))
    (talking.parent / "mockingjay").symlink_to(".")
    assert works("corpus", "talking", "--minutes", 1.5).strip().endswith(talking.name)


def test_a_run_of_pretrain_leaves_its_files(trained):
    found = {path.relative_to(trained).as_posix() for path in trained.rglob("*") if path.is_file()}
    step = "checkpoints/step-000006"
    assert found >= {
        "config.toml", "provenance.json", "corpus.jsonl", "metrics.jsonl",
        f"{step}/model.safetensors", f"{step}/optimizer.safetensors", f"{step}/state.json", f"{step}/MANIFEST.json",
        "encoder/config.json", "encoder/model.safetensors", "encoder/README.md",
    }  # fmt: skip
    assert "steps = 6" in (trained / "config.toml").read_text()
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(7))
    assert rows[0]["validation"].keys() >= {"model", "utterance mean", "copy last", "interpolation"}
    assert rows[-1].keys() >= {"step", "seconds", "loss", "lr", "grad_norm", "audio_seconds", "validation"}
    splits = [json.loads(line)["split"] for line in (trained / "corpus.jsonl").read_text().splitlines()]
    assert set(splits) == {"train", "valid"}


def test_users_own_code(trained, files):
    encoder = package.open_representation(str(trained))
    waves = package.Waves.pad([package.audio.read(file) for file in files])
    hidden = encoder(waves)
    assert hidden.last.shape[0] == 2 and hidden.last.shape[2] == encoder.dim and len(hidden.layers) == encoder.depth
    assert len(encoder.grid.times(len(hidden.last[0]))) == hidden.lengths.max()
    hidden.last[hidden.valid].square().mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in encoder.parameters())
    assert sum(parameter.grad.abs().sum() for parameter in encoder.parameters()) > 0


@pytest.mark.parametrize("layers", ["last", "all", "0,2"])
@pytest.mark.parametrize("format", ["npy", "safetensors", "parquet"])
def test_extract(trained, talking, tmp_path, layers, format):
    command = ("extract", trained, "--data", talking, "--out", tmp_path, "--layers", layers, "--format", format)
    assert "48 written, 0 there already, 0 too short, 0 refused" in works(*command)
    assert "0 written, 48 there already" in works(*command)
    assert works(*command, "--quiet") == ""
    index = read_index(tmp_path)
    assert len(index) == 48
    row = next(iter(index.values()))
    path = tmp_path / row["file"]
    depth = {"last": (), "all": (3,), "0,2": (2,)}[layers]
    assert tuple(row["shape"]) == (*depth, row["shape"][-2], 64) and row["hop"] == 0.03
    if format == "npy":
        array = np.load(path)
    elif format == "safetensors":
        array = safetensors.numpy.load_file(path)["hidden"]
    else:
        table = pyarrow.parquet.read_table(path)
        array = np.stack(table["hidden"].to_numpy()).reshape(row["shape"])
    assert array.shape == tuple(row["shape"]) and array.dtype == np.float32 and np.isfinite(array).all()


def test_extract_means_and_shards(trained, talking, tmp_path):
    for part in ("1/2", "2/2"):
        command = ("extract", trained, "--data", talking, "--out", tmp_path, "--pool", "mean", "--shard", part)
        assert "24 written" in works(*command)
    index = read_index(tmp_path)
    assert len(index) == 48 and all(row["shape"] == [64] for row in index.values())
    refuses(2, "holds features of other settings", *command, "--layers", "all")


def test_extract_does_not_mix_random_encoders(talking, tmp_path):
    command = ("extract", "random:mockingjay/nano", "--data", talking, "--out", tmp_path, "--pool", "mean")
    works(*command)
    refuses(2, "holds features of other settings", *command, "--seed", 1)


@pytest.mark.parametrize("task", ["phone", "label:lang"])
def test_probe_and_predict_from_another_folder(trained, talking, files, tmp_path, monkeypatch, task):
    monkeypatch.chdir(trained.parent)
    options = ("--data", talking, "--task", task, "--out", tmp_path / "probe", "--set", "unseen=drop", *QUICK)
    said = json.loads(works("probe", "run", *options, "--json"))
    assert [said] == json.loads((tmp_path / "probe" / "results.json").read_text()) and said.keys() >= ROW
    assert (said["task"], said["metric"], said["representation"]) == (task, "accuracy", "run")
    assert said["ci95"][0] <= said["value"] <= said["ci95"][1] and 0 < said["n"] <= 48
    assert f"{100 * said['value']:.1f} %" in works("probe", "run", *options)
    assert works("probe", "run", *options, "--quiet") == ""
    splits = json.loads((tmp_path / "probe" / "splits.json").read_text())
    assert not set(splits["train"]) & set(splits["test"]) and len(splits["test"]) == said["n"]

    monkeypatch.chdir(tmp_path)
    lines = works("predict", "probe", *files).splitlines()
    assert {line.split("\t")[0] for line in lines} == set(map(str, files))
    rows = [json.loads(line) for line in works("predict", "probe", *files, "--json").splitlines()]
    assert [row["path"] for row in rows] == list(map(str, files))
    if task == "phone":
        for row in rows:
            ends = [0.0, *(end for _, end, _ in row["segments"])]
            assert [start for start, _, _ in row["segments"]] == ends[:-1] and ends[-1] == row["seconds"]
    else:
        assert all(row["label"] in ("en", "de", "fr", "es", "it", "cs") or len(row["label"]) == 2 for row in rows)
        assert all(1 / said["classes"] <= row["probability"] <= 1 for row in rows)


def test_probe_of_speakers(talking, tmp_path):
    manifest = tmp_path / "manifest.jsonl"
    rows = [json.loads(line) for line in (talking / "manifest.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row.update(path=str(talking / row["path"]), speaker=f"s{number % 3}")
        del row["split"]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = works(
        "probe", "mel", "--data", manifest, "--task", "label:speaker", "--out", tmp_path / "p", *QUICK, "--json"
    )
    assert json.loads(said)["classes"] == 3


def test_a_probe_of_a_random_encoder_meets_the_same_encoder_again(talking, files, tmp_path):
    options = ("--data", talking, "--task", "label:gender", "--seed", 3, *QUICK)
    works("probe", "random:mockingjay/nano", *options, "--out", tmp_path)
    assert json.loads((tmp_path / "probe.json").read_text())["representation"] == "random:mockingjay/nano@3"
    works("predict", tmp_path, files[0])


def test_finetune(trained, talking, files, tmp_path):
    command = ("finetune", trained, "--data", talking, "--task", "label:gender", "--out", tmp_path)
    said = json.loads(works(*command, "--set", "live.epochs=1", "--set", "seeds=1", "--json"))
    assert said["tune"] == "all" and said.keys() >= ROW
    assert works("predict", tmp_path, files[0]).split("\t")[1] in ("f", "m")
    assert said["training"] == "live" and list(said["sweep"]) == ["0.0004"]
    helped = mockingjay("finetune", "--help").out
    assert "epochs=N" in helped and "live.learning_rates=[1e-4,4e-4,4e-3]" in helped


def test_dry_run_writes_nothing(talking, tmp_path):
    command = ("pretrain", "mockingjay", "--preset", "nano", "--data", talking, "--out", tmp_path / "run", "--dry-run")
    said = works(*command, "--steps", 9)
    assert "steps = 9 #" in said and "48 utterances" in said
    assert not (tmp_path / "run").exists()


def test_names_that_are_not_utf8(talking, tmp_path):
    out = os.fsdecode(os.fsencode(tmp_path) + b"/r\xff\xfen")
    command = ("pretrain", "mockingjay", "--preset", "nano", "--data", talking, "--out", out, "--steps", 1)
    assert mockingjay(*command).code == 0


# ---- bad input


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            "objective.encoder.context.layrs=2",
            r"encoder\.context\.layrs: unknown key; did you mean 'layers'\?",
        ),
        ("nonsense=2", "nonsense: unknown key; known keys are batches, objective, train, upkeep"),
        ("train.steps=many", r"train\.steps: input should be a valid integer ('many')"),
        ("train.steps=0", r"train\.steps: .*greater than or equal to 1"),
        ("train.learning_rate=nan", r"train\.learning_rate: .*finite"),
        ("train.seed=99999999999999999999", r"train\.seed: "),
        ("train.steps", "--set train.steps: no assignment, expected path=value"),
        ("=3", "--set =3: no assignment"),
        ("train.steps=[3", "is not a TOML value"),
        ("train=5", "train: "),
        ("train.steps.deep=5", r"train\.steps: "),
        ("objective.kind=nonsense", r"objective\.kind: "),
        ("objective.encoder.frontend.kind=nonsense", r"frontend\.kind: unknown kind 'nonsense'"),
        ("objective.encoder.context.heads=5", "multiple of heads 5"),
        ("batches.seconds=0.5", r"batches\.seconds: 0\.5 s per step cannot hold"),
        ("batches.crop=0.00001", r"batches\.crop: .*greater than or equal to 0\.01"),
        ("batches.crop=0.01", r"batches\.crop: 0\.01 s is all that is read, expected 0\.02"),
        ("upkeep.keep=1", r"upkeep\.keep: "),
    ],
)
def test_settings(change, sentence, talking, tmp_path):
    command = ("pretrain", "mockingjay", "--preset", "nano", "--data", talking, "--out", tmp_path / "run")
    refuses(2, sentence.replace("('", r"\('").replace("')", r"'\)"), *command, "--set", change)


def test_settings_that_contradict_each_other(talking, tmp_path):
    command = ("pretrain", "mockingjay", "--preset", "nano", "--data", talking, "--out", tmp_path / "run")
    refuses(2, "--steps and --budget: both given", *command, "--steps", 5, "--budget", "1m")
    refuses(2, "--steps and --budget: both given", *command, "--set", "train.steps=5", "--budget", "1m")
    refuses(2, "--steps and --budget: both given", "run", talking, "--set", "train.steps=5", "--budget", "1m")
    refuses(2, "--steps and --budget: both given", *command, "--set", "train={steps=5}", "--budget", "1m")
    refuses(2, "at odds with another --set", *command, "--set", "train=5", "--steps", 3)
    refuses(2, "at odds with another --set", *command, "--set", "train.steps.deep=5", "--steps", 3)
    for budget in ("1x", "20", "", "1m1", "m", "-1m", "0s"):
        refuses(2, "--budget .*(not a duration|no time at all)", *command, f"--budget={budget}")
    assert not (tmp_path / "run").exists()


def test_preset_files(tmp_path, talking):
    file = tmp_path / "mine.toml"
    file.write_text("[train]\nstepps = 3\n")
    refuses(
        2, r"mine\.toml: train\.stepps: unknown key; did you mean 'steps'\?", "show", "mockingjay", "--preset", file
    )
    file.write_text("[train]\nsteps = \n")
    refuses(2, r"mine\.toml: not TOML .*line 2", "show", "mockingjay", "--preset", file)
    file.write_bytes(b"\xff\xfe")
    refuses(2, r"mine\.toml: cannot be read", "show", "mockingjay", "--preset", file)
    refuses(2, "--preset none: no such preset, expected one of .*nano, tiny", "show", "mockingjay", "--preset", "none")


@pytest.mark.parametrize(
    ("text", "words", "budget"),
    [
        ("extends = 'nano'\n[train]\nsteps = 7", (), None),
        ("extends = 'nano'\n[train]\nsteps = 7", ("--budget", "1m"), 60.0),
        ("extends = 'nano'", (), 540.0),
    ],
)
def test_steps_of_a_preset_file_go_before_the_budget_that_nobody_named(
    text, words, budget, talking, tmp_path, monkeypatch
):
    (tmp_path / "mine.toml").write_text(text)

    def looked(chosen, corpus, out, *, budget, **more):
        raise package.core.errors.ConfigError(f"run: {budget} s, expected that; see; that")

    monkeypatch.setattr(importlib.import_module("mockingjay.run"), "run", looked)
    refuses(2, f"run: {budget} s", "run", talking, "--preset", tmp_path / "mine.toml", *words)


def test_names(talking, tmp_path):
    out = ("--data", talking, "--out", tmp_path / "out")
    refuses(2, "mokingjay: no such objective, expected one of", "pretrain", "mokingjay", *out)
    refuses(2, "nowhere: no such representation, expected one of mel, ", "extract", "nowhere", *out)
    refuses(2, "random:nowhere: neither an encoder folder nor an objective", "extract", "random:nowhere", *out)
    refuses(
        2,
        "task speaker: unknown task, expected phone, pitch, energy or label:",
        "probe",
        "mel",
        *out,
        "--task",
        "speaker",
    )
    refuses(2, "layer 9, expected 0 to 0", "probe", "mel", *out, "--task", "label:lang", "--read", "layer:9")
    refuses(2, "--layers 7: expected last, all, or indices", "extract", "mel", *out, "--layers", 7)
    refuses(2, "--shard 3/2: expected k/n", "extract", "mel", *out, "--shard", "3/2")
    refuses(2, "--init mel: not an encoder of ours", "pretrain", "mockingjay", *out, "--init", "mel")
    for named, *words in (
        ["nonsense", "nonsense"],
        ["nix", "extract", "mel", *out, "--format", "nix"],
        ["--seed", "extract", "mel", *out, "--seed", "-1"],
    ):
        said = mockingjay(*words)
        assert said.code == 2 and "Traceback" not in said.err and named in said.err


@pytest.mark.parametrize("verb", ["probe --task label:lang", "finetune --task label:lang", "extract", "abx"])
def test_devices(verb, trained, talking, tmp_path):
    command = (*verb.split(), trained, "--data", talking, "--out", tmp_path / "out", "--device", "gpu")
    refuses(2, "'gpu' is no device, expected auto, cpu, cuda or cuda:<index>", *command)
    assert not (tmp_path / "out").exists()


@pytest.mark.gpu
def test_heads_and_features_on_cuda(trained, talking, files, tmp_path):
    given = ("--data", talking, "--device", "cuda", "--out")
    for verb, more in {"probe": QUICK, "finetune": ("--set", "live.epochs=1", "--set", "seeds=1")}.items():
        works(verb, trained, "--task", "label:lang", *more, "--set", "unseen=drop", *given, tmp_path / verb)
        assert works("predict", tmp_path / verb, files[0])
    assert "48 written" in works("extract", trained, *given, tmp_path / "features")


def test_an_encoder_of_another_shape(trained, talking, tmp_path):
    command = ("pretrain", "mockingjay", "--preset", "tiny", "--data", talking, "--out", tmp_path / "run", "--steps", 2)
    refuses(2, "--init: the encoder there has another shape", *command, "--init", trained)
    assert not (tmp_path / "run" / "config.toml").exists()


def test_going_on_from_an_encoder(trained, talking, tmp_path):
    command = ("pretrain", "mockingjay", "--preset", "nano", "--data", talking, "--out", tmp_path / "run", "--steps", 1)
    slowly = (*command, "--set", "train.learning_rate=1e-12")
    works(*slowly, "--init", trained)
    states = [package.open_representation(str(folder)).state_dict() for folder in (trained, tmp_path / "run")]
    assert all(torch.allclose(states[0][name], states[1][name]) for name in states[0])
    refuses(2, r"began with an encoder's \(\w{12}\), expected the same and not random weights; give", *slowly)


def test_damaged_folders(trained, talking, files, tmp_path):
    refuses(4, "nowhere/probe.json: No such file or directory", "predict", tmp_path / "nowhere", files[0])
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (encoder / name).write_bytes((trained / "encoder" / name).read_bytes())
    weights = bytearray((encoder / "model.safetensors").read_bytes())
    weights[-5] ^= 1
    (encoder / "model.safetensors").write_bytes(weights)
    refuses(4, "does not match the SHA-256", "extract", encoder, "--data", talking, "--out", tmp_path / "x")
    (encoder / "config.json").write_text("{")
    refuses(4, "not JSON", "extract", encoder, "--data", talking, "--out", tmp_path / "x")


def test_a_folder_that_cannot_be_written(talking, tmp_path):
    (tmp_path / "file").write_text("")
    for verb in (
        ("pretrain", "mockingjay", "--preset", "nano", "--data", talking),
        ("run", talking),
        ("extract", "mel", "--data", talking),
        ("probe", "mel", "--task", "label:lang", "--data", talking),
    ):
        sentence = r"cannot be written \(Not a directory\), expected a writable folder; choose another --out"
        refuses(5, sentence, *verb, "--out", tmp_path / "file" / "out")


def test_the_embedded_corpus_cannot_be_made(tmp_path, monkeypatch):
    monkeypatch.setenv("MOCKINGJAY_CACHE", str(tmp_path))
    refuses(2, "minutes is 0.0, expected more than 0", "corpus", "talking", "--minutes", 0)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOCKINGJAY_CACHE", str(tmp_path / "file"))
    refuses(5, "cannot be written .*; set MOCKINGJAY_CACHE", "corpus", "talking", "--minutes", 1.5)


def test_debug_adds_the_traceback():
    said = mockingjay("show", "nothing", "--debug")
    assert said.code == 2 and "Traceback" in said.err and "nothing: no such objective" in said.err


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has"), "2.50 GiB more was"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes."),
            "64 bytes more was",
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "more was"),
        (MemoryError(), "more was"),
    ],
)
def test_too_little_memory(error, asked, monkeypatch):
    def full():
        raise error

    monkeypatch.setattr(package.cli.main, "app", lambda arguments: full())
    said = refuses(
        5, f"MachineError: memory: none left where {asked} asked for, expected room for a batch; ", "pretrain"
    )
    assert said.endswith("lower batches.seconds or raise train.accumulate")


def test_other_faults_of_torch_are_bugs(monkeypatch):
    def wrong(arguments):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(package.cli.main, "app", wrong)
    with pytest.raises(RuntimeError, match="mat1"):
        mockingjay("pretrain")


def test_interrupting_between_steps(monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("mockingjay.settings.settings", interrupted)
    said = mockingjay("show", "mockingjay")
    assert said.code == 130 and "Traceback" not in said.err
