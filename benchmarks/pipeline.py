"""FLAC → waves in batches: seconds of audio per CPU second, beside the ceiling of decoding alone, and memory.

Run: python benchmarks/pipeline.py [FOLDER of FLAC files]; without a folder it makes its own in a temporary one.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from mockingjay.core.types import Utterance
from mockingjay.data.batches import BatchPlan, Loader

FIGURE = 1300  # audio seconds per CPU second
MEGABYTE = 1e6


def make(folder: Path, hours: float) -> None:
    """Write FLACs of 2–20 s that compress as speech does: coloured noise in bursts."""
    generator = np.random.default_rng(0)
    left = hours * 3600
    number = 0
    while left > 0:
        seconds = generator.uniform(2, 20)
        noise = generator.standard_normal(round(seconds * 16_000))
        coloured = np.convolve(noise, np.exp(-np.arange(64) / 8), mode="same")
        bursts = np.repeat(generator.uniform(0.0, 1.0, len(noise) // 3200 + 1) ** 3, 3200)[: len(noise)]
        soundfile.write(folder / f"{number:05d}.flac", 0.05 * coloured * bursts, 16_000, subtype="PCM_16")
        left -= seconds
        number += 1


def scan(folder: Path) -> list[Utterance]:
    """List the FLAC files below a folder."""
    found = [(path, soundfile.info(path).duration) for path in sorted(folder.rglob("*.flac"))]
    return [Utterance(str(path.relative_to(folder)), str(path), seconds) for path, seconds in found]


def decoding(corpus: list[Utterance]) -> float:
    """Audio seconds per CPU second of libsndfile alone."""
    began = time.process_time()
    for utterance in corpus:
        soundfile.read(utterance.path, dtype="float32")
    return sum(utterance.seconds for utterance in corpus) / (time.process_time() - began)


def loading(loader: Loader, steps: int) -> tuple[float, float]:
    """Audio seconds per CPU second and per second of the pipeline."""
    cpu, wall, samples = time.process_time(), time.perf_counter(), 0
    for batches in itertools.islice(loader.steps(), steps):
        samples += sum(int(batch.waves.lengths.sum()) for batch in batches)
    seconds = samples / 16_000
    return seconds / (time.process_time() - cpu), seconds / (time.perf_counter() - wall)


def resident() -> float:
    """Memory in use now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE


def measure(folder: Path, workers: int, rounds: int) -> dict[str, float]:
    """Measure the ceiling and the pipeline in turns."""
    corpus = scan(folder)
    plan = BatchPlan(corpus, BatchPlan.Config(seconds=88.0, crop=20.0))
    before = resident()
    ceilings, rates, walls, memory = [], [], [], []
    for _ in range(rounds):
        ceilings.append(decoding(corpus))
        rate, wall = loading(Loader(plan, workers=workers), plan.steps_per_epoch)
        rates.append(rate)
        walls.append(wall)
        memory.append(resident())
    return {
        "audio_seconds_per_cpu_second": statistics.median(rates),
        "audio_seconds_per_second": statistics.median(walls),
        "decoding_alone": statistics.median(ceilings),
        "share_of_decoding": statistics.median(rate / ceiling for rate, ceiling in zip(rates, ceilings)),
        "spread": max(rates) - min(rates),
        "memory_grown_mb": max(memory) - before,
        "memory_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE,
        "hours": sum(utterance.seconds for utterance in corpus) / 3600,
        "workers": workers,
        "figure": FIGURE,
        "reached": statistics.median(rates) >= FIGURE,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hours", type=float, default=0.5, help="of audio to make where no folder is given")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        if asked.folder is None:
            make(Path(made), asked.hours)
        result = measure(asked.folder or Path(made), asked.workers, asked.rounds)
    print(json.dumps(result, indent=2))
    print(
        f"pipeline {result['audio_seconds_per_cpu_second']:.0f} audio s per CPU s (figure ≥ {FIGURE}), "
        f"{result['share_of_decoding']:.0%} of decoding alone; memory grew by {result['memory_grown_mb']:.0f} MB"
    )


if __name__ == "__main__":
    main()
