"""Slices of spectrogram seen as pictures: the small encoder of Audio2Vec, TemporalGap and phase prediction.

Tagliasacchi et al. 2019 (Audio2Vec, arXiv 1905.11796): blocks of two convolutions, one along frequency and one along
time, with pooling between; what is left of a slice of about a second is pooled to one vector. It is a representation of
stretches by design. Over an utterance a slice is laid around every step, and what it has beyond the utterance is zero.
Sizes are from memory of the paper; the steps are ours.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames, Hidden
from mockingjay.encoders.contexts.context import Context
from mockingjay.encoders.norms import MaskedBatchNorm

_AT_ONCE = {"cpu": 16, "cuda": 1024}  # slices; a processor's cache holds few


class Slices(Context):
    """One vector for the slice around every step; in training, batch normalisation ties slices to each other."""

    class Config(Table):
        """Defaults are Audio2Vec's (from memory), the stride is ours."""

        kind: Literal["slices"] = "slices"
        width: int = Field(default=96, ge=2, le=65_536)
        """Frames of a slice."""
        stride: int = Field(default=16, ge=1, le=65_536)
        """Frames from one slice to the next where a whole utterance is read."""
        channels: tuple[int, ...] = Field(default=(64, 128, 256, 256, 512, 512), min_length=1, max_length=100)
        """Channels of each block; the picture is halved between two blocks."""
        dim: int = Field(default=128, ge=1, le=65_536)
        """Width of the one layer."""

        @model_validator(mode="after")
        def _fits(self) -> "Slices.Config":
            if self.width < 2 ** (len(self.channels) - 1):
                raise ValueError(f"width {self.width} cannot be halved {len(self.channels) - 1} times")
            return self

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        if inputs < 2 ** (len(config.channels) - 1):
            raise ConfigError(
                f"context: frames of {inputs} channels, expected at least {2 ** (len(config.channels) - 1)} to halve "
                f"{len(config.channels) - 1} times; choose a frontend with more or fewer blocks"
            )
        self.dim, self.depth, self.stride, self.causal = config.dim, 1, config.stride, False
        self.width = config.width
        self.blocks = nn.ModuleList(map(ConvolutionBlock, (1, *config.channels), config.channels))
        self.project = nn.Linear(config.channels[-1], config.dim)

    def forward(self, frames: Frames) -> Hidden:
        """Read a batch; the last frames that fill no step are dropped."""
        lengths = frames.lengths // self.stride
        steps = max(1, frames.values.shape[1] // self.stride)
        before = (self.width - self.stride) // 2  # a slice's middle is its step's
        after = max(0, (steps - 1) * self.stride + self.width - before - frames.values.shape[1])
        values = (frames.values * frames.valid[:, :, None])[:, max(0, -before) :]
        padded = F.pad(values, (0, 0, max(0, before), after))
        slices = padded.unfold(1, self.width, self.stride)[:, :steps].transpose(2, 3)
        used = torch.arange(steps, device=lengths.device) < lengths[:, None]
        flat, used = slices.flatten(0, 1), used.flatten()
        # Outside training slices know nothing of each other, and a few at a time are quick and need little memory.
        size = len(flat) if self.training else _AT_ONCE.get(flat.device.type, 256)
        embedded = torch.cat([self.embed(*part) for part in zip(flat.split(size), used.split(size))])
        return Hidden((embedded.unflatten(0, slices.shape[:2]),), lengths)

    def embed(
        self, slices: Float[Tensor, "slices width inputs"], used: Bool[Tensor, " slices"]
    ) -> Float[Tensor, "slices dim"]:
        """Turn slices into vectors; those not used count for nothing in a batch's statistics."""
        images, shown = slices[:, None], used[:, None, None, None]
        for number, block in enumerate(self.blocks):
            images = F.max_pool2d(images, 2) if number else images
            images = block(images, shown.expand(-1, 1, images.shape[2], 1))
        return self.project(images.amax((2, 3)))


class ConvolutionBlock(nn.Module):
    """A convolution of three channels' width, then one of three frames', normalised and rectified."""

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        self.across = nn.Conv2d(inputs, filters, (1, 3), padding=(0, 1), bias=False)
        self.along = nn.Conv2d(filters, filters, (3, 1), padding=(1, 0), bias=False)
        self.norm = MaskedBatchNorm(filters)

    def forward(
        self, images: Float[Tensor, "slices inputs time bins"], used: Bool[Tensor, "slices 1 time 1"]
    ) -> Float[Tensor, "slices filters time bins"]:
        # Channels lie together from here on, which makes the convolutions of narrow blocks twice as quick.
        across = self.across(images).contiguous(memory_format=torch.channels_last)
        return F.relu(self.norm(self.along(across), used))
