"""The table of contexts."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from mockingjay.encoders.contexts.bidirectional import Bidirectional
from mockingjay.encoders.contexts.causal_convolution import CausalConvolution
from mockingjay.encoders.contexts.context import Context
from mockingjay.encoders.contexts.convolution_pair import ConvolutionPair
from mockingjay.encoders.contexts.convolutional_transformer import ConvolutionalTransformer
from mockingjay.encoders.contexts.masked_convolution import MaskedConvolution
from mockingjay.encoders.contexts.one_way_pair import OneWayPair
from mockingjay.encoders.contexts.quantised_convolution import QuantisedConvolution
from mockingjay.encoders.contexts.quantised_recurrent import QuantisedRecurrent
from mockingjay.encoders.contexts.recurrent import Recurrent
from mockingjay.encoders.contexts.relative import RelativeTransformer
from mockingjay.encoders.contexts.shared import SharedTransformer
from mockingjay.encoders.contexts.slices import Slices
from mockingjay.encoders.contexts.squeezed import Squeezed
from mockingjay.encoders.contexts.subsampled import SubsampledTransformer
from mockingjay.encoders.contexts.transformer import Transformer

CONTEXTS: Mapping[str, type[Context]] = {
    "transformer": Transformer,
    "shared-transformer": SharedTransformer,
    "subsampled-transformer": SubsampledTransformer,
    "bidirectional": Bidirectional,
    "relative-transformer": RelativeTransformer,
    "recurrent": Recurrent,
    "causal-convolution": CausalConvolution,
    "convolution-pair": ConvolutionPair,
    "convolutional-transformer": ConvolutionalTransformer,
    "quantised-convolution": QuantisedConvolution,
    "masked-convolution": MaskedConvolution,
    "one-way-pair": OneWayPair,
    "quantised-recurrent": QuantisedRecurrent,
    "slices": Slices,
    "squeezed": Squeezed,
}

ContextConfig = Annotated[
    Transformer.Config
    | SharedTransformer.Config
    | SubsampledTransformer.Config
    | Bidirectional.Config
    | RelativeTransformer.Config
    | Recurrent.Config
    | CausalConvolution.Config
    | ConvolutionPair.Config
    | ConvolutionalTransformer.Config
    | QuantisedConvolution.Config
    | MaskedConvolution.Config
    | OneWayPair.Config
    | QuantisedRecurrent.Config
    | Slices.Config
    | Squeezed.Config,
    Field(discriminator="kind"),
]


def build_context(config: ContextConfig, inputs: int) -> Context:
    """Build the context a config describes, reading frames of width `inputs`."""
    return CONTEXTS[config.kind](config, inputs)
