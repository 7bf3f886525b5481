"""How long and how much memory a run will take, found out by a few steps that leave no trace.

The same steps tell how much arithmetic a second of audio costs, and a large matrix product what the machine can do: a
run's utilisation is the one over the other. Counted is what is executed, of matrix products and convolutions.
"""

import copy
import itertools
import resource
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from mockingjay.core.learner import Learner
from mockingjay.core.types import Batch
from mockingjay.train.distributed import Group
from mockingjay.train.loop import Run, Tick
from mockingjay.train.precision import precision_of

_PRODUCT = {"cpu": 1024, "cuda": 8192}  # rows and columns of the product that the machine is measured with: 2 to 20 ms


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a step costs."""

    seconds: float  # per optimiser step
    memory: int  # bytes at the peak, of the device on CUDA and of the process on a CPU
    flops: float | None = None  # floating-point operations of all ranks' steps per second of audio; None: not countable
    peak: float = 0.0  # floating-point operations per second that large matrix products reach on all ranks together

    def steps(self, budget: float) -> int:
        """Turn a budget in seconds into a number of steps, at least 1."""
        return max(1, int(budget / self.seconds))

    def utilisation(self, tick: Tick) -> float | None:
        """What share of the machine's arithmetic a step made use of (MFU), 0–1; None where it cannot be counted."""
        return None if self.flops is None else self.flops * tick.audio_seconds / (tick.seconds * self.peak)


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
        steps: Micro-batches of a few steps of the plan; the first warms up and counts operations, and where there are
            more its time does not count.
        device: Where.
        group: All ranks must estimate together; rank 0's clock counts.

    Raises:
        TrainingError: A step was not finite.
    """
    device = torch.device(device)
    group = group or Group(device=device)
    cuda, source = device.type == "cuda", iter(steps)
    with torch.random.fork_rng([device] if cuda else []):
        first = next(source)
        began = time.perf_counter()
        flops = _operations(learner, config, first, device, group)
        seconds = [time.perf_counter() - began]
        if cuda:
            torch.cuda.reset_peak_memory_stats(device)
        # What is compiled, and what CUDA looks up once for every kind of kernel, must be warmed up again.
        again = cuda or config.compile == "on"
        if again:
            source = itertools.chain([first], source)
        # Read when all are done, so that the host can run ahead as it does in training.
        seconds += [tick.seconds for tick in list(Run(copy.deepcopy(learner), config, device, group).ticks(source))]
    memory = torch.cuda.max_memory_allocated(device) if cuda else _peak()
    counted = seconds[1 + again :] or seconds[-1:]
    return Estimate(group.agree(statistics.mean(counted)), memory, flops, _speed(config, device, group))


def _operations(
    learner: Learner, config: Run.Config, step: Sequence[Batch], device: torch.device, group: Group
) -> float | None:
    """Count the operations of a step per second of its audio, of matrix products and convolutions, as torch does."""
    run = Run(copy.deepcopy(learner), config.model_copy(update={"compile": "off"}), device, group)
    with _Operations() as counter:
        (tick,) = run.ticks([step])
    if any(isinstance(module, nn.RNNBase) for module in learner.modules()):
        return None  # their kernels are not counted
    total = torch.tensor(float(counter.total), dtype=torch.float64, device=device)
    group.sum(total)
    return total.item() / tick.audio_seconds


class _Operations(TorchDispatchMode):
    """Torch's FlopCounterMode without its table by module, and without importing the compiler for two seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # never compiled, so the compiler need not be told to keep out
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=found)
        return found


def _speed(config: Run.Config, device: torch.device, group: Group) -> float:
    """Measure operations per second in a large square product, the best of three."""
    size = _PRODUCT[device.type]
    matrix = torch.ones(size, size, dtype=precision_of(config.precision, device), device=device)
    seconds = []
    for _ in range(4):  # the first warms up
        began = time.perf_counter()
        _ = matrix @ matrix
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    total = torch.tensor(2.0 * size**3 / min(seconds), dtype=torch.float64, device=device)
    group.sum(total)
    return total.item()


def _peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
