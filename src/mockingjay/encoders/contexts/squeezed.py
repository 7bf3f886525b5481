"""Convolutions that end in a bottleneck: the encoder of the WaveNet autoencoders, one latent every 20 ms.

Chorowski et al. 2019 (arXiv 1901.08810); layout and widths are from the code of ae-wavenet, and the lighter layout with
batch normalisation from that of ZeroSpeech 2020 (van Niekerk et al., arXiv 2005.09409).

Differs from the code: convolutions are padded, so that every two frames have their latent.
"""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.core.types import Frames, Hidden, valid_steps
from mockingjay.encoders.bottlenecks import BOTTLENECKS, BottleneckConfig, Discrete
from mockingjay.encoders.contexts.context import Context
from mockingjay.encoders.norms import MaskedBatchNorm

_HALVING = 4  # frames of the kernel that halves the rate


class Squeezed(Context):
    """Layers are the bottleneck's: the latent, of a VQ-VAE before and after quantisation."""

    class Config(Table):
        """Defaults are ae-wavenet's (code) with the paper's quantised bottleneck."""

        kind: Literal["squeezed"] = "squeezed"
        kernels: tuple[int, ...] = Field(default=(3, 3, 4, 3, 3, 1, 1, 1, 1), min_length=1, max_length=100)
        """Frames of each convolution: odd ones keep the rate, 4 halves it."""
        channels: int = Field(default=768, ge=1, le=65_536)
        """Width of every convolution."""
        residual: bool = True
        """Add to each convolution's output what it read, where rate and width stay."""
        norm: bool = False
        """Normalise each convolution's output over the batch before it is rectified."""
        dim: int = Field(default=64, ge=1, le=65_536)
        """Width of a latent."""
        bottleneck: BottleneckConfig = Discrete.Config()
        """What is let through."""
        reads: Literal["latent", "hidden"] = "latent"
        """What those who use the encoder read: latents, or the convolutions' output; training is the same."""

        @model_validator(mode="after")
        def _known(self) -> "Squeezed.Config":
            wrong = [kernel for kernel in self.kernels if kernel != _HALVING and (kernel < 1 or kernel % 2 == 0)]
            if wrong:
                raise ValueError(f"kernels hold {wrong[0]}, expected odd numbers of frames or {_HALVING}")
            return self

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.config = config
        widths = [inputs, *[config.channels] * (len(config.kernels) - 1)]
        self.blocks = nn.ModuleList(
            _Block(width, config.channels, kernel, config) for width, kernel in zip(widths, config.kernels)
        )
        self.bottleneck = BOTTLENECKS[config.bottleneck.kind](config.bottleneck, config.dim)
        self.project = nn.Linear(config.channels, self.bottleneck.inputs)
        hidden = config.reads == "hidden"
        self.dim, self.depth = (config.channels, 1) if hidden else (config.dim, self.bottleneck.depth)
        self.stride, self.causal = 2 ** config.kernels.count(_HALVING), False

    def forward(self, frames: Frames) -> Hidden:
        """Read a batch; the last frames that fill no step are dropped."""
        hidden = self.convolve(frames)
        if self.config.reads == "hidden":
            return Hidden((hidden.values,), hidden.lengths)
        return Hidden(self.bottleneck.layers(self.project(hidden.values)), hidden.lengths)

    def convolve(self, frames: Frames) -> Frames:
        """Run the convolutions; the values on padding are zero."""
        values, lengths = frames.values.transpose(1, 2), frames.lengths
        values = F.pad(values, (0, max(0, self.stride - values.shape[2])))
        values = values * valid_steps(lengths, values.shape[2])[:, None]
        for block in self.blocks:
            values, lengths = block(values, lengths)
        return Frames(values.transpose(1, 2), lengths)


class _Block(nn.Module):
    """A convolution, rectified; padding stays zero."""

    def __init__(self, inputs: int, channels: int, kernel: int, config: Squeezed.Config) -> None:
        super().__init__()
        self.stride = 2 if kernel == _HALVING else 1
        self.residual = config.residual and self.stride == 1 and inputs == channels
        self.convolve = nn.Conv1d(
            inputs, channels, kernel, self.stride, padding=(kernel - 1) // 2, bias=not config.norm
        )
        nn.init.xavier_uniform_(self.convolve.weight)
        self.norm = MaskedBatchNorm(channels) if config.norm else None

    def forward(
        self, values: Float[Tensor, "batch inputs time"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch channels steps"], Int[Tensor, " batch"]]:
        said, lengths = self.convolve(values), lengths // self.stride
        valid = valid_steps(lengths, said.shape[2])[:, None]
        if self.norm is not None:
            said = self.norm(said[..., None], valid[..., None])[..., 0]
        said = F.relu(said) * valid
        return said + values if self.residual else said, lengths
