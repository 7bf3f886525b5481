"""The promise: kill it anywhere, start the same command again, get the same bits.

Each run is a process of its own and is really killed. It is forked, for a fresh one would import torch for seconds.
Six trials in the suite; as many as one likes, over all objectives in turn, by

    pytest tests/faults/test_kills.py -k trial --trials 100
"""

import json
import os
import random
import signal
import time
from functools import lru_cache
from pathlib import Path

import pytest
from command import mockingjay, works
from speech_like import corpus
from test_pretrain import SMALL, final
from toy_learner import forked

from mockingjay.objectives import OBJECTIVES
from mockingjay.objectives.mockingjay import Mockingjay
from mockingjay.pretrain import TRIAL

STEPS = 24
SAVES = 4  # steps from one checkpoint to the next
PATIENCE = 600  # seconds for what takes two, where a machine has much else to do
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
WORST = {  # the process kills itself as the n-th file of this name is opened for writing
    "claim": ("provenance.json", 1),
    "metrics": ("metrics.jsonl", 1),
    "first save": ("optimizer.safetensors", 1),
    "last save": ("MANIFEST.json", STEPS // SAVES),
    "encoder": ("README.md", 1),
}


def words(objective, data, out):
    smaller = SMALL if objective == "mockingjay" else ("--preset", "nano", "--set", "batches.seconds=12")
    return [
        "pretrain", objective, *smaller, "--data", str(data), "--out", str(out), "--steps", str(STEPS),
        "--save-every", str(SAVES), "--set", "upkeep.validate_every=8",
        "--set", "upkeep.collapsed=tell",  # bits are compared, whatever they are worth
    ]  # fmt: skip


def started(data, out, objective="mockingjay"):
    """Start the command; return once its process has come to it."""
    begun = out.with_suffix(".begun")
    begun.unlink(missing_ok=True)
    process = forked(run, words(objective, data, out), out.with_suffix(".said"), begun)
    while process.is_alive() and not begun.exists():
        time.sleep(0.001)
    return process


def run(words, said, begun):
    os.setsid()  # a Ctrl-C of the tests' own is not meant for it
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup ignores
    begun.touch()
    found = mockingjay(*words)
    said.write_text(found.out + found.err)
    os._exit(found.code)


def finish(data, out, objective="mockingjay"):
    """Start the command and wait until it is through."""
    process = started(data, out, objective)
    process.join(PATIENCE)
    assert process.exitcode == 0, out.with_suffix(".said").read_text()


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    return corpus(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def whole(speech, tmp_path_factory):
    """An objective's uninterrupted run and the seconds it took."""

    @lru_cache
    def made(objective):
        out = tmp_path_factory.mktemp("whole") / "run"
        works(*words(objective, speech, out.with_name("first")), "--steps", 1)
        began = time.monotonic()  # what torch imports at its first step, the processes now have
        finish(speech, out, objective)
        return out, time.monotonic() - began

    return made


def check(out, whole):
    """Compare a run that was killed with one that was not."""
    assert final(out, STEPS) == final(whole, STEPS)
    weights = [(folder / "encoder" / "model.safetensors").read_bytes() for folder in (out, whole)]
    assert weights[0] == weights[1]
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


def test_trial(speech, whole, tmp_path, monkeypatch, trial):
    """One to three kills, at the worst moments or at any; each of the five worst is met in the first five trials."""
    dice, out = random.Random(trial), tmp_path / "run"
    objective = "mockingjay" if trial < 6 else list(OBJECTIVES)[trial % len(OBJECTIVES)]
    reference, seconds = whole(objective)
    for kill in range(dice.randint(1, 3)):
        moment = list(WORST)[trial] if trial < 5 and not kill else dice.choice([None, None, *WORST])
        with monkeypatch.context() as patch:
            if moment is not None:
                arm(patch, moment)
            process = started(speech, out, objective)
            if moment is not None:
                process.join(PATIENCE)
                assert process.exitcode in (-signal.SIGKILL, 0), out.with_suffix(".said").read_text()
                assert kill or trial >= 5 or process.exitcode != 0
                continue
        process.join(dice.uniform(0, 1) * seconds)
        number = dice.choice(SIGNALS)
        if process.is_alive():
            os.kill(process.pid, number)
        process.join(PATIENCE)
        assert process.exitcode in (-number, 128 + number, 0), out.with_suffix(".said").read_text()
    finish(speech, out, objective)
    check(out, reference)


def arm(patch, moment):
    """Have the process kill itself where a file of this name has been opened for writing and nothing is in it yet."""
    name, occurrence = WORST[moment]
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
    """It finishes its step, saves and goes; nothing is lost."""
    out, asking = tmp_path / "run", tmp_path / "asking"
    with monkeypatch.context() as patch:
        linger(patch, asking)
        process = started(speech, out)
    while process.is_alive() and not (out / "checkpoints" / f"step-{SAVES:06d}").exists():
        time.sleep(0.005)
    os.kill(process.pid, number)
    asking.touch()
    asked = time.monotonic()
    process.join(PATIENCE)
    assert process.exitcode == 128 + number, out.with_suffix(".said").read_text()
    assert time.monotonic() - asked < 60  # ten, where the machine has nothing else to do
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert (out / "checkpoints" / f"step-{last:06d}").is_dir() and not (out / "encoder").exists()
    if number == signal.SIGTERM:
        finish(speech, out)
        check(out, whole("mockingjay")[0])


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


def test_ten_resumes_in_a_row_within_one_epoch(speech, tmp_path, monkeypatch):
    """One step a start, and an epoch of at least twelve."""
    narrow = ("--set", "batches.seconds=1.5", "--set", "upkeep.log_every=1")
    straight, out = tmp_path / "straight", tmp_path / "run"
    works(*words("mockingjay", speech, straight), *narrow, "--steps", 12)
    forward = Mockingjay.forward

    def leaving(self, batch, progress, draw):
        if self.training and (out / "config.toml").exists():  # not in the trial of the estimate
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, batch, progress, draw)

    with monkeypatch.context() as patch:
        patch.setattr(Mockingjay, "forward", leaving)
        for start in range(1, 11):
            said = mockingjay(*words("mockingjay", speech, out), *narrow, "--steps", 12)
            assert said.code == 143 and f"stopped at step {start};" in said.out, said
    works(*words("mockingjay", speech, out), *narrow, "--steps", 12)
    assert final(out, 12) == final(straight, 12)
    losses = [
        [json.loads(line).get("loss") for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (straight, out)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 13


def test_there_is_no_worker_process_to_kill(speech, tmp_path, monkeypatch):
    """Readers are threads: they die with the run or not at all (what they meet is told by the run itself)."""
    forward, children = Mockingjay.forward, set()

    def looking(self, batch, progress, draw):
        for task in Path("/proc/self/task").iterdir():
            children.update((task / "children").read_text().split())
        return forward(self, batch, progress, draw)

    def failing(*_):
        raise ZeroDivisionError("a bug in a reader")

    before = {child for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()}
    threads = [*words("mockingjay", speech, tmp_path / "run"), "--set", "upkeep.workers=4", "--steps", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(Mockingjay, "forward", looking)
        works(*threads)
    assert children <= before
    monkeypatch.setattr("mockingjay.data.batches.Loader._wave", failing)
    with pytest.raises(ZeroDivisionError):
        mockingjay(*threads[:-1], "4", "--out", str(tmp_path / "other"))


def pytest_generate_tests(metafunc):
    if "trial" in metafunc.fixturenames:
        metafunc.parametrize("trial", range(metafunc.config.getoption("--trials")))
