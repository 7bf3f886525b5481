"""Spoofs for a corpus that has none: every utterance once more, from 40 mel bands and phases found by Griffin and Lim.

Such copies are easy to tell and show only that the machinery works: no figure made with them can be held against one of
a corpus of spoofs.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from mockingjay import audio
from mockingjay.audio.write import write
from mockingjay.core.draw import Draw, address
from mockingjay.core.types import SAMPLE_RATE, Utterance
from mockingjay.encoders.frontends.spectrum import mel_filters
from mockingjay.moves.griffin_lim import ShortTime, griffin_lim

MELS, ITERATIONS = 40, 16
LONGEST = 4.0  # seconds of an utterance that are copied
SHORTEST = 0.1  # seconds
COPIES = 460  # utterances that are copied where no other number is asked for
_COPIED = " copied"  # behind the id of what a copy was made from
_TRANSFORM = ShortTime(window=512, hop=128, fft=512)


def with_copies(
    utterances: Sequence[Utterance], folder: Path, count: int, say: Callable[[str], None]
) -> tuple[Utterance, ...]:
    """Copy some utterances; they come back as bona fide with their copies as spoofs, in the column `spoof`.

    Args:
        utterances: Sound.
        folder: Where copies are written; those that are there are not made again.
        count: How many utterances at most.
        say: Told of files that cannot be used.

    Raises:
        MachineError: The folder cannot be written.
    """
    found: list[Utterance] = []
    order = sorted(utterances, key=lambda each: (address("copies", each.id), each.id))
    for each in [each for each in order if each.seconds >= SHORTEST][:count]:
        place = folder / f"{address(each.id):016x}.wav"
        short = replace(each, seconds=min(each.seconds, LONGEST))
        try:
            wave = audio.read(short.path, short.start, short.seconds)
            if not place.is_file():
                write(place, copy(wave, Draw(0).generator("phases", each.id)))
        except audio.AudioError as error:
            say(str(error))
            continue
        told = {"id": each.id + _COPIED, "path": str(place.absolute()), "start": 0.0}
        length = len(wave) / SAMPLE_RATE
        found.append(replace(short, seconds=length, labels={**each.labels, "spoof": "bonafide"}))
        found.append(replace(short, seconds=length, labels={**each.labels, "spoof": "spoof"}, **told))
    return tuple(found)


def source(utterance: Utterance) -> str:
    """Name what a copy was made from; of anything else its own id."""
    return utterance.id.removesuffix(_COPIED)


def copy(wave: Float[Tensor, " samples"], generator: torch.Generator) -> Float[Tensor, " samples"]:
    """Make an utterance anew from its mel bands, beginning with phases drawn."""
    filters = mel_filters(MELS, _TRANSFORM.fft, "slaney")
    power = _TRANSFORM.spectrum(wave).abs().square() @ filters
    magnitude = (power @ torch.linalg.pinv(filters)).clamp(min=0).sqrt()
    phases = 2 * torch.pi * torch.rand(magnitude.shape, generator=generator)
    return griffin_lim(magnitude, phases, _TRANSFORM, len(wave), ITERATIONS)
