import errno
import importlib
import json
import os
import re
import resource
import shutil
import signal
import socket
from pathlib import Path

import pytest
import torch
from command import mockingjay, refuses, works
from safetensors.torch import load_file
from shortcuts import stopping
from speech_like import corpus
from toy_learner import forked

from mockingjay import audio
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Utterance
from mockingjay.data.corpora import open_corpus
from mockingjay.data.manifest import write_manifest
from mockingjay.data.splits import hold_out
from mockingjay.objectives.mockingjay import Mockingjay
from mockingjay.pretrain import TRIAL
from mockingjay.settings import settings
from mockingjay.train import checkpoint, precision
from mockingjay.train.collapse import Monitor

# Smaller than nano, and two batches an epoch.
SMALL = (
    "--preset", "nano", "--set", "objective.encoder.context.layers=1", "--set", "objective.encoder.context.dim=16",
    "--set", "objective.encoder.context.feedforward=32", "--set", "batches.seconds=12", "--set", "upkeep.workers=0",
)  # fmt: skip


def command(data, out, steps=8, *more):
    return ("pretrain", "mockingjay", *SMALL, "--data", data, "--out", out, "--steps", steps, "--save-every", 2, *more)


def final(out, step=8):
    """Weights and moments at the end of a run."""
    folder = out / "checkpoints" / f"step-{step:06d}"
    return {name: (folder / f"{name}.safetensors").read_bytes() for name in ("model", "optimizer")}


