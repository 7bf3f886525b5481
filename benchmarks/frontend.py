"""Speed of the frontends on one thread, against the floor: the Fourier transforms alone, on frames cut and in cache.

Run `python benchmarks/frontend.py [results.json]`. Seconds are the processor's, so that a busy machine counts less.
"""

import sys
import time
from pathlib import Path

import torch
from timing import interleave, machine, ratios, spread, write

from mockingjay.core.types import SAMPLE_RATE, Waves
from mockingjay.encoders.frontends import build_frontend
from mockingjay.encoders.frontends.fbank import FBANK_240, Fbank
from mockingjay.encoders.frontends.linear import LINEAR_1025
from mockingjay.encoders.frontends.log_mel import MOCKINGJAY_160, TERA_80, LogMel
from mockingjay.encoders.frontends.mfcc import MFCC_39

SECONDS, BATCH, BLOCK = 15, 8, 256
CONFIGS = {
    "log-mel 80": LogMel.Config(**{**TERA_80.model_dump(), "level": None, "normalise": "none"}),
    "log-mel 80 as TERA": TERA_80,
    "log-mel 160 as Mockingjay": MOCKINGJAY_160,
    "fbank 80": Fbank.Config(normalise="none"),
    "fbank 240 as s3prl": FBANK_240,
    "linear 1025": LINEAR_1025,
    "mfcc 39": MFCC_39,
}


def transforms(config):
    """Make the work of transforming as many frames as the frontend does."""
    frames = torch.randn(BLOCK, config.fft)
    blocks = BATCH * (SECONDS * SAMPLE_RATE // config.hop + 1) // BLOCK

    def work():
        for _ in range(blocks):
            torch.fft.rfft(frames)

    return work


def main():
    torch.set_num_threads(1)
    waves = Waves(torch.randn(BATCH, SECONDS * SAMPLE_RATE) * 0.1, torch.full((BATCH,), SECONDS * SAMPLE_RATE))
    works = {}
    for name, config in CONFIGS.items():
        frontend = build_frontend(config)
        works[name] = lambda frontend=frontend: frontend(waves)
        works[f"{name}, transforms alone"] = transforms(config)
    with torch.inference_mode():
        seconds = interleave(works, clock=time.process_time)
    rows = []
    for name in CONFIGS:
        speed = spread([BATCH * SECONDS / value for value in seconds[name]])
        floor = spread([BATCH * SECONDS / value for value in seconds[f"{name}, transforms alone"]])
        share = ratios(seconds, of=name, to=f"{name}, transforms alone")
        rows.append({"frontend": name, "audio_seconds_per_second": speed, "transforms_alone": floor, "share": share})
        print(
            f"{name:28} {speed['median']:7.0f} s/s ({speed['least']:.0f} to {speed['greatest']:.0f}), "
            f"transforms alone {floor['median']:7.0f}, "
            f"share {share['median']:.2f} ({share['least']:.2f} to {share['greatest']:.2f})"
        )
    write({"machine": machine(), "rows": rows}, Path(sys.argv[1]) if len(sys.argv) > 1 else None)


if __name__ == "__main__":
    main()
