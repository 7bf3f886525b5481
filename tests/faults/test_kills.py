"""The promise: kill it anywhere, start the same command again, get the same bits.

Each run is a process of its own and is really killed. It is forked, for a fresh one would import torch for seconds.
"""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from command import mockingjay, works
from speech_like import corpus
from test_pretrain import SMALL, final
from toy_learner import forked

from mockingjay.objectives.mockingjay import Mockingjay
from mockingjay.pretrain import TRIAL

STEPS = 40


def started(data, out):
    words = [
        "pretrain", "mockingjay", *SMALL, "--data", data, "--out", out, "--steps", STEPS, "--save-every", 5,
        "--set", "upkeep.validate_every=10",
    ]  # fmt: skip
    return forked(run, [str(word) for word in words], out.with_suffix(".said"))


def run(words, said):
    os.setsid()  # a Ctrl-C of the tests' own is not meant for it
    found = mockingjay(*words)
    said.write_text(found.out + found.err)
    os._exit(found.code)


def finish(data, out):
    """Start the command and wait until it is through."""
    process = started(data, out)
    process.join(120)
    assert process.exitcode == 0, out.with_suffix(".said").read_text()


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    return corpus(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def whole(speech, tmp_path_factory):
    """An uninterrupted run and the seconds it took."""
    out = tmp_path_factory.mktemp("whole") / "run"
    works("pretrain", "mockingjay", *SMALL, "--data", speech, "--out", out.with_name("first"), "--steps", 1)
    began = time.monotonic()  # what torch imports at its first step, the processes now have
    finish(speech, out)
    return out, time.monotonic() - began


def check(out, whole):
    """Compare a run that was killed with one that was not."""
    assert final(out, STEPS) == final(whole, STEPS)
    assert (out / "encoder" / "model.safetensors").read_bytes() == (
        whole / "encoder" / "model.safetensors"
    ).read_bytes()
    rows, expected = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in (out, whole)
    )
    assert [row["step"] for row in rows] == list(range(STEPS + 1))
    assert [row.get("loss") for row in rows] == [row.get("loss") for row in expected]
    validated = {row["step"]: row["validation"] for row in expected if "validation" in row}
    assert {row["step"]: row["validation"] for row in rows if "validation" in row} == validated
    assert not [path for path in out.rglob("*") if path.name.startswith(".") and path.name != ".lock"]
    kept = {path.name for path in (out / "checkpoints").iterdir()}
    assert f"step-{STEPS:06d}" in kept and len(kept) == 2


@pytest.mark.parametrize("trial", [*range(2), *(pytest.param(trial, marks=pytest.mark.slow) for trial in range(2, 30))])
def test_killed_at_any_moment(speech, whole, tmp_path, trial):
    reference, seconds = whole
    dice, out = random.Random(trial), tmp_path / "run"
    for _ in range(2 + trial % 3):
        process = started(speech, out)
        process.join(dice.uniform(0.02, 0.7) * seconds)
        process.kill()
        process.join(10)
    finish(speech, out)
    check(out, reference)


@pytest.mark.parametrize("moment", ["claim", "metrics", "first save", "last save", "encoder"])
def test_killed_at_the_worst_moments(speech, whole, tmp_path, monkeypatch, moment):
    """Between the files of a start, inside a save, and between the last save and the encoder."""
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        arm(patch, moment)
        process = started(speech, out)
        process.join(120)
    assert process.exitcode == -signal.SIGKILL, out.with_suffix(".said").read_text()
    finish(speech, out)
    check(out, whole[0])


def arm(patch, moment):
    """Have the process kill itself where a file of this name is about to be written or renamed."""
    name, occurrence = {
        "claim": ("provenance.json", 1),
        "metrics": ("metrics.jsonl", 1),
        "first save": ("optimizer.safetensors", 1),
        "last save": ("MANIFEST.json", STEPS // 5),
        "encoder": ("README.md", 1),
    }[moment]
    opened, seen = Path.open, 0

    def opening(self, mode="r", *more, **named):
        nonlocal seen
        if mode in ("wb", "ab") and self.name.endswith(name):
            seen += 1
            if seen == occurrence:
                opened(self, mode).close()
                os.kill(os.getpid(), signal.SIGKILL)
        return opened(self, mode, *more, **named)

    patch.setattr(Path, "open", opening)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_asked_to_leave(speech, whole, tmp_path, monkeypatch, number):
    out, asking = tmp_path / "run", tmp_path / "asking"
    with monkeypatch.context() as patch:
        linger(patch, asking)
        process = started(speech, out)
    while process.is_alive() and not (out / "checkpoints" / "step-000005").exists():
        time.sleep(0.005)
    os.kill(process.pid, number)
    asking.touch()
    asked = time.monotonic()
    process.join(30)
    assert process.exitcode == 128 + number, out.with_suffix(".said").read_text()
    assert time.monotonic() - asked < 10
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert (out / "checkpoints" / f"step-{last:06d}").is_dir() and not (out / "encoder").exists()
    finish(speech, out)
    check(out, whole[0])


def linger(patch, asking):
    """Have the process wait in its eighth step until it has been asked, lest it be through before."""
    forward, count = Mockingjay.forward, 0

    def lingering(self, batch, progress, draw):
        nonlocal count
        count += self.training
        for _ in range(4_000 if count == TRIAL + 8 else 0):
            time.sleep(0 if asking.exists() else 0.005)
        return forward(self, batch, progress, draw)

    patch.setattr(Mockingjay, "forward", lingering)
