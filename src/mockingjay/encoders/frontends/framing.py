"""Cuts waves into overlapping frames, each utterance by its own length, and batches what is measured on them.

Reflection at the edges is done at every utterance's true end and never at the padding's: reflecting the padded batch
instead moves the last frames of every shorter utterance.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import torch
from jaxtyping import Float, Int
from pydantic import AfterValidator, Field
from torch import Tensor

from mockingjay.core.errors import DataError
from mockingjay.core.types import SAMPLE_RATE, Frames, Grid, Waves, valid_steps

Measure = Callable[[Tensor], Tensor]  # [frames, window] samples → [frames, dim] features

_BLOCK = 131_072  # samples measured at once on a CPU, so that a block's temporaries stay in the cache


def _not_below_window(fft: int, info: Any) -> int:
    window = info.data.get("window", 0)
    if fft < window:
        raise ValueError(f"shorter than the window of {window} samples, expected at least that")
    return fft


Window = Annotated[int, Field(ge=2, le=16_384, multiple_of=2)]  # samples
Hop = Annotated[int, Field(ge=1, le=16_384)]  # samples
Transform = Annotated[int, Field(ge=2, le=16_384), AfterValidator(_not_below_window)]  # samples; after window


def refuse_short(waves: Waves, receptive: int) -> None:
    """Refuse utterances too short for a frame; lengths on an accelerator are not read, since that would wait for it.

    Raises:
        DataError: An utterance has fewer than `receptive` samples.
    """
    shortest = waves.samples.shape[1] if waves.lengths.device.type != "cpu" else int(waves.lengths.min())
    if shortest < receptive:
        raise DataError(
            f"utterance of {shortest} samples: shorter than the frontend can read, expected at least {receptive} "
            f"({1000 * receptive / SAMPLE_RATE:g} ms); leave it out or raise the shortest duration that is kept"
        )


@dataclass(frozen=True)
class Framing:
    """Where frames lie on the samples.

    Attributes:
        window: Samples per frame, even.
        hop: Samples from one frame to the next.
        centre: Whether frame t is centred on sample t · hop, with reflection at the edges; else it starts there.
        least: Frames an utterance must have; shorter ones are refused.
    """

    window: int
    hop: int
    centre: bool
    least: int = 1

    @cached_property
    def grid(self) -> Grid:
        """Where the frames lie."""
        return Grid(self.hop, 0.0 if self.centre else self.window / 2)

    @cached_property
    def receptive(self) -> int:
        """Samples an utterance must have; reflecting half a window takes half a window and one."""
        if self.centre:
            return max(self.window // 2 + 1, (self.least - 1) * self.hop)
        return self.window + (self.least - 1) * self.hop

    def count(self, samples: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Count frames; none below `receptive`."""
        frames = (samples if self.centre else samples - self.window).div(self.hop, rounding_mode="floor") + 1
        return frames.masked_fill(samples < self.receptive, 0)

    def measure(self, waves: Waves, measure: Measure) -> Frames:
        """Apply a function of single frames to all frames of a batch.

        Raises:
            DataError: An utterance has fewer than `receptive` samples.
        """
        refuse_short(waves, self.receptive)
        lengths = self.count(waves.lengths)
        samples = _reflect(waves, self.window // 2) if self.centre else waves.samples
        frames = samples.unfold(1, self.window, self.hop)[:, : self._most(waves)]
        with torch.autocast(samples.device.type, enabled=False):
            apply = _row_by_row if samples.device.type == "cpu" else _at_once
            return Frames(apply(frames, lengths, measure), lengths)

    def _most(self, waves: Waves) -> int:
        return int(self.count(torch.tensor([waves.samples.shape[1]])))


def _row_by_row(
    frames: Float[Tensor, "batch time window"], lengths: Int[Tensor, " batch"], measure: Measure
) -> Float[Tensor, "batch time dim"]:
    """Measure each utterance's own frames in blocks that fit the cache; padding costs nothing."""
    block = max(16, _BLOCK // frames.shape[2])
    rows = [torch.cat([*map(measure, row[:length].split(block))]) for row, length in zip(frames, lengths.tolist())]
    values = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return torch.nn.functional.pad(values, (0, 0, 0, frames.shape[1] - values.shape[1]))


def _at_once(
    frames: Float[Tensor, "batch time window"], lengths: Int[Tensor, " batch"], measure: Measure
) -> Float[Tensor, "batch time dim"]:
    """Measure all frames, padding included, without reading a length."""
    values = measure(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
    return values.masked_fill(~valid_steps(lengths, frames.shape[1])[..., None], 0.0)


def _reflect(waves: Waves, width: int) -> Float[Tensor, "batch samples"]:
    """Extend each utterance by its own mirror image, the edge sample not repeated."""
    samples, steps = waves.samples, torch.arange(width, device=waves.samples.device)
    end = waves.lengths[:, None] + steps
    mirrored = samples.gather(1, (2 * waves.lengths[:, None] - 2 - end).clamp_min(0))
    extended = torch.cat([samples[:, 1 : width + 1].flip(1), samples, samples.new_zeros(len(samples), width)], 1)
    return extended.scatter_(1, width + end, mirrored)
