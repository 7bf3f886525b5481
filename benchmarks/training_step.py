"""A training step of Mockingjay BASE (1 × 1500 frames, one thread, float32) against the machine's own sgemm.

    OMP_NUM_THREADS=1 uv run python benchmarks/training_step.py [--json FILE] [--rounds N]

Prints the share of sgemm that forward and backward reach with attention dropout 0 and as published, what a step costs
outside forward, backward and optimiser, and the activations a sequence keeps.
"""

import argparse
from pathlib import Path

import torch
from timing import interleave, machine, ratios, spread, write

from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Utterance, Waves
from mockingjay.objectives import build_objective
from mockingjay.settings import settings
from mockingjay.train.loop import Run

FRAMES = 1500
SIZE = 2048  # of the square matrices of the ceiling


def arithmetic(objective, selected: int) -> float:
    """Floating-point operations of forward and backward: matrix products only, backward twice the forward."""
    context = objective.config.encoder.context
    dim, wide = context.dim, context.feedforward
    block = 2 * (4 * dim * dim + 2 * dim * wide) + 4 * FRAMES * dim
    head = 2 * (dim * dim + dim * objective.head[-1].out_features)
    forward = FRAMES * (2 * objective.encoder.frontend.dim * dim + context.layers * block) + selected * head
    return 3 * forward


def activations(objective, batch: Batch) -> int:
    """Bytes that forward keeps for backward, parameters left out."""
    kept = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in objective.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = objective(batch, 0.0, Draw(0))
        size = sum(kept.values())
    del loss
    return size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    samples = torch.randn(1, (FRAMES - 1) * 200) * 0.1
    utterance = Utterance("one", "/one.wav", samples.shape[1] / 16_000)
    batch = Batch(Waves(samples, torch.tensor([samples.shape[1]])), (utterance,))
    runs = {
        "attention dropout 0": Run(
            build_objective(
                settings("mockingjay", None, ["objective.encoder.context.attention_dropout=0.0"]).objective
            ),
            Run.Config(),
        ),
        "as published": Run(build_objective(settings("mockingjay").objective), Run.Config()),
    }
    left, right = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)

    def both_ways(run):
        loss = run.learner.train()(batch, 0.0, Draw(0))
        loss.sum.backward()

    def optimise(run):
        """Clear, measure, clip and step, as the loop does."""
        run.optimiser.clear()
        norm = torch.linalg.vector_norm(run.optimiser.gradients)
        run.optimiser.gradients *= (1 / (norm + 1e-6)).clamp(max=1)
        run.optimiser.step(0.0)

    def tick(run):
        next(run.ticks([(batch,)]))

    works = {"sgemm": lambda: left @ right}
    for name, run in runs.items():
        works[f"{name}: forward and backward"] = lambda run=run: both_ways(run)
        works[f"{name}: whole step"] = lambda run=run: tick(run)
        works[f"{name}: optimiser"] = lambda run=run: optimise(run)
    seconds = interleave(works, arguments.rounds)
    sgemm = [2 * SIZE**3 / each for each in seconds["sgemm"]]
    results = {"machine": machine(), "sgemm GFLOP/s": spread([each / 1e9 for each in sgemm])}
    print(f"sgemm {results['sgemm GFLOP/s']['median']:.1f} GFLOP/s")
    for name, run in runs.items():
        objective = run.learner
        weight = objective(batch, 0.0, Draw(0)).weight.item()
        flops = arithmetic(objective, int(weight / objective.head[-1].out_features))
        passes, whole, adam = (
            seconds[f"{name}: {part}"] for part in ("forward and backward", "whole step", "optimiser")
        )
        share = spread([flops / one / ceiling for one, ceiling in zip(passes, sgemm)])
        outside = spread([(all - one - step) / all for all, one, step in zip(whole, passes, adam)])
        kept = activations(objective, batch) / 2**30
        results[name] = {"share of sgemm": share, "outside": outside, "GiB kept": kept, "seconds": spread(passes)}
        print(
            f"{name}: {share['median']:.2f} of sgemm ({share['least']:.2f} to {share['greatest']:.2f}), "
            f"{spread(passes)['median']:.2f} s, {kept:.2f} GiB kept, "
            f"{outside['median']:.1%} outside forward, backward and optimiser ({spread(whole)['median']:.2f} s)"
        )
    results["speed-up"] = ratios(
        seconds, "attention dropout 0: forward and backward", "as published: forward and backward"
    )
    write(results, arguments.json)


if __name__ == "__main__":
    main()
