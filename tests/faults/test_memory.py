"""Memory, files and threads stay flat, however long it takes."""

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import toy_representation
from toy_learner import Toy, forked, speak, utterances

from mockingjay import audio
from mockingjay.data.batches import BatchPlan, Loader
from mockingjay.downstream import extract
from mockingjay.train import checkpoint
from mockingjay.train.loop import Run


def used():
    """Resident bytes, open files, threads."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resident, len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def settle(before, after):
    assert after[0] - before[0] < 30e6 and after[1:] == before[1:], (before, after)


def training(steps, folder):
    audio.read = speak
    run = Run(Toy(), Run.Config(steps=steps, learning_rate=0.001))
    loader = Loader(BatchPlan(utterances(40), BatchPlan.Config(seconds=6.0)), workers=2, cache=10**7)
    before = None
    for tick in run.ticks(loader.steps()):
        assert tick.loss > 0
        if tick.step % 20 == 0:
            checkpoint.save(folder, run.checkpoint())
        if tick.step == steps // 10:
            before = used()
        if tick.step == steps:
            settle(before, used())


@pytest.mark.parametrize("steps", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_steps(steps, tmp_path):
    process = forked(training, steps, tmp_path)
    process.join(600)
    assert process.exitcode == 0


def extracting(files, folder):
    spoken = toy_representation.speak(folder / "speech", count=20)
    renamed = [replace(spoken[number % 20], id=f"{number}") for number in range(files)]
    extract(toy_representation.Toy(), renamed[: files // 10], folder / "out")
    before = used()
    extract(toy_representation.Toy(), renamed, folder / "out")
    settle(before, used())


@pytest.mark.parametrize("files", [100, pytest.param(10_000, marks=pytest.mark.slow)])
def test_files(files, tmp_path):
    process = forked(extracting, files, tmp_path)
    process.join(600)
    assert process.exitcode == 0
