"""A learner small enough for the tests of the loop, and a corpus for it."""

import math
import multiprocessing
import warnings
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mockingjay.core.draw import Draw
from mockingjay.core.learner import Learner
from mockingjay.core.types import Batch, Loss, Utterance, valid_steps

FRAME = 160  # samples


class Toy(Learner):
    """Predicts each frame of 160 samples from the masked frame before it."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.inner = nn.Linear(FRAME, 24)
        self.norm = nn.LayerNorm(24)
        self.outer = nn.Linear(24, FRAME)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        for parameter in self.parameters():
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        samples = batch.waves.samples
        frames = samples[:, : samples.shape[1] // FRAME * FRAME].unflatten(1, (-1, FRAME))
        lengths = batch.waves.lengths // FRAME
        kept = draw.uniform([each.id for each in batch.utterances], "keep", frames.shape[1]).to(frames.device) > 0.2
        guess = self.outer(self.dropout(self.norm(self.inner(frames * kept[:, :, None])).tanh()))
        missed: Float[Tensor, "batch time"] = (guess[:, :-1] - frames[:, 1:]).abs().mean(-1)
        scored = valid_steps(lengths - 1, missed.shape[1])
        total = (missed * scored).sum()
        return Loss(total, scored.sum().float(), {"error": total.detach()})

    def after_step(self, progress: float) -> None:
        self.seen += 1


def utterances(count: int, low: float = 0.3, high: float = 1.0) -> list[Utterance]:
    """A corpus whose audio `speak` makes."""
    return [
        Utterance(f"u{i:04d}", f"/corpus/u{i:04d}.wav", round(low + (high - low) * (i * 7 % count) / count, 4))
        for i in range(count)
    ]


def speak(path, start: float = 0.0, seconds: float | None = None) -> Float[Tensor, " samples"]:
    """Stand in for `mockingjay.audio.read`: a tone of the file's own on 16-bit steps."""
    number = int(str(path)[-8:-4])
    first, count = round(start * 16_000), round((seconds or 1.0) * 16_000)
    times = torch.arange(first, first + count, dtype=torch.float64)
    wave = 0.3 * torch.sin(times * 2 * math.pi * (100 + 13 * number) / 16_000)
    return ((wave * 32768).round() / 32768).float()


def forked(function: Callable, *arguments) -> BaseProcess:
    """Start a process with all that is imported here; a fresh one would import torch for seconds."""
    process = multiprocessing.get_context("fork").Process(target=_alone, args=(function, *arguments))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns where the parent has threads
        process.start()
    return process


def _alone(function: Callable, *arguments) -> None:
    """Mend torch's inherited thread pool before any second thread of the child can meet it half mended."""
    torch.set_num_threads(1)
    function(*arguments)
