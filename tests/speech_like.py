"""Waves with something to predict in them, made on the spot."""

import soundfile
import torch

from mockingjay.core.types import Batch, Utterance, Waves

LENGTHS = (16_000, 24_000, 19_200, 21_111)  # samples


def speech_like(samples, seed):
    """A gliding, pulsing tone in a little noise."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(samples, generator=generator)
    time = torch.arange(samples) / 16_000
    tone = torch.sin(2 * torch.pi * (200 + 100 * torch.sin(9 * time + seed)) * time)
    return 0.1 * (tone * (1 + torch.sin(20 * time)) + 0.1 * noise)


def batch_of(lengths=LENGTHS, seed=0, epoch=0):
    waves = [speech_like(length, seed + index) for index, length in enumerate(lengths)]
    utterances = tuple(
        Utterance(f"u{seed + index}", f"/u{seed + index}.wav", length / 16_000) for index, length in enumerate(lengths)
    )
    return Batch(Waves.pad(waves), utterances, epoch)


def corpus(folder, count=24, seconds=1.0, speakers=4, bad=0):
    """Write a folder of wav files, the first ones empty."""
    for number in range(count):
        path = folder / f"s{number % speakers}" / f"{number:03d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < bad:
            path.touch()
        else:
            soundfile.write(path, speech_like(round(seconds * 16_000) + 160 * (number % 7), number).numpy(), 16_000)
    return folder
