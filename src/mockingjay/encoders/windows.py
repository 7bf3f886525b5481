"""Read long utterances in overlapping windows, for a context that has only ever seen short ones.

A Transformer with positions of a table knows the positions it was trained at and no others: trained on crops of three
seconds, it lost 1.5 points of phone accuracy on utterances of up to nine (docs/log.md). Windows as long as the crops
give it back, and the work grows with the length and not with its square.
"""

import torch
import torch.nn.functional as F

from mockingjay.core.types import Frames, Hidden
from mockingjay.encoders.contexts.context import Context


def read(context: Context, frames: Frames, window: int | None) -> Hidden:
    """Run a context on windows that overlap by half; every step is taken from the window in whose middle it lies.

    Args:
        context: What reads.
        frames: What is read; nothing longer than the window is cut.
        window: Frames, a multiple of twice the context's stride; None reads everything at once.
    """
    time = frames.values.shape[1]
    if window is None or time <= window:
        return context(frames)
    hop = window // 2
    count = -(-(time - window) // hop) + 1
    padded = F.pad(frames.values, (0, 0, 0, (count - 1) * hop + window - time))
    begins = torch.arange(count, device=padded.device) * hop
    inside = (frames.lengths[:, None] - begins).clamp(1, window)
    hidden = context(Frames(padded.unfold(1, window, hop).transpose(2, 3).flatten(0, 1), inside.flatten()))

    steps = hop // context.stride
    last = ((frames.lengths - window).clamp(min=0) + hop - 1) // hop  # the window in which an utterance ends
    lengths = hidden.lengths.view(-1, count).gather(1, last[:, None])[:, 0] + last * steps
    step = torch.arange(time // context.stride, device=padded.device)
    chosen = ((step - steps // 2) // steps).clamp(min=0).minimum(last[:, None])
    rows = torch.arange(len(lengths), device=padded.device)[:, None] * count + chosen
    places = step - chosen * steps
    # Steps behind an utterance's end are padding, whatever they hold.
    places = places.clamp(max=2 * steps - 1)
    return Hidden(tuple(layer[rows, places] for layer in hidden.layers), lengths)
