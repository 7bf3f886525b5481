import copy
import json
import os
import socket
from pathlib import Path

import pytest
import torch
from toy_learner import forked

from mockingjay.core.config import Config as Table
from mockingjay.core.errors import CheckpointError, ConfigError, MachineError
from mockingjay.train import ledger
from mockingjay.train.loop import Run


class Upkeep(Table):
    save_every: int = 100


class Settings(Table):
    train: Run.Config = Run.Config()
    upkeep: Upkeep = Upkeep()
    save_every: int = 100


RARER = Settings(upkeep=Upkeep(save_every=7))


def take(folder: Path, out: Path) -> None:
    try:
        with ledger.locked(folder):
            out.write_text("mine")
    except MachineError as error:
        out.write_text(str(error))


def test_a_folder_is_one_runs_at_a_time(tmp_path):
    folder = tmp_path / "run"
    with ledger.locked(folder):
        forked(take, folder, tmp_path / "told").join(60)
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    assert (tmp_path / "told").read_text() == (
        f"{folder}: another run is writing here ({holder}), expected a folder of its own; "
        "wait for it or choose another --out"
    )
    forked(take, folder, tmp_path / "told").join(60)
    assert (tmp_path / "told").read_text() == "mine"


def test_a_lock_of_the_dead_is_taken_over(tmp_path):
    (tmp_path / ".lock").write_text("process 999999 on elsewhere\n")
    with ledger.locked(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
    with ledger.locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot be written"), ledger.locked(tmp_path / "file" / "run"):
        pass


def test_a_folder_keeps_its_settings(tmp_path):
    ledger.claim(tmp_path, Settings(), "abc")
    ledger.claim(tmp_path, RARER, "abc")
    assert "save_every = 7" in (tmp_path / "config.toml").read_text()
    changed = Settings(train=Run.Config(learning_rate=0.1, seed=3), save_every=7)
    with pytest.raises(ConfigError) as caught:
        ledger.claim(tmp_path, changed, "abc")
    assert str(caught.value) == (
        f"{tmp_path}: holds a run with other settings (save_every, train.learning_rate, train.seed), expected those "
        "in its config.toml; take them back or choose another --out"
    )
    with pytest.raises(ConfigError, match=r"holds a run on another corpus \(abc\), expected .* \(abd\)"):
        ledger.claim(tmp_path, RARER, "abd")
    record = json.loads((tmp_path / "provenance.json").read_text())
    assert record["data"] == "abc" and len(record["starts"]) == 2


def test_a_folder_keeps_its_beginning(tmp_path):
    one, two = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    init = ledger.beginning(one)
    assert (
        init == ledger.beginning(copy.deepcopy(one)) != ledger.beginning(two)
        and ledger.beginning(None) == "random weights"
    )
    ledger.claim(tmp_path, Settings(), "abc", init)
    ledger.claim(tmp_path, Settings(), "abc", init)
    ledger.check(tmp_path, Settings())
    with pytest.raises(ConfigError) as caught:
        ledger.claim(tmp_path, Settings(), "abc", ledger.RANDOM)
    assert str(caught.value) == (
        f"{tmp_path}: holds a run that began with an encoder's ({init[:12]}), expected the same and not random "
        "weights; give the same --init or choose another --out"
    )
    record = json.loads((tmp_path / "provenance.json").read_text())
    assert record.pop("init") == init and len(record["starts"]) == 2
    (tmp_path / "provenance.json").write_text(json.dumps(record))  # of an older version
    ledger.claim(tmp_path, Settings(), "abc", ledger.RANDOM)


def test_a_damaged_record_is_told(tmp_path):
    ledger.claim(tmp_path, Settings(), "abc")
    (tmp_path / "provenance.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"provenance\.json: damaged"):
        ledger.claim(tmp_path, Settings(), "abc")
    (tmp_path / "config.toml").write_text("= 3")
    (tmp_path / "provenance.json").write_text('{"data": "abc", "starts": []}')
    with pytest.raises(ConfigError, match=r"config\.toml: not the TOML this run wrote"):
        ledger.claim(tmp_path, Settings(), "abc")


def test_the_origin_has_versions_and_no_home():
    command = [str(Path.home() / "bin" / "mockingjay"), "pretrain", "--data", str(Path.home() / "speech")]
    found = ledger.origin(command)
    assert found["command"] == ["mockingjay", "pretrain", "--data", "~/speech"]
    assert set(found["versions"]) >= {"torch", "mockingjay-speech"}
    assert found["commit"] is None or len(found["commit"]) == 40
    assert str(Path.home()) not in json.dumps(found)


@pytest.mark.parametrize(
    ("home", "said"), [("/home/ann", "--data=~/x"), ("/", "--data=/home/ann/x"), ("/home/an", "--data=/home/ann/x")]
)
def test_the_origin_in_homes_of_all_kinds(monkeypatch, home, said):
    monkeypatch.setenv("HOME", home)
    assert ledger.origin(["m", "--data=/home/ann/x"])["command"][1] == said


def test_the_origin_of_the_homeless(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where the user has no entry in the password file
    assert ledger.origin(["m", "/a~/b"])["command"][1] == "/a~/b"


def test_the_commit_is_read_from_the_checkout(tmp_path):
    (tmp_path / ".git" / "refs" / "heads").mkdir(parents=True)
    (tmp_path / "src").mkdir()
    assert ledger._commit(tmp_path / "src") is None
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    assert ledger._commit(tmp_path / "src") is None
    (tmp_path / ".git" / "refs" / "heads" / "main").write_text("a" * 40 + "\n")
    assert ledger._commit(tmp_path / "src") == "a" * 40
    (tmp_path / ".git" / "HEAD").write_text("b" * 40 + "\n")
    assert ledger._commit(tmp_path / "src") == "b" * 40


def test_metrics_hold_each_step_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = ledger.Metrics(path, 0)
    for step in range(1, 8):
        first.append({"step": step, "loss": 1 / step})
    first.sync()
    first.close()
    path.write_bytes(path.read_bytes() + b'{"step": 2, "lo')  # torn by a kill
    second = ledger.Metrics(path, 4)
    for step in range(5, 10):
        second.append({"step": step, "loss": 1 / step})
    second.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == list(range(1, 10))
    ledger.Metrics(path, 0).close()
    assert path.read_text() == ""


def test_metrics_on_a_full_disk(tmp_path):
    metrics = ledger.Metrics(tmp_path / "metrics.jsonl", 0)
    metrics.close()
    with Path("/dev/full").open("ab", buffering=0) as full:
        metrics._file = full
        with pytest.raises(MachineError, match=r"metrics\.jsonl: disk full"):
            metrics.append({"step": 1})