def steps_of(out):
    return [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def quarantined(out):
    return [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    return corpus(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def whole(speech, tmp_path_factory):
    """A run of eight steps that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    works(*command(speech, out))
    return out


# ---- the same command again


def test_a_finished_run_stays_as_it_is(speech, whole):
    before = contents(whole)
    said = works(*command(speech, whole))
    assert "at step 8 of 8" in said
    after = contents(whole)
    differing = {str(path) for path in before if before[path] != after[path]}
    assert before.keys() == after.keys() and differing <= {"provenance.json", ".lock"}
    assert len(json.loads(after[Path("provenance.json")])["starts"]) == 2


def test_quiet_says_nothing(speech, tmp_path):
    assert works(*command(speech, tmp_path / "run", 1), "--quiet") == ""


def test_a_signal_saves_and_the_same_command_goes_on(speech, whole, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Mockingjay, "forward", stopping(Mockingjay, TRIAL + 3, signal.SIGTERM))  # after the estimate
        said = mockingjay(*command(speech, out))
    assert said.code == 143 and "stopped at step 3; the same command goes on" in said.out and not said.err
    assert not (out / "encoder").exists()
    assert (out / "checkpoints" / "step-000003").is_dir()
    assert f"resuming {out} at step 3 of 8" in works(*command(speech, out))
    assert final(out) == final(whole)
    assert steps_of(out) == list(range(9))


def test_a_gradient_that_is_not_finite(speech, whole, tmp_path, monkeypatch):
    forward, count = Mockingjay.forward, 0

    def exploding(self, batch, progress, draw):
        nonlocal count
        count += self.training
        loss = forward(self, batch, progress, draw)
        loss.sum.data.mul_(float("nan") if self.training and count == TRIAL + 6 else 1.0)
        return loss

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Mockingjay, "forward", exploding)
        refuses(6, r"step 6: gradient norm is .*last whole step 5", *command(speech, out))
    works(*command(speech, out))
    assert final(out) == final(whole) and steps_of(out) == list(range(9))


def test_a_validation_that_is_not_finite(speech, tmp_path, monkeypatch):
    forward = Mockingjay.forward

    def exploding(self, batch, progress, draw):
        loss = forward(self, batch, progress, draw)
        loss.sum.data.mul_(1.0 if self.training else float("inf"))
        return loss

    monkeypatch.setattr(Mockingjay, "forward", exploding)
    refuses(6, "validation: .*inf.* expected finite numbers; lower the learning rate", *command(speech, tmp_path / "r"))


def test_what_is_held_out_is_scored_in_the_precision_of_training(speech, tmp_path, monkeypatch):
    module, seen = importlib.import_module("mockingjay.pretrain"), []

    def noting(function):
        def noted(*arguments):
            seen.append((function.__name__, torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")))
            return function(*arguments)

        return noted

    monkeypatch.setattr(precision, "_processor_has_bfloat16", lambda: True)
    monkeypatch.setattr(module, "validate", noting(module.validate))
    monkeypatch.setattr(Monitor, "look", noting(Monitor.look))
    works(*command(speech, tmp_path / "run", 1, "--set", "train.precision=bfloat16"))
    assert seen == [("validate", True, torch.bfloat16), ("look", True, torch.bfloat16)] * 2


@pytest.mark.parametrize("damaged", [1, 2])
def test_damaged_checkpoints(speech, whole, tmp_path, damaged):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    for folder in sorted((out / "checkpoints").iterdir())[-damaged:]:
        weights = bytearray((folder / "model.safetensors").read_bytes())
        weights[-1] ^= 1
        (folder / "model.safetensors").write_bytes(weights)
    if damaged == 1:
        said = works(*command(speech, out))
        assert "step-000008: model.safetensors does not match its SHA-256" in said
        assert "going on from step-000006" in said
        assert final(out) == final(whole) and steps_of(out) == list(range(9))
    else:
        refuses(4, "none of the 2 checkpoints is whole", *command(speech, out))


def test_a_budget_becomes_steps_once(speech, tmp_path):
    out = tmp_path / "run"
    timed = ("pretrain", "mockingjay", *SMALL, "--data", speech, "--out", out, "--budget")
    works(*timed, "0.5s")
    steps = int(re.search(r"(?m)^steps = (\d+)", (out / "config.toml").read_text())[1])
    said = works(*timed, "1h")
    assert steps >= 1 and f"at step {steps} of {steps}" in said
    assert f"{out}: {steps} steps, as settled at its first start; --budget no longer changes that" in said


# ---- a folder that holds another run


def test_other_settings_or_data_change_nothing(speech, whole, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    before = contents(out)
    refuses(2, r"holds a run with other settings \(train\.steps\)", *command(speech, out, 9))
    refuses(2, r"other settings \(batches\.crop\)", *command(speech, out, 8, "--set", "batches.crop=2"))
    assert contents(out) == before
    other = corpus(tmp_path / "other", bad=1)
    refuses(2, "holds a run on another corpus", *command(other, out))
    after = contents(out)
    assert {path: after[path] for path in before if path.name != "scan.jsonl"} == {
        path: content for path, content in before.items() if path.name != "scan.jsonl"
    }
    assert after.keys() == before.keys()
    works(*command(speech, out, 8, "--set", "upkeep.keep=3", "--set", "upkeep.workers=1"))


def test_two_runs_in_one_folder(speech, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    read, write = os.pipe()
    holder = forked(hold, out, write)
    assert os.read(read, 1) == b"."
    refuses(5, rf"another run is writing here \(process {holder.pid} on ", *command(speech, out))
    holder.kill()
    holder.join(10)
    works(*command(speech, out, 1))


def hold(out, write):
    from mockingjay.train.ledger import locked

    with locked(out):
        os.write(write, b".")
        signal.pause()


# ---- the machine


def test_a_full_disk(speech, whole, tmp_path):
    """Under a limit that the first checkpoint reaches: one sentence, and with room the same bits."""
    out = tmp_path / "run"
    limited = forked(limit, [str(word) for word in command(speech, out)], tmp_path / "said")
    limited.join(60)
    said = (tmp_path / "said").read_text()
    assert limited.exitcode == 5, said
    assert re.fullmatch(r"mockingjay: MachineError: \S+step-000002: file size limit reached, .* needed, .*\n", said), (
        said
    )
    assert not list(out.rglob(".tmp-*"))
    works(*command(speech, out))
    assert final(out) == final(whole) and steps_of(out) == list(range(9))


def limit(words, said):
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
    found = mockingjay(*words)
    said.write_text(found.err)
    os._exit(found.code)


@pytest.mark.parametrize("name", ["scan.jsonl", "quarantine.jsonl", "corpus.jsonl", "config.toml", "metrics.jsonl"])
def test_any_file_may_be_refused(tmp_path, monkeypatch, name):
    opened, writing = Path.open, ("w", "a", "wb", "ab")

    def refusing(self, mode="r", *more, **named):
        if self.name.endswith(name) and mode in writing:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        return opened(self, mode, *more, **named)

    data = corpus(tmp_path / "data", bad=1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refusing)
        refuses(5, rf"{name}: cannot be written \(Read-only file system\)", *command(data, tmp_path / "run", 2))
    works(*command(data, tmp_path / "run", 2))


def test_a_device_that_is_not_there(speech, tmp_path):
    for verb in (command(speech, tmp_path / "r", 1), ("run", speech, "--out", tmp_path / "r")):
        refuses(2, "'gpu' is no device, expected auto, cpu, cuda or cuda:<index>", *verb, "--device", "gpu")
        refuses(5, "cuda:999 is not on this machine, expected cpu(;| or cuda:0 to)", *verb, "--device", "cuda:999")
    assert not (tmp_path / "r").exists()  # told before anything is read


# ---- the corpus


def test_one_bad_file_is_named_and_left_out(tmp_path):
    out = tmp_path / "run"
    said = works(*command(corpus(tmp_path / "data", bad=1), out, 1))
    (row,) = quarantined(out)
    assert row["class"] == "empty" and row["path"].endswith("s0/000.wav") and row["text"] in said
    assert len((out / "corpus.jsonl").read_text().splitlines()) == 23


def test_too_many_bad_files_and_their_mend(tmp_path):
    data, out = corpus(tmp_path / "data", bad=12), tmp_path / "run"
    sentence = refuses(3, r"12 of 24 files cannot be used, expected at most 1 \(1\.0%\); mend", *command(data, out))
    named = re.findall(r"s\d/\d\d\d\.wav", sentence)
    assert named == ["s0/000.wav", "s0/004.wav", "s0/008.wav"]
    assert len(quarantined(out)) == 12 and not (out / "config.toml").exists()
    works(*command(data, tmp_path / "allowed", 1), "--set", "upkeep.refused=0.5")
    corpus(data)
    works(*command(data, out, 1))
    assert not (out / "quarantine.jsonl").exists()


def test_a_file_that_breaks_while_training(speech, tmp_path, monkeypatch):
    out, read = tmp_path / "run", audio.read

    def breaking(path, start=0.0, seconds=None):
        if str(path).endswith("007.wav"):
            raise audio.AudioError(f"{path}: gone, expected audio; bring it back", kind="missing", path=str(path))
        return read(path, start, seconds)

    monkeypatch.setattr(audio, "read", breaking)
    assert "007.wav: gone, expected audio; bring it back" in works(*command(speech, out))
    assert [row["id"] for row in quarantined(out)] == ["s3/007"]
    monkeypatch.setattr(audio, "read", lambda path, start=0.0, seconds=None: breaking(f"{path[:-7]}007.wav"))
    shutil.rmtree(out)
    refuses(3, "cannot be used|can be read", *command(speech, out))


def test_labels_that_cannot_be_read_leave_the_audio(tmp_path):
    data, out = corpus(tmp_path / "data"), tmp_path / "run"
    for path in sorted(data.rglob("*.wav"))[:5]:
        path.with_suffix(".TextGrid").write_text("nonsense")
    said = works(*command(data, out, 1))
    assert "TextGrid" in said and "24 utterances" in said
    assert len((out / "corpus.jsonl").read_text().splitlines()) == 24 and not (out / "quarantine.jsonl").exists()


def test_a_bad_stretch_leaves_the_rest_of_its_file(tmp_path):
    data = corpus(tmp_path / "data", 1, 12.0, 1)
    file = next(data.rglob("*.wav"))
    stretches = [Utterance(f"u{number}", str(file), 1.0, float(number)) for number in range(10)]
    write_manifest(tmp_path / "m.jsonl", [*stretches, Utterance("short", str(file), 0.01, 11.0)])
    works(*command(tmp_path / "m.jsonl", tmp_path / "run", 1))
    assert [row["id"] for row in quarantined(tmp_path / "run")] == ["short"]


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        ({"count": 0}, "an empty folder, expected audio"),
        ({"count": 3, "bad": 3}, "none of 3 audio files can be used"),
        ({"seconds": 0.005}, r"8 of 24 files cannot be used.*0\.005 s long, expected at least 0\.02"),
        ({"count": 1}, "1 utterances are left .* expected at least two"),
        (None, "no such file or folder, expected a corpus"),
    ],
)
def test_corpora_that_cannot_be_learned_from(made, sentence, tmp_path):
    data = tmp_path / "data"
    if made is not None:
        data.mkdir()
        corpus(data, **made)
    refuses(3, sentence, *command(data, tmp_path / "run"))


def test_longer_than_the_receptive_field_is_no_damage(tmp_path):
    data = corpus(tmp_path / "data", seconds=0.005)
    shorter = (*command(data, tmp_path / "run"), "--set", "upkeep.refused=0.5")
    refuses(3, "data: no utterance can be used, expected speech; lower batches.minimum", *shorter)


def test_what_is_left_out_is_said(tmp_path):
    data, out = corpus(tmp_path / "data" / "train").parent, tmp_path / "run"
    corpus(data / "test", 7)
    said = works(*command(data, out, 1), "--set", "batches.minimum=1.03")
    assert "15 utterances, 0.00 h, left out as shorter than batches.minimum (1.03 s)" in said
    assert "4 utterances, 0.00 h, left out for testing" in said and not (out / "quarantine.jsonl").exists()
    assert len((out / "corpus.jsonl").read_text().splitlines()) == 24 + 7 - 15 - 4


def test_a_corpus_of_test_utterances_alone(tmp_path):
    corpus(tmp_path / "data" / "test")
    refuses(3, "0 utterances are left beside those kept for testing", *command(tmp_path / "data", tmp_path / "run"))


def test_what_is_held_out_is_short():
    hours = [Utterance(f"u{number}", f"/u{number}", 30.0, speaker=f"s{number % 4}") for number in range(480)]
    parts = hold_out(hours, 0.05, 0)
    assert 570 <= sum(each.seconds for each in parts["valid"]) <= 600
    assert not {each.speaker for each in parts["train"]} & {each.speaker for each in parts["valid"]}
    assert len(parts["train"]) == 360


def test_a_stray_file_does_not_mix_speakers():
    for speakers, apart in ((100, True), (4, True), (3, False)):
        people = [Utterance(f"u{n}", f"/u{n}", 3.0, speaker=f"s{n % speakers}") for n in range(400)]
        for seed in range(5):
            parts = hold_out([*people, Utterance("stray", "/stray", 3.0)], 0.05, seed)
            heard, held = ({each.speaker for each in parts[name]} - {None} for name in ("train", "valid"))
            assert (not heard & held) is apart


# ---- labels


def labelled(tmp_path, rows):
    data = corpus(tmp_path / "data", len(rows), speakers=1)
    files = sorted(data.rglob("*.wav"))
    write_manifest(
        tmp_path / "m.jsonl",
        [
            Utterance(f"u{number}", str(file), 1.0, speaker=speaker, split=split)
            for number, (file, (speaker, split)) in enumerate(zip(files, rows))
        ],
    )
    return ("probe", "mel", "--data", tmp_path / "m.jsonl", "--task", "label:speaker", "--out", tmp_path / "probe")


def test_one_speaker_only(tmp_path):
    sentence = r"task label:speaker: one class only \('a'\) in \d+ training utterances, expected at least two"
    refuses(3, sentence, *labelled(tmp_path, [("a", None)] * 12))


def test_a_class_that_only_test_has(tmp_path):
    split = [("x", "train"), ("y", "train"), ("x", "dev"), ("y", "test"), ("z", "test"), ("x", "test")]
    words = labelled(tmp_path, split)
    rows = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps({**row, "mood": row["speaker"]}) + "\n" for row in rows))
    words = [*words[:5], "label:mood", *words[6:]]
    refuses(3, r"1 classes occur in test but not in train: 'z' \(1 utterances\).*unseen=drop", *words)
    quick = ("--set", "unseen=drop", "--set", "seeds=1", "--set", "frozen.updates=2", "--json")
    assert json.loads(works(*words, *quick))["unseen"] == {"z": 1}


def test_extraction_names_what_it_leaves_out(tmp_path):
    data = corpus(tmp_path / "data", 4, bad=1)
    said = works("extract", "mel", "--data", data, "--out", tmp_path / "out")
    assert "s0/000.wav: empty (0 bytes)" in said and "3 written" in said


# ---- ranks


def ranks(words, folder, prepare=None, hurt=lambda rank: None):
    """Run a command as two ranks; return what each said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = [str(word) for word in words]
    processes = [
        forked(rank_of, words, folder / f"said-{rank}", {**shared, "RANK": rank, "LOCAL_RANK": rank}, hurt)
        for rank in "01"
    ]
    for process in processes:
        process.join(90)
    return [(process.exitcode, (folder / f"said-{rank}").read_text()) for rank, process in enumerate(processes)]


def rank_of(words, said, environment, hurt):
    os.environ.update(environment)
    hurt(environment["RANK"])
    found = mockingjay(*words)
    said.write_text(found.out + found.err)
    os._exit(found.code)


def test_two_ranks_are_one(speech, tmp_path):
    still = ("--set", "objective.encoder.context.dropout=0", "--set", "objective.encoder.context.attention_dropout=0")
    works(*command(speech, tmp_path / "one", 6, *still))
    (first, said), (second, silent) = ranks(command(speech, tmp_path / "two", 6, *still), tmp_path)
    assert (first, second, silent) == (0, 0, "") and "encoder: " in said
    files = [{path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*")} for name in ("one", "two")]
    assert files[0] == files[1]
    one, two = (load_file(tmp_path / name / "encoder" / "model.safetensors") for name in ("one", "two"))
    assert all((one[name] - two[name]).abs().max() <= 1e-5 for name in one)
    rows = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert [row["step"] for row in rows[1]] == list(range(7))
    for row, other in zip(*rows):
        torch.testing.assert_close(row["validation"], other["validation"], rtol=1e-5, atol=1e-6)
        assert row.get("loss", 0) == pytest.approx(other.get("loss", 0), rel=1e-5)


def test_a_signal_to_one_rank_stops_both(speech, tmp_path):
    found = ranks(command(speech, tmp_path / "run", 400), tmp_path, hurt=interrupt_rank_1)
    assert [code for code, _ in found] == [143, 143], found
    step = int(re.search(r"stopped at step (\d+);", found[0][1])[1])
    assert checkpoint.load(tmp_path / "run" / "checkpoints" / f"step-{step:06d}").step == step < 400
    assert not (tmp_path / "run" / "encoder").exists()


def interrupt_rank_1(rank):
    if rank == "1":
        Mockingjay.forward = stopping(Mockingjay, TRIAL + 8, signal.SIGTERM)


def test_what_any_rank_refuses_is_listed(speech, tmp_path):
    words = command(speech, tmp_path / "run", 4, "--set", "upkeep.refused=0.5")
    found = ranks(words, tmp_path, hurt=deafen_rank_1)
    assert [code for code, _ in found] == [0, 0], found
    listed = [row["id"] for row in quarantined(tmp_path / "run")]
    assert listed and all(id.startswith("s3/") for id in listed) and len(set(listed)) == len(listed)


def deafen_rank_1(rank):
    read = audio.read

    def breaking(path, start=0.0, seconds=None):
        if rank == "1" and "/s3/" in str(path):
            raise audio.AudioError(f"{path}: gone, expected audio; bring it back", kind="missing", path=str(path))
        return read(path, start, seconds)

    audio.read = breaking


def test_the_other_rank_does_not_wait_for_one_that_failed(speech, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    read, write = os.pipe()
    holder = forked(hold, out, write)
    assert os.read(read, 1) == b"."
    (first, said), (second, other) = ranks(command(speech, out), tmp_path)
    holder.kill()
    assert first == 5 and "another run is writing here" in said
    assert second == 5 and re.search(r"MachineError: rank 1 of 2: another rank is gone \(.*\), expected", other), other


def test_a_run_is_for_one_process(speech, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    refuses(2, "run: started by torchrun as several processes", "run", speech, "--out", tmp_path / "run")
    options = ("--data", speech, "--out", tmp_path / "run")
    refuses(2, "compare: started by torchrun as several processes", "compare", *options)
    refuses(2, "probe: started by torchrun as several processes", "probe", "mel", *options)
    run = importlib.import_module("mockingjay.run").run
    with pytest.raises(ConfigError, match="run: started by torchrun as several processes, expected one"):
        run(settings("mockingjay", "nano"), open_corpus(speech), tmp_path / "run", budget=None)
    assert not (tmp_path / "run").exists()
