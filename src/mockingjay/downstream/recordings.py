"""Long recordings: what is longer than a minute is represented in stretches, in memory that its length does not change.

Lengths are ours (docs/decisions/0007).
"""

from collections.abc import Iterator

import torch

from mockingjay import audio
from mockingjay.core.representation import Representation
from mockingjay.core.types import SAMPLE_RATE, Hidden, Utterance, Waves
from mockingjay.encoders.stretches import represent_in_stretches, stretches_for

LONG = 60.0  # seconds; what is longer is represented in stretches
STRETCH = 30.0  # seconds that a stretch has of its own, at most
OVERLAP = 5.0  # seconds read on either side of it


def is_long(utterance: Utterance) -> bool:
    """Whether an utterance is represented in stretches."""
    return utterance.seconds > LONG


@torch.no_grad()
def represent_long(
    representation: Representation, utterance: Utterance, device: torch.device
) -> tuple[int, Iterator[Hidden]]:
    """Represent a long recording.

    Args:
        representation: In evaluation mode.
        utterance: Longer than `LONG`.
        device: Where the representation lives.

    Returns:
        How many steps there will be, and the hidden states, one stretch after the other.

    Raises:
        DataError: The file is missing or bad; also while the states are asked for.
    """

    def read(samples: range) -> Waves:
        start = utterance.start + samples.start / SAMPLE_RATE
        return Waves.pad([audio.read(utterance.path, start, len(samples) / SAMPLE_RATE)]).to(device)

    samples, hop = round(utterance.seconds * SAMPLE_RATE), representation.hop
    stretches = stretches_for(representation, samples, round(STRETCH * SAMPLE_RATE), round(OVERLAP * SAMPLE_RATE))
    # The end comes first: how many steps it has, no arithmetic knows as well as the representation itself.
    last = stretches[-1].read
    steps = last.start // hop + int(representation(read(last)).lengths[0])
    return steps, _undisturbed(represent_in_stretches(representation, stretches, read))


def _undisturbed(stretches: Iterator[Hidden]) -> Iterator[Hidden]:
    """Compute each stretch without gradients, whatever the caller does in between."""
    while True:
        with torch.no_grad():
            hidden = next(stretches, None)
        if hidden is None:
            return
        yield hidden


def joined(stretches: Iterator[Hidden]) -> Hidden:
    """Put stretches end to end."""
    pieces = list(stretches)
    layers = tuple(torch.cat(parts, 1) for parts in zip(*(piece.layers for piece in pieces)))
    return Hidden(layers, sum(piece.lengths for piece in pieces[1:]) + pieces[0].lengths)
