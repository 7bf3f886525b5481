"""docs/legacy.md is true: its commands run as they stand there, made small by further options.

Among them TERA is trained on the features of `corpus fmllr`. What no option makes small is made so in its constants.
"""

import json
import re
import runpy
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command import works
from releases import Transformer, first_states
from test_table import CHANGES, tree

from mockingjay.core.config import overlay
from mockingjay.data.corpora import open_corpus
from mockingjay.data.manifest import write_manifest
from mockingjay.report import figures
from mockingjay.settings import settings
from mockingjay.studies.attention import plan, pruning, segments, summaries
from mockingjay.studies.attention import study as attention

TEXT = (Path(__file__).parents[1] / "docs" / "legacy.md").read_text("utf-8")
COMMANDS = re.findall(r"`mockingjay ([^`]+)`", TEXT)
PROGRAMS = re.findall(r"```python\n(.+?)```", TEXT, re.DOTALL)
DRAWN = ("plot", "attention", "labels")


def sets(*changes):
    return tuple(word for change in changes for word in ("--set", change))


CONTEXT = "objective.encoder.context"
SHORT = ("--steps", "1", *sets("batches.seconds=6", "batches.crop=1.5", f"{CONTEXT}.dim=16", f"{CONTEXT}.layers=1"))
BLOCKS = sets(f"{CONTEXT}.heads=2", f"{CONTEXT}.feedforward=16")
QUICK = sets("frozen.updates=2", "frozen.learning_rates=[1e-2]", "frozen.evaluations=1", "seeds=1", "unseen=drop")
FEW = CHANGES.replace('"', "'")
PROFILE = (
    *(f"{row}={{objective='mockingjay', preset='nano', changes=[{FEW}]}}" for row in ("base", "large")),
    f"apc={{objective='apc', preset='nano', changes=[{FEW}, 'objective.encoder.context.dim=64']}}",
    "speaker.least=8", "phone.utterances=16", "frame.seeds=1", "frame.frozen.updates=2",
    "frame.frozen.learning_rates=[1e-2]", "frame.live.learning_rates=[1e-3]", "labels.seeds=1",
    "labels.shares=[1.0, 0.5]",
)  # fmt: skip
SMALLER = {
    "pretrain mockingjay": (*SHORT, *BLOCKS),
    "pretrain tera": (*SHORT, *BLOCKS, *sets("objective.encoder.frontend.dim=8")),
    "pretrain apc": SHORT,
    "corpus fmllr": sets("coefficients=4", "gaussians=2", "updates=1", "rounds=1"),
    "probe": QUICK,
    "finetune": sets("seeds=1", "live.epochs=1", "unseen=drop"),
    "plot": ("--utterances", "1"),
    "attention": ("--budget", "2s"),
    "labels": sets(*PROFILE),
}


@pytest.fixture
def place(talking, tmp_path, monkeypatch):
    """A folder with what the commands name: both corpora, two files and a released model, all of them small."""
    utterances = [each for each in open_corpus(talking).utterances if each.seconds < 3][:20]
    voices = [
        replace(each, speaker=f"s{number % 2}", split="train" if number < 14 else "test")
        for number, each in enumerate(utterances)
    ]
    for corpus in ("LibriSpeech", "MOSEI"):
        (tmp_path / corpus).mkdir()
        write_manifest(tmp_path / corpus / "manifest.jsonl", voices)
    for name, each in zip(("one", "other"), utterances):
        shutil.copy(each.path, tmp_path / f"{name}.flac")
    torch.save(first_states(Transformer(160, 1)), tmp_path / "mockingjay-500000.ckpt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sketched(monkeypatch):
    """Empty canvases, and the least of attention: how pictures look and what is found is tested elsewhere."""
    save, few = figures._save, {"frozen": {"updates": 2, "evaluations": 1}}
    monkeypatch.setattr(figures, "_save", lambda canvas, *how, **more: save(figures.Canvas(), *how, **more))
    monkeypatch.setattr(pruning, "PROBES", {name: overlay(each, few) for name, each in pruning.PROBES.items()})
    monkeypatch.setattr(plan, "WEALTH", ((2, 1, (1,), 1),))
    monkeypatch.setattr(plan, "TRIED", 16)
    monkeypatch.setattr(attention, "TRIED", 16)
    monkeypatch.setattr(attention, "CANDIDATES", 1)
    monkeypatch.setattr(summaries, "MOST_POINTS", 128)
    monkeypatch.setattr(segments, "SETTINGS", segments.SETTINGS[::9])


def run(command):
    smaller = next((more for start, more in SMALLER.items() if command.startswith(start)), ())
    works(*shlex.split(command), *smaller)


def test_the_commands_and_the_programs_run(place):
    for command in COMMANDS:
        if not command.startswith(DRAWN):
            run(command)
    rows = [json.loads(file.read_text())[0] for file in sorted(place.glob("probes/*/results.json"))]
    assert len(rows) == 7 and {row["head"] for row in rows} == {"mlp2", "gru"}
    assert {row["task"] for row in rows} == {"phone", "label:speaker", "label:sentiment"}
    extracting, tuning = (place / f"{name}.py" for name in ("extracting", "tuning"))
    for file, program in zip((extracting, tuning), PROGRAMS, strict=True):
        file.write_text(program)
        assert len(program.splitlines()) <= 15
    found = runpy.run_path(str(extracting))
    assert found["tiled"].shape[1] == found["frames"].max() and not found["tiled"].requires_grad
    assert torch.equal(found["tiled"][:, 5], found["last"][:, 1])
    assert torch.equal(found["layers"][:, -1], found["last"]) and found["last"].shape[::2] == (2, 16)
    tuned = runpy.run_path(str(tuning))["encoder"]
    assert all(each.grad is not None and each.grad.isfinite().all() for each in tuned.parameters())


def test_the_commands_that_draw_run(place, talking, sketched):
    tree(place / "speech", talking)
    for command in COMMANDS:
        if command.startswith((*DRAWN, "pretrain mockingjay")) or "phone-mixed" in command:
            run(command)
    pictures = {str(path.relative_to(place / "pictures")) for path in (place / "pictures").rglob("*.*")}
    assert pictures > {"base/index.html", "base/curve.png", "base/rebuilt-1.png", "weights/weights.png"}
    assert "attention/report/index.html" in pictures and any(path.endswith(".wav") for path in pictures)
    assert (place / "runs" / "published" / "labels" / "results.csv").exists()


def test_every_verb_and_setting_named_is_there():
    assert len(COMMANDS) == 21 and len(PROGRAMS) == 2
    known = [settings("mockingjay", preset).model_dump() for preset in ("base", "large")]
    for path in re.findall(r"`((?:objective|batches|train|upkeep)\.[a-z_.]+)`", TEXT):
        found = known
        for key in path.split("."):
            found = [table[key] for table in found if key in table]
        assert found, path
    assert not [line for line in TEXT.splitlines() if "/home" in line or str(sys.prefix) in line]
