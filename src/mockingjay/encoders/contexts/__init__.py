"""The table of contexts."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from mockingjay.encoders.contexts.context import Context
from mockingjay.encoders.contexts.transformer import Transformer

CONTEXTS: Mapping[str, type[Context]] = {"transformer": Transformer}

ContextConfig = Annotated[Transformer.Config, Field()]


def build_context(config: ContextConfig, inputs: int) -> Context:
    """Build the context a config describes, reading frames of width `inputs`."""
    return CONTEXTS[config.kind](config, inputs)
