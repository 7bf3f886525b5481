"""Does the phase that `phase` predicts spare Griffin and Lim's method rounds, on speech the run has not learned from?

    OMP_NUM_THREADS=1 uv run python benchmarks/phase_start.py RUN --data PATH [--utterances 40]

Prints the spectral error after so many rounds from the predicted phase, from zero and from a random one, averaged over
utterances, and the differences to the predicted one with 95 % intervals over utterances.
"""

import argparse
import math
from pathlib import Path

import torch
from timing import machine

from mockingjay import audio
from mockingjay.core.types import Waves
from mockingjay.data.corpora import open_corpus
from mockingjay.data.manifest import read_manifest
from mockingjay.downstream.scores import bounded
from mockingjay.moves.griffin_lim import griffin_lim, spectral_error
from mockingjay.objectives.phase import Phase
from mockingjay.open import open_objective

ROUNDS, SECONDS = (0, 2, 8, 32), 3.0


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--utterances", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    opened = open_objective(options.run, print)
    assert opened is not None and isinstance(opened[0], Phase), "a run of the objective `phase`"
    objective = opened[0]
    learnt = {each.id for each in read_manifest(options.run / "corpus.jsonl").utterances if each.split == "train"}
    unheard = [each for each in open_corpus(options.data).utterances if each.id not in learnt]
    generator, errors = torch.Generator().manual_seed(0), []
    for each in unheard[:: max(1, len(unheard) // options.utterances)][: options.utterances]:
        wave = audio.read(each.path, each.start, min(each.seconds, SECONDS))
        magnitude = objective.transform.spectrum(wave).abs()
        told = objective.transform.phases(objective.frequencies(Waves.pad([wave]))[0])
        drawn = 2 * math.pi * torch.rand(magnitude.shape, generator=generator)
        errors.append(
            [
                [
                    spectral_error(
                        griffin_lim(magnitude, phase, objective.transform, len(wave), rounds),
                        magnitude,
                        objective.transform,
                    )
                    for phase in (told, torch.zeros_like(told), drawn)
                ]
                for rounds in ROUNDS
            ]
        )
    table = torch.tensor(errors, dtype=torch.float64)  # utterances rounds starts
    count = len(table)
    print(f"{count} utterances of {SECONDS:g} s at most, {machine()['processor']}")
    for place, rounds in enumerate(ROUNDS):
        predicted, *others = table[:, place].mean(0).tolist()
        said = [f"{rounds:2} rounds: predicted {predicted:.3f}"]
        for name, column, value in zip(("zero", "random"), (1, 2), others):
            gain = (table[:, place, column] - table[:, place, 0])[:, None].numpy()
            low, high = bounded(gain, lambda sums: sums[:, 0] / count)
            said.append(f"{name} {value:.3f} ({value - predicted:+.3f} [{low:+.3f}, {high:+.3f}])")
        print(", ".join(said))


if __name__ == "__main__":
    main()
