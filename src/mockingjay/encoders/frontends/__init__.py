"""Frontends: samples → frames."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from mockingjay.encoders.frontends.fbank import Fbank
from mockingjay.encoders.frontends.frontend import Frontend
from mockingjay.encoders.frontends.linear import Linear
from mockingjay.encoders.frontends.log_mel import LogMel
from mockingjay.encoders.frontends.mfcc import MFCC
from mockingjay.encoders.frontends.posteriors import Posteriors
from mockingjay.encoders.frontends.precomputed import Precomputed
from mockingjay.encoders.frontends.recogniser import Recogniser
from mockingjay.encoders.frontends.stacked import UNSTACKED, Stacked, unstack
from mockingjay.encoders.frontends.waveform import Waveform

FRONTENDS: Mapping[str, type[Frontend]] = {
    **UNSTACKED,
    "stacked": Stacked,
    "posteriors": Posteriors,
    "recogniser": Recogniser,
    "waveform": Waveform,
}

FrontendConfig = Annotated[
    LogMel.Config
    | Fbank.Config
    | Linear.Config
    | MFCC.Config
    | Precomputed.Config
    | Stacked.Config
    | Posteriors.Config
    | Recogniser.Config
    | Waveform.Config,
    Field(discriminator="kind"),
]


def build_frontend(config: FrontendConfig) -> Frontend:
    """Build the frontend a config describes."""
    return FRONTENDS[config.kind](config)


__all__ = [
    "FRONTENDS",
    "MFCC",
    "Fbank",
    "Frontend",
    "FrontendConfig",
    "Linear",
    "LogMel",
    "Posteriors",
    "Precomputed",
    "Recogniser",
    "Stacked",
    "Waveform",
    "build_frontend",
    "unstack",
]
