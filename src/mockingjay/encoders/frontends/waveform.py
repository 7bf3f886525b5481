"""Strided convolutions over the samples themselves: the learned frontend of CPC, wav2vec and their kin.

van den Oord et al. 2018 (CPC, arXiv 1807.03748, section 3.1) have five layers that make 100 frames a second; Schneider
et al. 2019 (wav2vec, arXiv 1904.05862) the same five with a norm over the whole utterance; Baevski et al. 2020 (wav2vec
2.0, arXiv 2006.11477, section 4.2) seven that make 50, the first alone with a norm. What lies beyond an utterance's end
is zero before every layer, so a frame is what it would be without batch-mates.

Differs from the papers: a norm over the utterance is over its own frames alone, where the code of wav2vec counts the
batch's padding; so is one over the batch.
"""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.core.types import Frames, Grid, Waves, valid_steps
from mockingjay.encoders.convolution import Convolution
from mockingjay.encoders.frontends.framing import refuse_short
from mockingjay.encoders.frontends.frontend import Frontend
from mockingjay.encoders.norms import PER_STEP, Norm, SequenceNorm


class Waveform(Frontend):
    """Convolutions, each followed by a norm and a ReLU or GELU.

    Attributes:
        reach: Samples that a frame reads, zeros beyond the ends counted.
    """

    class Config(Table):
        """Defaults are CPC's; paddings, of which the paper is silent, are those of its replica in modified CPC."""

        kind: Literal["waveform"] = "waveform"
        channels: int = Field(default=512, ge=2, le=65_536)
        """Outputs of every layer."""
        kernels: tuple[int, ...] = Field(default=(10, 8, 4, 4, 4), min_length=1, max_length=100)
        """Steps each layer reads, the first one's in samples."""
        strides: tuple[int, ...] = Field(default=(5, 4, 2, 2, 2), min_length=1, max_length=100)
        """Steps each layer moves on."""
        paddings: tuple[int, ...] = Field(default=(3, 2, 1, 1, 1), min_length=1, max_length=100)
        """Zeros before and after what each layer reads, fewer than it reads."""
        bias: bool = True
        """Add a learned number to every channel of a convolution."""
        norm: Norm = "none"
        """After each convolution, over: the channels of each step ('channel', 'layer'), the whole utterance ('group'),
        the whole utterance channel by channel ('instance'), the batch ('batch'), or nothing."""
        normed: Literal["every", "first"] = "every"
        """Which layers have the norm: every one, or the first alone (wav2vec 2.0 base)."""
        activation: Literal["relu", "gelu"] = "relu"
        """After each norm."""
        logarithm: bool = False
        """Compress the frames z to log(1 + z)."""

        @model_validator(mode="after")
        def _layers_fit(self) -> "Waveform.Config":
            layers = [*zip(self.kernels, self.strides, self.paddings)]
            if not len(self.kernels) == len(self.strides) == len(self.paddings):
                raise ValueError(f"kernels {self.kernels} need as many strides and paddings")
            if any(kernel < 1 or stride < 1 or not 0 <= padding < kernel for kernel, stride, padding in layers):
                raise ValueError(
                    f"kernels {self.kernels}, strides {self.strides} and paddings {self.paddings} must be positive, "
                    "and paddings narrower than their kernels"
                )
            return self

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.dim = config.channels
        self.leaks = "nothing" if config.norm in PER_STEP else "future"
        inputs = [1, *[config.channels] * (len(config.kernels) - 1)]
        norms: list[Norm] = [
            config.norm if config.normed == "every" or not layer else "none" for layer in range(len(inputs))
        ]
        self.shapes = [*zip(config.kernels, config.strides, config.paddings)]
        self.layers = nn.ModuleList(
            _Layer(width, *shape, config, norm) for width, shape, norm in zip(inputs, self.shapes, norms)
        )
        self.grid, self.receptive, self.reach = self._survey()

    def forward(self, waves: Waves) -> Frames:
        """Compute frames.

        Raises:
            DataError: An utterance has fewer than `receptive` samples.
        """
        refuse_short(waves, self.receptive)
        values, lengths, time = waves.samples[:, :, None], waves.lengths, waves.samples.shape[1]
        # Without padding there is nothing to mask; asking costs a synchronisation on CUDA only.
        full = not values.is_cuda and bool((lengths == time).all())
        if not full:
            values = values.masked_fill(~valid_steps(lengths, time)[:, :, None], 0.0)
        for layer, shape in zip(self.layers, self.shapes):
            lengths = _steps(lengths, *shape)
            values = layer(values, None if full else lengths)
        return Frames(values.log1p() if self.config.logarithm else values, self.count(waves.lengths))

    def count(self, samples: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        steps = samples
        for shape in self.shapes:
            steps = _steps(steps, *shape)
        return steps.masked_fill(samples < self.receptive, 0)

    def _survey(self) -> tuple[Grid, int, int]:
        """Say where the frames lie and how many samples the first one takes, zeros not counted and counted."""
        hop, start, reach = 1, 0, 1
        for kernel, stride, padding in self.shapes:
            start -= padding * hop
            reach += (kernel - 1) * hop
            hop *= stride
        least = 1
        for kernel, stride, padding in reversed(self.shapes):
            least = max(1, (least - 1) * stride + kernel - 2 * padding)
        return Grid(hop, start + reach / 2), least, reach


class _Layer(nn.Module):
    def __init__(
        self, inputs: int, kernel: int, stride: int, padding: int, config: Waveform.Config, norm: Norm
    ) -> None:
        super().__init__()
        self.padding, self.activate = padding, F.relu if config.activation == "relu" else F.gelu
        self.convolve = Convolution(inputs, config.channels, kernel, stride, config.bias)
        self.norm = SequenceNorm(norm, config.channels)

    def forward(
        self, values: Float[Tensor, "batch time inputs"], lengths: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch steps channels"]:
        """Run the layer; `lengths` are those of its output, None where nothing is padding."""
        values = self.convolve(values, self.padding)
        valid = None if lengths is None else valid_steps(lengths, values.shape[1])
        values = self.activate(self.norm(values, valid))
        return values if valid is None else values * valid[:, :, None].to(values.dtype)


def _steps(steps: Int[Tensor, " batch"], kernel: int, stride: int, padding: int) -> Int[Tensor, " batch"]:
    return (steps + 2 * padding - kernel).div(stride, rounding_mode="floor") + 1


CPC_512 = Waveform.Config()
WAV2VEC2_512 = Waveform.Config(
    kernels=(10, 3, 3, 3, 3, 2, 2),
    strides=(5, 2, 2, 2, 2, 2, 2),
    paddings=(0,) * 7,
    bias=False,
    norm="instance",
    normed="first",
    activation="gelu",
)
WAV2VEC_512 = Waveform.Config(paddings=(0, 0, 0, 0, 0), bias=False, norm="group")
MODIFIED_CPC_256 = Waveform.Config(channels=256, norm="channel")
