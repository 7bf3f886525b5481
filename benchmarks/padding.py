"""Padding in training batches, as a share of all frames: the plan's against batches of random utterances.

The corpus has durations spread evenly over 2–20 s and nothing is cropped. Run: python benchmarks/padding.py
"""

import argparse
import json

import numpy as np

from mockingjay.core.types import Utterance
from mockingjay.data.batches import BatchPlan

FIGURE = 0.06


def padding(batches: list[list[float]]) -> float:
    """Share of the frames of right-padded batches that is padding."""
    padded = sum(max(seconds) * len(seconds) for seconds in batches)
    return 1 - sum(map(sum, batches)) / padded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--utterances", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=88.0, help="per batch; 8 utterances of 11 s")
    parser.add_argument("--epochs", type=int, default=3)
    asked = parser.parse_args()
    durations = np.random.default_rng(0).uniform(2, 20, asked.utterances)
    corpus = [Utterance(str(index), "", float(seconds)) for index, seconds in enumerate(durations)]
    plan = BatchPlan(corpus, BatchPlan.Config(seconds=asked.seconds, crop=20.0))
    shares = []
    for epoch in range(asked.epochs):
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        shares.append(padding([[each.seconds for each in plan.step(step)[1]] for step in steps]))
    shuffled = np.random.default_rng(1).permutation(durations)[: asked.utterances // 8 * 8]
    result = {
        "padding": float(np.median(shares)),
        "spread": float(np.ptp(shares)),
        "padding_of_random_batches_of_8": padding(shuffled.reshape(-1, 8).tolist()),
        "figure": FIGURE,
        "utterances": asked.utterances,
        "seconds_per_batch": asked.seconds,
        "reached": bool(max(shares) <= FIGURE),
    }
    print(json.dumps(result, indent=2))
    print(
        f"padding {result['padding']:.1%} of frames (figure ≤ {FIGURE:.0%}); "
        f"random batches {result['padding_of_random_batches_of_8']:.1%}"
    )


if __name__ == "__main__":
    main()
