"""Ranks: a rank is a slice of the batch plan and a term in the sum of gradients, and nothing else.

Gradients are summed in one flat all-reduce after the last backward pass of a step instead of by
DistributedDataParallel. The loss is divided by the weight of the *global* batch, known only once all ranks have scored
theirs, so DDP's mean would have to be undone; the flat sum is exact, needs no wrapper around the learner and no search
for unused parameters. What it gives up is the overlap with the backward pass: a few milliseconds a step for models of
this size.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed
from jaxtyping import Float
from torch import Tensor

from mockingjay.core.errors import ConfigError, MachineError, lacks_memory

TIMEOUT = timedelta(minutes=10)  # for a rank that does not answer
_BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}


@dataclass(frozen=True, slots=True)
class Group:
    """The processes that train together; alone by default, when every method does nothing."""

    rank: int = 0
    ranks: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def writes(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def sum(self, values: Float[Tensor, "..."]) -> None:
        """Add up a tensor over ranks, in place."""
        if self.ranks > 1:
            with self._together():
                torch.distributed.all_reduce(values)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank, for example a request to stop."""
        if self.ranks == 1:
            return flag
        flags = torch.tensor(float(flag))  # on the host, which on CUDA need not wait for the step it has asked for
        self.sum(flags)
        return flags.item() > 0

    def agree(self, value: float) -> float:
        """Take rank 0's value, for what each rank has measured for itself."""
        if self.ranks == 1:
            return value
        values = torch.tensor(value, dtype=torch.float64)
        with self._together():
            torch.distributed.broadcast(values, 0)
        return values.item()

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if lacks_memory(error):
                raise
            raise MachineError(
                f"rank {self.rank} of {self.ranks}: another rank is gone ({str(error).splitlines()[0]}), expected all "
                "to stay to the end; look at what the others said and start the same command again"
            ) from error


def leads() -> bool:
    """Whether this process is the first of torchrun's, or alone; asked before the group is joined."""
    return int(os.environ.get("RANK", 0)) == 0


def alone() -> bool:
    """Whether torchrun has started no other process."""
    return int(os.environ.get("WORLD_SIZE", 1)) == 1


@contextmanager
def joined(device: str = "auto") -> Iterator[Group]:
    """Join the group that torchrun's environment names; without it, be alone.

    Args:
        device: "auto" is CUDA where there is one; see `device_called`.

    Raises:
        ConfigError: The device is none.
        MachineError: The device is not there, or the other ranks do not answer.
    """
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    own = device_called(device)
    if ranks == 1:
        yield Group(device=own)
        return
    try:
        torch.distributed.init_process_group(_BACKENDS[own.type], timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise MachineError(
            f"rank {rank} of {ranks}: cannot join the others ({error}), expected torchrun's MASTER_ADDR and "
            "MASTER_PORT; "
            "start with torchrun"
        ) from error
    try:
        yield Group(rank, ranks, own)
    finally:
        torch.distributed.destroy_process_group()


def device_called(name: str) -> torch.device:
    """Find a device, and make it this process's own.

    Args:
        name: "auto", "cpu", "cuda", which is the one of torchrun's local rank, or "cuda:<index>".

    Raises:
        ConfigError: The name is none of these.
        MachineError: There is no such device here.
    """
    if re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", name) is None:
        raise ConfigError(
            f"device: {name!r} is no device, expected auto, cpu, cuda or cuda:<index>; choose one of them"
        )
    # Who wants the processor is not made to look for cards.
    count = torch.cuda.device_count() if name != "cpu" and torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", 0)) % max(count, 1)
    index = int(name.partition(":")[2] or local)
    if index >= count:
        there = f"cpu or cuda:0 to cuda:{count - 1}" if count else "cpu"
        raise MachineError(f"device: {name} is not on this machine, expected {there}; leave the device at auto")
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    return device
