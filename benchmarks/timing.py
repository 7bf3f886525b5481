"""Times several pieces of work against each other: interleaved in rounds, so that a busy machine slows all alike."""

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch


def interleave(
    works: Mapping[str, Callable[[], object]], rounds: int = 9, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each piece of work in each round, after one warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for round in range(rounds + 1):
        for name, work in works.items():
            start = clock()
            work()
            if round:
                seconds[name].append(clock() - start)
    return seconds


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "least": min(values), "greatest": max(values)}


def ratios(seconds: Mapping[str, list[float]], of: str, to: str) -> dict[str, float]:
    """Speed of one piece of work as a share of another's, formed inside each round."""
    return spread([base / own for own, base in zip(seconds[of], seconds[to])])


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "processor": torch.backends.cpu.get_cpu_capability(),
    }


def write(results: Mapping[str, object], path: Path | None) -> None:
    """Write results as JSON where a path is given."""
    if path is not None:
        path.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
