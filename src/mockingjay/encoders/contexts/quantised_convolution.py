"""Convolutions that read the past in codes: the quantiser and the context of vq-wav2vec.

Baevski et al. 2019 (vq-wav2vec, arXiv 1910.05453, section 3): between the encoder of wav2vec and its context network
every frame becomes codes, and the context reads their vectors. The quantiser stands in the context because it is kept
after training: codes are what the method is for.
"""

from typing import Literal

from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from mockingjay.core.types import Frames, Hidden
from mockingjay.encoders.contexts.causal_convolution import (
    CausalConvolution,
    ConvolutionStack,
    Kernel,
    Skip,
    unless_full,
)
from mockingjay.encoders.contexts.context import Context
from mockingjay.encoders.norms import PER_STEP
from mockingjay.encoders.product import (
    Gumbel,
    Occasion,
    ProductQuantiserConfig,
    Temperature,
    build_product_quantiser,
)
from mockingjay.encoders.quantise import Chosen


class QuantisedConvolution(Context):
    """A quantiser below a stack of causal convolutions; layer 0 of its output is the codes' vectors."""

    class Config(CausalConvolution.Config):
        """Defaults are vq-wav2vec base (section 5)."""

        kind: Literal["quantised-convolution"] = "quantised-convolution"  # pyright: ignore[reportIncompatibleVariableOverride]
        kernels: tuple[Kernel, ...] = Field(default=tuple(range(2, 14)), min_length=1, max_length=100)
        """Steps each layer reads."""
        skip: Skip = "residual"
        """What a layer adds: nothing, what it read, or all before it ('dense')."""
        quantiser: ProductQuantiserConfig = Gumbel.Config(
            hidden=1536, shared=True, temperature=Temperature(until=0.7, fall="linear")
        )
        """What makes frames codes; the width of its hidden layer and the shared codebook are the code's."""

        @model_validator(mode="after")
        def _groups_divide(self) -> "QuantisedConvolution.Config":
            if self.dim % self.quantiser.groups:
                raise ValueError(f"dim {self.dim} must be a multiple of quantiser.groups {self.quantiser.groups}")
            return self

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.dim, self.depth, self.stride, self.causal = config.dim, 1 + len(config.kernels), 1, config.norm in PER_STEP
        self.quantiser = build_product_quantiser(config.quantiser, inputs, config.dim)
        self.stack = ConvolutionStack(config.dim, config.dim, config.kernels, config.norm, config.skip)

    def forward(self, frames: Frames) -> Hidden:
        return self.read(Frames(self.quantise(frames).values, frames.lengths))

    def quantise(self, frames: Frames, occasion: Occasion | None = None) -> Chosen:
        """Put codes in the place of frames; `occasion` as `ProductQuantiser` has it."""
        return self.quantiser(frames.values, occasion)

    def codes(self, frames: Frames) -> Int[Tensor, "batch time groups"]:
        """Tell each frame's codes; on padding they mean nothing."""
        return self.quantise(frames).codes

    def read(self, quantised: Frames) -> Hidden:
        """Read the codes' vectors."""
        values: Float[Tensor, "batch time dim"] = quantised.values
        return Hidden((values, *self.stack(values, unless_full(quantised))), quantised.lengths)
