import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from toy_learner import Toy, forked, speak, utterances

from mockingjay import audio
from mockingjay.core.errors import CheckpointError, MachineError
from mockingjay.data.batches import BatchPlan, Loader
from mockingjay.train import checkpoint
from mockingjay.train.checkpoint import Checkpoint
from mockingjay.train.ledger import Metrics
from mockingjay.train.loop import Run


def made(step: int, size: int = 50) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    weights = torch.randn(size, 3, generator=generator)
    moments = {f"a.weight.{name}": torch.randn(size, 3, generator=generator) for name in ("exp_avg", "exp_avg_sq")}
    return Checkpoint(
        step, {"a.weight": weights}, {**moments, "a.weight.step": torch.tensor(float(step))}, {"best": 0.5}
    )


def whole(found: Checkpoint | None) -> bool:
    """Whether a loaded checkpoint is the one made for its step, bit for bit."""
    if found is None:
        return False
    expected = made(found.step)
    pairs = [(found.model, expected.model), (found.optimiser, expected.optimiser)]
    same = all(a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in pairs)
    return same and found.notes == expected.notes


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_saves_and_loads(tmp_path):
    path = checkpoint.save(tmp_path / "checkpoints", made(1200))
    assert path.name == "step-001200"
    assert names(path) == ["MANIFEST.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    assert whole(checkpoint.load(path))
    assert whole(checkpoint.load_latest(tmp_path / "checkpoints", pytest.fail))
    assert checkpoint.load_latest(tmp_path / "none", pytest.fail) is None


def test_writes_plain_safetensors_of_every_type(tmp_path):
    shared = torch.arange(12.0).view(3, 4)
    tensors = {
        "odd name: é": torch.tensor(3, dtype=torch.int64),
        "flags": torch.tensor([True, False, True]),
        "half": torch.randn(5).to(torch.bfloat16),
        "double": torch.randn(2, 2, dtype=torch.float64),
        "bytes": torch.arange(7, dtype=torch.uint8),
        "transposed": shared.t(),
        "view": shared[1:],
        "nothing": torch.zeros(0, 4),
        "tied": torch.nn.Parameter(shared),
    }
    path = checkpoint.save(tmp_path, Checkpoint(0, tensors, {}))
    found = safetensors.torch.load_file(path / "model.safetensors")
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value)
    assert checkpoint.load(path).optimiser == {}


def test_keeps_the_newest_two_and_sweeps_what_a_killed_writer_left(tmp_path):
    (tmp_path / ".tmp-1-abc").mkdir()
    for step in (1, 2, 10, 9_999_999):
        checkpoint.save(tmp_path, made(step))
    checkpoint.sweep(tmp_path)
    assert names(tmp_path) == ["step-000010", "step-9999999"]
    checkpoint.save(tmp_path, made(10_000_000), keep=3)
    assert len(names(tmp_path)) == 3


def test_a_save_reads_each_checkpoint_once(tmp_path, monkeypatch):
    read, damage = [], checkpoint.damage
    monkeypatch.setattr(checkpoint, "damage", lambda path: read.append(path.name) or damage(path))
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, made(step))
    assert read == ["step-000001", "step-000002", "step-000001", "step-000003", "step-000002"]


def test_what_a_killed_writer_had_no_time_to_retire_goes_at_the_next_start(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path / "checkpoints", made(step), keep=3)
    checkpoint.sweep(tmp_path, keep=3)
    assert len(names(tmp_path / "checkpoints")) == 3
    checkpoint.sweep(tmp_path)
    assert names(tmp_path / "checkpoints") == ["step-000002", "step-000003"]


def test_saving_the_same_step_again_changes_nothing(tmp_path):
    checkpoint.save(tmp_path, made(5))
    before = (tmp_path / "step-000005" / "MANIFEST.json").stat().st_ino
    checkpoint.save(tmp_path, made(5))
    assert (tmp_path / "step-000005" / "MANIFEST.json").stat().st_ino == before


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(tmp_path):
    checkpoint.save(tmp_path, made(4))
    (checkpoint.save(tmp_path, made(5)) / "state.json").write_text("{}")
    checkpoint.save(tmp_path, made(5))
    assert whole(checkpoint.load_latest(tmp_path, pytest.fail))
    checkpoint.sweep(tmp_path)
    assert names(tmp_path) == ["step-000004", "step-000005"]


