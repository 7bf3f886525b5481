"""The convolutions of wav2vec base on one thread, forward and backward, against the machine's own sgemm.

    OMP_NUM_THREADS=1 uv run python benchmarks/waveform.py [--json FILE] [--rounds N]

Prints the share of sgemm that the five strided convolutions and the nine causal ones reach, alone (conv1d of torch too
beside them) and with their norms and ReLUs, and what negatives and scores add to a step of each method.
Seconds are the processor's, so that a busy machine counts less.
"""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import interleave, machine, ratios, spread, write

from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Frames, Utterance, Waves
from mockingjay.encoders.contexts import build_context
from mockingjay.encoders.contexts.causal_convolution import CausalConvolution
from mockingjay.encoders.frontends.waveform import WAV2VEC_512, Waveform
from mockingjay.objectives import build_objective
from mockingjay.settings import settings

BATCH, SAMPLES = 4, 20_480
SIZE = 2048  # of the square matrices of the ceiling


def arithmetic(layers, steps: int, inputs: int, channels: int, first: bool) -> float:
    """Floating-point operations of forward and backward; of the lowest layer's input no gradient is taken."""
    operations = 0.0
    for number, (kernel, stride) in enumerate(layers):
        steps = (steps - kernel) // stride + 1
        forward = 2 * BATCH * steps * kernel * inputs * channels
        operations += forward * (2 if first and not number else 3)
        inputs = channels
    return operations


def alone(convolutions, values, pad: bool, ours: bool):
    """Run convolutions and ReLUs without norms, by our products or by torch's conv1d, and back."""
    for convolution in convolutions:
        kernel = convolution.weight.shape[1] // values.shape[2]
        values = F.pad(values, (0, 0, kernel - 1, 0)) if pad else values
        if ours:
            values = F.relu(convolution(values))
        else:
            weight = convolution.weight.unflatten(1, (kernel, -1)).transpose(1, 2)
            values = F.conv1d(values.transpose(1, 2), weight, convolution.bias, convolution.stride).transpose(1, 2)
            values = F.relu(values)
    values.sum().backward()


def steps_of(rounds: int) -> dict[str, dict[str, float]]:
    """Time forward and backward of each method, and the part of it that draws and scores."""
    utterances = tuple(Utterance(f"u{row}", f"/{row}", SAMPLES / 16_000) for row in range(BATCH))
    batch = Batch(Waves(0.1 * torch.randn(BATCH, SAMPLES), torch.full((BATCH,), SAMPLES)), utterances)
    found = {}
    for name in ("cpc", "wav2vec", "modified-cpc"):
        objective = build_objective(settings(name).objective).train()

        def whole(objective=objective):
            objective(batch, 0.0, Draw(0)).sum.backward()

        def encode(objective=objective):
            objective.encoder(batch.waves).last.sum().backward()

        seconds = interleave({"whole": whole, "encode": encode}, rounds, time.process_time)
        share = spread([1 - own / all for own, all in zip(seconds["encode"], seconds["whole"])])
        found[name] = {"seconds": spread(seconds["whole"]), "share outside the encoder": share}
        print(
            f"{name}: a step of {BATCH} × {SAMPLES / 16_000:.2f} s takes {found[name]['seconds']['median']:.2f} s, "
            f"{share['median']:.0%} of it outside the encoder"
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    frontend, context = Waveform(WAV2VEC_512), build_context(CausalConvolution.Config(), 512)
    waves = Waves(0.1 * torch.randn(BATCH, SAMPLES), torch.full((BATCH,), SAMPLES))
    lengths = frontend.count(waves.lengths)
    values = torch.randn(BATCH, int(lengths[0]), 512).requires_grad_()
    frames = Frames(values, lengths)
    strided = [layer.convolve for layer in frontend.layers]
    causal = context.stack.convolutions
    left, right = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    works = {
        "sgemm": lambda: left @ right,
        "encoder, convolutions": lambda: alone(strided, waves.samples[:, :, None], False, True),
        "encoder, conv1d": lambda: alone(strided, waves.samples[:, :, None], False, False),
        "encoder, whole": lambda: frontend(waves).values.sum().backward(),
        "context, convolutions": lambda: alone(causal, values, True, True),
        "context, conv1d": lambda: alone(causal, values, True, False),
        "context, whole": lambda: context(frames).last.sum().backward(),
    }
    seconds = interleave(works, arguments.rounds, time.process_time)
    sgemm = [2 * SIZE**3 / each for each in seconds["sgemm"]]
    results = {"machine": machine(), "sgemm GFLOP/s": spread([each / 1e9 for each in sgemm])}
    print(f"sgemm {results['sgemm GFLOP/s']['median']:.1f} GFLOP/s")
    own = {
        "encoder": arithmetic(zip(WAV2VEC_512.kernels, WAV2VEC_512.strides), SAMPLES, 1, 512, True),
        "context": sum(arithmetic([(1, 1)], values.shape[1], 3 * 512, 512, False) for _ in causal),
    }
    for name in works:
        if name != "sgemm":
            operations = own[name.split(",")[0]]
            share = spread([operations / each / ceiling for each, ceiling in zip(seconds[name], sgemm)])
            results[name] = {"share of sgemm": share, "seconds": spread(seconds[name])}
            print(f"{name}: {share['median']:.2f} of sgemm ({share['least']:.2f} to {share['greatest']:.2f})")
    results["speed-up"] = {
        part: ratios(seconds, f"{part}, convolutions", f"{part}, conv1d") for part in ("encoder", "context")
    }
    results["steps"] = steps_of(arguments.rounds)
    write(results, arguments.json)


if __name__ == "__main__":
    main()
