"""How long and how much memory a run will take, found out by a few steps that leave no trace."""

import copy
import resource
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from mockingjay.core.learner import Learner
from mockingjay.core.types import Batch
from mockingjay.train.distributed import Group
from mockingjay.train.loop import Run


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a step costs."""

    seconds: float  # per optimiser step
    memory: int  # bytes at the peak, of the device on CUDA and of the process on a CPU

    def steps(self, budget: float) -> int:
        """Turn a budget in seconds into a number of steps, at least 1."""
        return max(1, int(budget / self.seconds))


def estimate(
    learner: Learner,
    config: Run.Config,
    steps: Iterable[Sequence[Batch]],
    device: torch.device | str = "cpu",
    group: Group | None = None,
) -> Estimate:
    """Time steps on a copy of the learner; its weights and the random generators stay as they are.

    Args:
        learner: What is to be trained.
        config: As it will be trained.
        steps: Micro-batches of a few steps of the plan; the first warms up and, where there are more, is not counted.
        device: Where.
        group: All ranks must estimate together; rank 0's clock counts.
    """
    device = torch.device(device)
    group = group or Group(device=device)
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    with torch.random.fork_rng([device] if cuda else []):
        seconds = []
        began = time.perf_counter()
        for tick in Run(copy.deepcopy(learner), config, device, group).ticks(steps):
            assert tick.grad_norm >= 0  # reading it waits for the device
            began, last = time.perf_counter(), began
            seconds.append(began - last)
    memory = torch.cuda.max_memory_allocated(device) if cuda else _peak()
    return Estimate(group.agree(statistics.mean(seconds[1:] or seconds)), memory)


def _peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
