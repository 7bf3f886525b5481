"""Would an objective pass interpolation if heads looked at neighbours from the start, or without dropout?

Interpolation is beyond a network until heads of it look at the steps beside a step, and sinusoidal positions give it
none to begin with (benchmarks/near_heads.py). Here two heads of every layer get them by hand: their queries are the
positions turned by one step back or on, their keys the positions as they are. Nothing else differs, so what a run
gains by it is what the search for these heads costs.

    OMP_NUM_THREADS=1 uv run python benchmarks/near_start.py --data CORPUS --out DIR --steps tera=400,mpc=800
        [--sharpness 4] [--json FILE]

Each objective's preset `tiny` trains four times: as it is, with the heads, with `dropout` 0, and with both.
"""

import argparse
import itertools
import json
import math
from pathlib import Path

import torch
from timing import machine, write

from mockingjay.core.types import Utterance
from mockingjay.data.batches import Once
from mockingjay.data.corpora import open_corpus
from mockingjay.data.scan import scan
from mockingjay.encoders.attention import attentions
from mockingjay.encoders.encoder import Encoder
from mockingjay.objectives import build_objective
from mockingjay.pretrain import pretrain
from mockingjay.settings import settings


@torch.no_grad()
def look_beside(encoder: Encoder, sharpness: float) -> None:
    """Let the first two heads of every layer look one step back and one on, by the fastest sinusoids of a position.

    What these heads read is the position alone to begin with: the projection leaves as many columns to it.
    """
    part = encoder.dim // next(iter(attentions(encoder))).heads
    encoder.context.project.weight[:part] = 0.0
    encoder.context.project.bias[:part] = 0.0
    for layer in set(attentions(encoder)):
        dim = layer.query_key_value.in_features
        part = dim // layer.heads
        angles = torch.exp(torch.arange(0, part, 2) * (-math.log(10_000.0) / dim))  # by which one step turns a pair
        for head, step in enumerate((-1, 1)):
            query, key = torch.zeros(part, dim), torch.zeros(part, dim)
            rows = torch.arange(0, part, 2)
            turned = step * angles
            # A pair is (sin, cos): what stands at t becomes what stands at t + step.
            query[rows, rows], query[rows, rows + 1] = turned.cos(), turned.sin()
            query[rows + 1, rows], query[rows + 1, rows + 1] = -turned.sin(), turned.cos()
            key[:, :part] = torch.eye(part)
            scale = math.sqrt(sharpness)
            weight, bias = layer.query_key_value.weight, layer.query_key_value.bias
            for place, table in ((head * part, query), (dim + head * part, key)):
                weight[place : place + part] = scale * table
                bias[place : place + part] = 0.0


def train(name: str, utterances: list[Utterance], out: Path, steps: int, changes: list[str], sharpness: float) -> dict:
    """Train once and return the last validation."""
    chosen = settings(name, "tiny", [f"train.steps={steps}", *changes])
    torch.manual_seed(chosen.train.seed)
    objective = build_objective(chosen.objective)
    objective.prepare(Once(utterances, chosen.batches, torch.device("cpu")))  # statistics, where it has any
    start = objective.encoder
    if sharpness:
        look_beside(start, sharpness)
    trained = pretrain(chosen, utterances, out, start=start, say=print)
    if trained.stopped:
        raise SystemExit(trained.stopped)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    return next(line["validation"] for line in reversed(lines) if line.get("validation"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", required=True, help="objective=steps,…")
    parser.add_argument("--sharpness", type=float, default=4.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    utterances = list(scan(open_corpus(arguments.data), 0.1).corpus.utterances)
    rows = []
    for name, steps in (each.split("=") for each in arguments.steps.split(",")):
        for heads, dropout in itertools.product((False, True), repeat=2):
            out = arguments.out / f"{name}{'-heads' * heads}{'-without-dropout' * dropout}"
            changes = ["objective.encoder.context.dropout=0.0"] * dropout
            told = train(name, utterances, out, int(steps), changes, arguments.sharpness * heads)
            rows.append({"objective": name, "steps": int(steps), "heads": heads, "dropout": not dropout, **told})
            beside = f"{told['model']:.3f} against {told['interpolation']:.3f} by interpolation"
            print(f"{out.name}, {steps} steps: {beside}", flush=True)
    write({"machine": machine(), "sharpness": arguments.sharpness, "rows": rows}, arguments.json)


if __name__ == "__main__":
    main()
