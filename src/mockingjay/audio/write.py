"""Samples → a file, for what a model makes sound."""

import io
from pathlib import Path

import soundfile
from jaxtyping import Float
from torch import Tensor

from mockingjay.core.files import write_atomically
from mockingjay.core.types import SAMPLE_RATE


def write(path: Path, samples: Float[Tensor, " samples"]) -> None:
    """Write mono samples at `SAMPLE_RATE` as a WAV file of 16 bits; what is louder than full scale is clipped.

    Raises:
        MachineError: The file cannot be written.
    """
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.detach().float().cpu().clamp(-1, 1).numpy(), SAMPLE_RATE, "PCM_16", format="WAV")
    write_atomically(path, buffer.getvalue())
