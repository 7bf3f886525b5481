"""Recordings too long for one forward pass: represented stretch by stretch, as if at once wherever that can be.

A stretch is read with an overlap on either side, and only its own steps are kept. What a frontend takes over an
utterance (its level, its mean and variance) is taken over the whole recording first. A recurrent context that reads one
way goes on from the state in which the stretch before ended, and an encoder that reads in windows has the same windows
in either case. By these a recording in stretches is the recording at once. Any other context that sees the future sees
no further than the overlap reaches.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mockingjay.core.representation import Representation
from mockingjay.core.types import Frames, Hidden, Waves
from mockingjay.encoders import windows
from mockingjay.encoders.contexts.quantised_recurrent import QuantisedRecurrent
from mockingjay.encoders.contexts.recurrent import Recurrent, carrying
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends.conditioning import Level
from mockingjay.encoders.frontends.frontend import Frontend
from mockingjay.encoders.frontends.normalise import Normalise, statistics

EDGE = 8_000  # samples at a cut's either side whose frames know of the cut: half a second, wider than any window
ONE_WAY = Recurrent | QuantisedRecurrent  # contexts that can go on from the state in which they ended


@dataclass(frozen=True, slots=True)
class Stretch:
    """Which samples of a recording are read together, whose frames the context is shown, and whose steps are kept."""

    read: range
    shown: range
    own: range


Read = Callable[[range], Waves]  # a batch of one, where the representation lives


def stretches_for(representation: Representation, samples: int, longest: int, overlap: int) -> list[Stretch]:
    """Cut a recording as a representation needs it: between steps, and where it reads in windows, between windows.

    Args:
        representation: What will read it.
        samples: Of the recording.
        longest: Samples that a stretch has of its own at most, where two windows are not more.
        overlap: Samples on either side, where a window is not more.
    """
    window = representation.config.window if isinstance(representation, Encoder) else None
    if not isinstance(representation, Encoder) or window is None:
        return cut(samples, representation.hop, longest, overlap)
    half = window // 2 * representation.frontend.grid.hop
    return cut(samples, half, longest, max(overlap, 2 * half))


def cut(samples: int, hop: int, longest: int, overlap: int) -> list[Stretch]:
    """Cut a recording into equal stretches that begin on its steps.

    Args:
        samples: Of the recording.
        hop: Samples per step.
        longest: Samples that a stretch may have of its own, to a hop's precision and at least two hops.
        overlap: Samples whose frames the context is shown on either side, as far as the recording has them, rounded up
            to whole steps and at least one.
    """
    count = -(-samples // max(longest, 2 * hop))
    bounds = [samples * number // count // hop * hop for number in range(count)] + [samples]

    def widened(inner: range, by: int) -> range:
        margin = max(1, -(-by // hop)) * hop
        return range(max(0, inner.start - margin), min(samples, inner.stop + margin))

    owned = [range(low, high) for low, high in pairwise(bounds)]
    return [Stretch(widened(widened(own, overlap), EDGE), widened(own, overlap), own) for own in owned]


def within(inner: range, outer: range, hop: int) -> slice:
    """Say which of the steps over the outer samples are the inner ones'; at the recording's end all that are left."""
    first = (inner.start - outer.start) // hop
    return slice(first, None if inner.stop == outer.stop else first + len(inner) // hop)


def represent_in_stretches(
    representation: Representation, stretches: Sequence[Stretch], read: Read
) -> Iterator[Hidden]:
    """Represent a recording stretch by stretch; what comes, put end to end, is its hidden states.

    Args:
        representation: In evaluation mode.
        stretches: From `stretches_for`.
        read: Called for each stretch, two or three times where something is taken over the whole recording.

    Raises:
        DataError: As `read`, or a stretch is too short for the frontend.
    """
    encoder = representation if isinstance(representation, Encoder) else None
    carried = encoder is not None and isinstance(encoder.context, ONE_WAY) and encoder.config.window is None
    with ExitStack() as stack:
        for frontend in representation.modules():
            if isinstance(frontend, Frontend):
                _hear(frontend, stretches, read, stack)
        if encoder is not None and carried:
            stack.enter_context(carrying(encoder.context))
        for stretch in stretches:
            waves = read(stretch.read)
            if encoder is None:
                yield _kept(representation(waves), within(stretch.own, stretch.read, representation.hop))
            elif carried:
                yield encoder.context(_frames(encoder.frontend, waves, stretch.own, stretch.read))
            else:
                frames = _frames(encoder.frontend, waves, stretch.shown, stretch.read)
                hidden = windows.read(encoder.context, frames, encoder.config.window)
                yield _kept(hidden, within(stretch.own, stretch.shown, encoder.hop))


def _hear(frontend: Frontend, stretches: Sequence[Stretch], read: Read, stack: ExitStack) -> None:
    """Take what a frontend takes over an utterance over the whole recording, until the stack is left."""
    level, normalise = (getattr(frontend, name, None) for name in ("level", "normalise"))
    if isinstance(level, Level) and level.level is not None:
        stack.enter_context(level.heard(read(each.own).samples[0] for each in stretches))
    if isinstance(normalise, Normalise) and normalise.by == "utterance":
        with _plain(frontend, normalise, stretches, read) as frames:
            mean, std = statistics(frames)
        stack.enter_context(normalise.given(mean, std))


@contextmanager
def _plain(
    frontend: Frontend, normalise: Normalise, stretches: Sequence[Stretch], read: Read
) -> Iterator[Iterable[Frames]]:
    """Walk through a recording's frames before they are normalised."""
    zero, one = (torch.full((frontend.dim,), value) for value in (0.0, 1.0))
    with normalise.given(zero, one):
        yield (_frames(frontend, read(each.read), each.own, each.read) for each in stretches)


def _frames(frontend: Frontend, waves: Waves, inner: range, outer: range) -> Frames:
    values = frontend(waves).values[:, within(inner, outer, frontend.grid.hop)]
    return Frames(values, _lengths(values))


def _kept(hidden: Hidden, steps: slice) -> Hidden:
    layers = tuple(layer[:, steps] for layer in hidden.layers)
    return Hidden(layers, _lengths(layers[0]))


def _lengths(values: Float[Tensor, "1 time dim"]) -> Int[Tensor, " 1"]:
    return torch.tensor([values.shape[1]], device=values.device)