# ---- damage


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    checkpoint.save(folder, made(1))
    checkpoint.save(folder, made(2))
    return folder


FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json")


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_noticed(pair, name):
    path = pair / "step-000002" / name
    content = path.read_bytes()
    chooser = random.Random(0)
    try:
        for _ in range(250):  # of each of four files: a thousand places
            spoiled = bytearray(content)
            spoiled[chooser.randrange(len(content))] ^= 1 << chooser.randrange(8)
            path.write_bytes(spoiled)
            told: list[str] = []
            found = checkpoint.load_latest(pair, told.append)
            assert found is not None and found.step == 1 and whole(found)
            assert len(told) == 1 and told[0].endswith("; going on from step-000001")
            assert name in told[0] or name == "MANIFEST.json"  # whose sums are as good as its files' own
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_every_cut_is_noticed(pair, name):
    path = pair / "step-000002" / name
    content = path.read_bytes()
    try:
        for size in [0, 1, 7, 8, 9, len(content) - 1, *range(20, len(content), -(-len(content) // 45))][:50]:
            path.write_bytes(content[:size])
            told: list[str] = []
            found = checkpoint.load_latest(pair, told.append)
            assert found is not None and found.step == 1
            expected = "damaged" if name == "MANIFEST.json" else f"is cut at {size} of {len(content)} bytes"
            assert expected in told[0]
    finally:
        path.write_bytes(content)


def test_where_none_is_whole(tmp_path):
    paths = [checkpoint.save(tmp_path, made(step)) for step in (1, 2)]
    for path in paths:
        (path / "model.safetensors").unlink()
    expected = (
        f"{tmp_path}/step-000002: model.safetensors cannot be read (No such file or directory), expected the file that "
        "was "
        "saved; remove this folder to use an older one; none of the 2 checkpoints is whole"
    )
    with pytest.raises(CheckpointError, match=re.escape(expected)):
        checkpoint.load_latest(tmp_path, print)


def test_a_renamed_or_later_format_is_refused(tmp_path):
    path = checkpoint.save(tmp_path, made(1))
    moved = path.rename(tmp_path / "step-000007")
    with pytest.raises(CheckpointError, match=r"step-000007: MANIFEST\.json is damaged"):
        checkpoint.load(moved)
    manifest = json.loads((moved / "MANIFEST.json").read_text())
    (moved / "MANIFEST.json").write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(CheckpointError, match=r"MANIFEST\.json has format 2, this version writes 1"):
        checkpoint.load(moved)


def test_what_does_not_read_back_is_told_and_older_ones_stay(tmp_path, monkeypatch):
    for step in (1, 2):
        checkpoint.save(tmp_path, made(step))
    real = checkpoint.damage
    monkeypatch.setattr(checkpoint, "damage", lambda *_: "state.json does not match its SHA-256")
    with pytest.raises(CheckpointError, match=r"step-000003: state\.json does not .*, right after it was written"):
        checkpoint.save(tmp_path, made(3))
    monkeypatch.setattr(checkpoint, "damage", real)
    assert names(tmp_path) == ["step-000001", "step-000002", "step-000003"]


# ---- crash consistency


class PowerCut(BaseException):
    """Stops the writer as a power cut would: nothing after it happens."""


class Machine:
    """Counts what a writer asks of the disk, and stops before the n-th request."""

    def __init__(self, monkeypatch, limit: int) -> None:
        self.done: list[str] = []
        self.limit = limit
        for where, name in [
            (os, "fsync"),
            (os, "rename"),
            (os, "unlink"),
            (os, "rmdir"),
            (os, "mkdir"),
            (checkpoint, "_write"),
        ]:
            monkeypatch.setattr(where, name, self._counted(name, getattr(where, name)))
        # A dead writer tidies nothing up.
        monkeypatch.setattr(checkpoint.shutil, "rmtree", self._counted_rmtree(shutil.rmtree))

    def _count(self, name: str) -> None:
        if len(self.done) >= self.limit:
            raise PowerCut
        self.done.append(name)

    def _counted(self, name, real):
        def counted(*args, **kwargs):
            if name == "_write":
                self._torn(*args)
            self._count(name)
            return real(*args, **kwargs)

        return counted

    def _torn(self, path, chunks):
        """A cut in the middle of a write leaves half a file."""
        if len(self.done) == self.limit:
            Path(path).write_bytes(b"half a file")

    def _counted_rmtree(self, real):
        def counted(path, ignore_errors=False):
            if len(self.done) >= self.limit:
                raise PowerCut
            return real(path, ignore_errors=ignore_errors)

        return counted


def requests(tmp_path, limit: int, monkeypatch) -> list[str] | None:
    """Save step 3 over steps 1 and 2 with a cut; the requests made, and None once the limit was not reached."""
    with monkeypatch.context() as patched:
        machine = Machine(patched, limit)
        try:
            checkpoint.save(tmp_path, made(3))
        except PowerCut:
            return machine.done
    return None


def test_at_every_cut_the_old_or_the_new_checkpoint_is_whole(tmp_path, monkeypatch):
    cuts = 0
    for limit in itertools.count():
        folder = tmp_path / str(limit)
        for step in (1, 2):
            checkpoint.save(folder, made(step))
        done = requests(folder, limit, monkeypatch)
        found = checkpoint.load_latest(folder, pytest.fail)
        assert whole(found) and found.step in (2, 3), done
        whole_ones = [path for path in folder.glob("step-*") if checkpoint.damage(path) is None]
        assert len(whole_ones) >= 2, done
        checkpoint.sweep(folder)
        checkpoint.save(folder, made(4))
        assert names(folder)[-1] == "step-000004" and len(names(folder)) == 2
        if done is None:
            break
        cuts += 1
    assert cuts >= 15


def test_what_is_lost_with_the_power_costs_no_checkpoint(tmp_path, monkeypatch):
    """The same with the page cache gone: files without their fsync are empty, folders without theirs are as before."""
    for limit in itertools.count():
        folder = tmp_path / str(limit)
        for step in (1, 2):
            checkpoint.save(folder, made(step))
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        done = requests(folder, limit, monkeypatch)
        lose(folder, before, done)
        found = checkpoint.load_latest(folder, lambda text: None)
        assert whole(found) and found.step in (2, 3), done
        if done is None:
            break


def lose(folder: Path, before: dict[Path, bytes], done: list[str] | None) -> None:
    """Empty what the requests made so far have not synced, and undo what they have renamed without syncing it."""
    made_so_far = [] if done is None else done
    synced = 4 if done is None or "rename" in made_so_far else made_so_far.count("fsync")
    for path in {path for path in folder.rglob("*") if path.is_file()} - before.keys():
        order = (*FILES[:3], "MANIFEST.json")
        if order.index(path.name) >= synced:
            path.write_bytes(b"")
    if done is not None and "rename" in done and done[-1] == "rename":
        shutil.rmtree(folder / "step-000003")


def test_files_reach_the_disk_before_the_name_does(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, made(1))
    machine = Machine(monkeypatch, 10**9)
    checkpoint.save(tmp_path, made(2))
    # Four files with their fsync, the folder's fsync, the rename, the parent's fsync.
    assert machine.done == ["mkdir", *(["_write", "fsync"] * 4), "fsync", "rename", "fsync"]


# ---- the disk


def save_with_little_room(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        checkpoint.save(folder, made(2, 5_000))
    except MachineError as error:
        (folder.parent / "told").write_text(str(error))
        sys.exit(error.exit_code)


def test_disk_full_leaves_the_old_checkpoint_and_no_trace(tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoint.save(folder, made(1))
    process = forked(save_with_little_room, folder)
    process.join(60)
    assert process.exitcode == 5
    text = (tmp_path / "told").read_text()
    expected = rf"{folder}/step-000002: file size limit reached, 0\.2 MB needed, [\d.]+ MB free; free some space .*"
    assert re.fullmatch(expected, text)
    assert names(folder) == ["step-000001"]
    assert whole(checkpoint.load_latest(folder, pytest.fail))


@pytest.mark.parametrize("share", range(20))
def test_a_disk_that_is_full_after_any_number_of_bytes(tmp_path, share):
    """Twenty sizes from nothing to all but the last byte of the largest file."""
    checkpoint.save(tmp_path, made(1))
    largest = 2 * 4 * 5_000 * 3
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest * share // 19, limits[1]))
    try:
        with pytest.raises(
            MachineError, match=r"step-000002: file size limit reached, 0\.2 MB needed, [\d.]+ MB free; "
        ):
            checkpoint.save(tmp_path, made(2, 5_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == ["step-000001"] and whole(checkpoint.load_latest(tmp_path, pytest.fail))
    assert checkpoint.load(checkpoint.save(tmp_path, made(2, 5_000))).step == 2


def test_clocks_do_not_matter(tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path, made(step))
    os.utime(tmp_path / "step-000001", (2**32, 2**32))
    os.utime(tmp_path / "step-000002", (0, 0))
    found = checkpoint.load_latest(tmp_path, pytest.fail)
    assert found is not None and found.step == 2
    checkpoint.save(tmp_path, made(3))
    assert names(tmp_path) == ["step-000002", "step-000003"]


@pytest.mark.parametrize("fails", ["_write", "sync_folder"])
@pytest.mark.parametrize(("number", "words"), [(28, "disk full"), (30, "Read-only"), (13, "Permission denied")])
def test_what_the_system_refuses_is_one_sentence(tmp_path, monkeypatch, fails, number, words):
    checkpoint.save(tmp_path, made(1))

    def refuse(*args):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, fails, refuse)
        with pytest.raises(MachineError, match=rf"step-000002: .*{words}"):
            checkpoint.save(tmp_path, made(2))
    assert names(tmp_path) == ["step-000001"]
    checkpoint.save(tmp_path, made(2))


def test_room_is_checked_before_the_start(tmp_path, monkeypatch):
    need = checkpoint.estimate_bytes(torch.nn.Linear(1000, 1000))
    assert need == 3 * 3 * 4 * (1_000_000 + 1000)
    folder = tmp_path / "run" / "checkpoints"
    checkpoint.check_room(folder, need)
    assert names(folder) == []
    with pytest.raises(MachineError, match=r"1000000000000\.0 MB needed for checkpoints, .* MB free; free"):
        checkpoint.check_room(folder, 10**18)
    held = sum(file.stat().st_size for file in checkpoint.save(folder, made(1)).iterdir())
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: SimpleNamespace(free=500))
    checkpoint.check_room(folder, held + 500)  # a run that is started again holds most of what it needs
    with pytest.raises(MachineError, match="needed for checkpoints"):
        checkpoint.check_room(folder, held + 501)
    monkeypatch.undo()
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot be written"):
        checkpoint.check_room(tmp_path / "file" / "checkpoints", 1)


# ---- a kill in the middle of a real run


def train(folder: Path) -> None:
    """Train 60 steps with a checkpoint every 4, going on from what is there."""
    audio.read = speak
    run = Run(Toy(0.2), Run.Config(steps=60, learning_rate=0.01))
    checkpoint.sweep(folder / "checkpoints")
    latest = checkpoint.load_latest(folder / "checkpoints", pytest.fail)
    if latest is not None:
        run.restore(latest)
    metrics = Metrics(folder / "metrics.jsonl", run.step)
    loader = Loader(BatchPlan(utterances(40), BatchPlan.Config(seconds=4.0)), workers=2)
    for tick in run.ticks(loader.steps(run.step)):
        metrics.append({"step": tick.step, "loss": tick.loss})
        if tick.step % 4 == 0:
            checkpoint.save(folder / "checkpoints", run.checkpoint())
    metrics.close()


@pytest.mark.parametrize("delay", [0.0, 0.004])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, delay):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    for folder in (straight, killed):
        (folder / "checkpoints").mkdir(parents=True)
    undisturbed, victim = forked(train, straight), forked(train, killed)
    deadline = time.monotonic() + 60
    while not (killed / "checkpoints" / "step-000012").exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(delay)
    victim.kill()
    victim.join(60)
    assert victim.exitcode == -signal.SIGKILL
    again = forked(train, killed)
    for process in (undisturbed, again):
        process.join(60)
        assert process.exitcode == 0
    for name in FILES:
        ends = [(folder / "checkpoints" / "step-000060" / name).read_bytes() for folder in (straight, killed)]
        assert ends[0] == ends[1]
    lines = [(folder / "metrics.jsonl").read_text() for folder in (straight, killed)]
    assert lines[0] == lines[1]
    assert [json.loads(line)["step"] for line in lines[0].splitlines()] == list(range(1, 61))
    assert names(killed / "checkpoints") == ["step-000056", "step-000060"]
