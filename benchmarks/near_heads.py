"""How much of its attention each run's nearest-looking head spends on the steps beside a step.

What interpolation does, a network can do only through heads that look at neighbours. Prints, beside held-out losses,
the largest share over heads of attention that falls on distances of one and two steps, untrained and trained.

    python benchmarks/near_heads.py RUN [RUN …] --data PATH
"""

import argparse
import json
from pathlib import Path

import torch

import mockingjay
from mockingjay import audio
from mockingjay.core.types import Waves
from mockingjay.data.corpora import open_corpus
from mockingjay.encoders.attention import watch

UTTERANCES, SECONDS = 12, 3.0


@torch.no_grad()
def nearest(name: str, waves: list[torch.Tensor]) -> tuple[float, int]:
    """Return the largest share of attention on distances 1 and 2, and the layer (from 1) of its head."""
    encoder = mockingjay.open_representation(name)
    shares = []
    for wave in waves:
        with watch(encoder) as maps:
            encoder(Waves.pad([wave]))
        layers = torch.stack([each[0] for each in maps])  # layers heads time time
        steps = torch.arange(layers.shape[-1])
        near = ((steps[:, None] - steps).abs() - 1).clamp(min=0) <= 1
        near &= steps[:, None] != steps
        shares.append((layers * near).sum(-1).mean(-1))
    mean = torch.stack(shares).mean(0)
    return mean.max().item(), int(mean.max(1).values.argmax()) + 1


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("runs", nargs="+", type=Path)
    options.add_argument("--data", type=Path, required=True)
    chosen = options.parse_args()
    utterances = [each for each in open_corpus(chosen.data).utterances if each.seconds >= SECONDS][:UTTERANCES]
    waves = [audio.read(each.path)[: round(SECONDS * 16_000)] for each in utterances]
    print("run | steps | held-out | interpolation | near heads untrained | trained | layer")
    for run in chosen.runs:
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        last = next(line for line in reversed(lines) if "validation" in line)
        told, (before, _), (after, layer) = (
            last["validation"],
            nearest(f"random:{run}", waves),
            nearest(str(run), waves),
        )
        trivial = told.get("interpolation", float("nan"))
        print(
            f"{run.name} | {last['step']} | {told['model']:.3f} | {trivial:.3f} | {before:.2f} | {after:.2f} | {layer}"
        )


if __name__ == "__main__":
    main()
