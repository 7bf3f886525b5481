"""Decoders: from the vectors of an encoder back to spectrograms and samples."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from mockingjay.core.types import Grid
from mockingjay.moves.decode.decoder import Decoder, Segment
from mockingjay.moves.decode.mel import MelDecoder
from mockingjay.moves.decode.recurrent import RecurrentDecoder
from mockingjay.moves.decode.slices import SliceDecoder
from mockingjay.moves.decode.wavenet import WaveNet

DECODERS: Mapping[str, type[Decoder]] = {"wavenet": WaveNet, "recurrent": RecurrentDecoder, "mel": MelDecoder}

DecoderConfig = Annotated[WaveNet.Config | RecurrentDecoder.Config | MelDecoder.Config, Field(discriminator="kind")]


def build_decoder(config: DecoderConfig, dim: int, speaker: int, grid: Grid) -> Decoder:
    """Build the decoder a config describes, reading latents of width `dim` on a grid and speakers of another width.

    Raises:
        ConfigError: It cannot fill the time from one latent to the next.
    """
    return DECODERS[config.kind](config, dim, speaker, grid)


__all__ = ["DECODERS", "Decoder", "DecoderConfig", "MelDecoder", "Segment", "SliceDecoder", "WaveNet", "build_decoder"]
