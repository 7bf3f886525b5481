import os
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from speech_like import batch_of
from still_objective import CASES, by_one_speaker, rows_of, still_objective
from toy_learner import Toy, forked, speak, utterances

from mockingjay import audio
from mockingjay.core.errors import ConfigError, MachineError
from mockingjay.data.batches import BatchPlan, Loader
from mockingjay.train.distributed import Group, device_called, joined
from mockingjay.train.loop import Run


def train(out: Path, accumulate: int, slots: int, environment: dict[str, str]) -> None:
    """Train 20 steps as one rank of those the environment names, and write what came of it."""
    os.environ.update(environment)
    audio.read = speak
    with joined("cpu") as group:
        # No dropout: its numbers are drawn per rank.
        run = Run(Toy(0.0), Run.Config(steps=20, learning_rate=0.01, accumulate=accumulate), "cpu", group)
        plan = BatchPlan(utterances(40), BatchPlan.Config(seconds=6.0), slots)
        loader = Loader(plan, rank=group.rank, ranks=group.ranks, workers=0)
        ticks = list(run.ticks(loader.steps()))
        assert group.any(group.rank == group.ranks - 1) and not group.any(False)
        assert group.agree(float(group.rank + 7)) == 7.0
        figures = [[tick.loss, tick.grad_norm, tick.audio_seconds, tick.padding] for tick in ticks]
        if group.writes:
            save_file({**run.learner.state_dict(), "figures": torch.tensor(figures)}, out)


def environments() -> list[dict[str, str]]:
    """What torchrun would tell each of two ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"]


def test_two_ranks_are_one_rank_are_accumulation(tmp_path, monkeypatch):
    """2 ranks × 4 utterances, 1 rank × 8 and accumulation 2 × 4, on uneven lengths, after 20 steps."""
    monkeypatch.setattr(audio, "read", speak)
    ranks = [forked(train, tmp_path / "ranks", 1, 2, environment) for environment in environments()]
    train(tmp_path / "whole", 1, 1, {})
    train(tmp_path / "accumulated", 2, 2, {})
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    found = {name: load_file(tmp_path / name) for name in ("ranks", "whole", "accumulated")}
    padded_alike = slice(0, 3)  # a whole batch is padded to its longest, halves each to theirs
    for name, value in found["whole"].items():
        for other in ("ranks", "accumulated"):
            if name == "figures":
                assert torch.allclose(value[:, padded_alike], found[other][name][:, padded_alike], rtol=1e-5), other
            else:
                assert (value - found[other][name]).abs().max() <= 1e-5, (other, name)
    assert torch.allclose(found["ranks"]["figures"], found["accumulated"]["figures"], rtol=1e-5)


def learn(out: Path, environment: dict[str, str]) -> None:
    """Train every case for two steps as one rank of those the environment names, and write its weights and losses."""
    os.environ.update(environment)
    with joined("cpu") as group:
        for case in CASES:
            run = Run(still_objective(case), Run.Config(steps=2, learning_rate=1e-3, warmup=0.0), "cpu", group)
            whole = [by_one_speaker(batch_of(seed=10 * step)) for step in range(2)]
            share = len(whole[0].utterances) // group.ranks
            own = slice(group.rank * share, (group.rank + 1) * share)
            losses = [tick.loss for tick in run.ticks((rows_of(batch, own),) for batch in whole)]
            if group.writes:
                save_file({**run.learner.state_dict(), "losses": torch.tensor(losses)}, out / case)


@pytest.mark.drill
def test_of_every_objective_two_ranks_are_one_where_it_says_so(tmp_path):
    """Two steps on four utterances of uneven lengths, or on two of them by each rank; and they are not where not."""
    (tmp_path / "ranks").mkdir()
    (tmp_path / "whole").mkdir()
    ranks = [forked(learn, tmp_path / "ranks", environment) for environment in environments()]
    learn(tmp_path / "whole", {})
    for process in ranks:
        process.join(120)
        assert process.exitcode == 0
    for case in CASES:
        objective = still_objective(case)
        before = objective.state_dict()
        whole, shared = (load_file(tmp_path / name / case) for name in ("whole", "ranks"))
        moved, apart = (
            max(float((whole[key] - other[key]).abs().max()) for key in dict(objective.named_parameters()))
            for other in (before, shared)
        )
        assert moved > 1e-3, case
        if objective.learns_from == "utterance":
            assert apart <= 1e-5, (case, apart)
            for key, value in whole.items():
                torch.testing.assert_close(shared[key], value, atol=1e-5, rtol=1e-5, msg=f"{case}: {key}")
        else:
            assert apart > 1e-5, (case, apart)


def test_alone_everything_is_a_no_op():
    with joined("cpu") as group:
        values = torch.ones(3)
        group.sum(values)
        assert values.tolist() == [1, 1, 1] and group.writes
        assert group.any(True) and not group.any(False)
        assert group.agree(0.25) == 0.25
        assert group.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("Connection closed by peer"), MachineError),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB."), torch.OutOfMemoryError),
        (RuntimeError("NCCL error: Cuda failure 2 'out of memory'"), RuntimeError),
    ],
)
def test_too_little_memory_is_no_lost_rank(error, told, monkeypatch):
    def fails(values):
        raise error

    monkeypatch.setattr(torch.distributed, "all_reduce", fails)
    with pytest.raises((MachineError, RuntimeError)) as caught:
        Group(rank=1, ranks=2).sum(torch.ones(1))
    assert type(caught.value) is told


def test_what_ranks_tell_each_other_between_steps_never_waits_for_the_device(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda values: seen.append(values.device.type))
    monkeypatch.setattr(torch.distributed, "broadcast", lambda values, source: seen.append(values.device.type))
    group = Group(ranks=2, device=torch.device("meta"))
    assert group.any(True) and not group.any(False) and group.agree(0.25) == 0.25
    assert seen == ["cpu", "cpu", "cpu"]


@pytest.mark.parametrize("name", ["gpu", "mps", "meta", "cpu:1", "cuda:", "cuda:-1", ""])
def test_what_is_no_device(name):
    with pytest.raises(ConfigError, match=f"device: '{name}' is no device, expected auto"), joined(name):
        pass


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MachineError, match="device: cuda is not on this machine, expected cpu; leave"), joined("cuda"):
        pass
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert device_called("auto") == device_called("cuda") == torch.device("cuda", 1)
    assert device_called("cuda:0") == torch.device("cuda", 0) and device_called("cpu") == torch.device("cpu")
    with pytest.raises(MachineError, match="device: cuda:2 is not on this machine, expected cpu or cuda:0 to cuda:1; "):
        device_called("cuda:2")


def test_ranks_without_an_address(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    sentence = r"rank 0 of 2: cannot join the others .*; start with torchrun"
    with pytest.raises(MachineError, match=sentence), joined("cpu"):
        pass
