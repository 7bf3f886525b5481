"""Hide spans of frames: choose them, then zero them, replace them by other frames, or leave them (BERT's 80/10/10).

Everything is drawn by (seed, epoch, utterance), so every visit sees fresh spans and no batch-mate changes them. Drawn
for the whole batch at once. Differs from the released code: the last frames can be chosen too, short utterances get one
span, the number of spans is rounded at random rather than down, lengths are counted rather than read off non-zero
frames, and replacements come from the unaltered frames.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Frames, valid_steps


class Spans(config.Config):
    """Which frames are hidden and how; defaults are Mockingjay BASE (arXiv 1910.12638, section 2.2)."""

    share: float = Field(default=0.15, gt=0, lt=1)
    """Share of the frames to select."""
    width: int | tuple[int, int] = 7
    """Frames in a span, or the least and most of a width drawn per utterance."""
    placement: Literal["overlapping", "disjoint"] = "overlapping"
    """Overlapping spans, as published, select about 14 %; disjoint ones never touch and select the share exactly."""
    zero: float = Field(default=0.8, ge=0, le=1)
    """Probability that the selected frames become zero."""
    random: float = Field(default=0.1, ge=0, le=1)
    """Probability that they are replaced by other frames of the utterance; else they stay as they are."""
    per: Literal["utterance", "frame"] = "utterance"
    """One draw between zero, random and untouched per utterance, as published, or per selected frame."""

    @model_validator(mode="after")
    def _possible(self) -> "Spans":
        least, most = self.widths
        if not 1 <= least <= most:
            raise ValueError(f"width {self.width} must be at least 1 and ordered")
        if self.zero + self.random > 1:
            raise ValueError(f"zero {self.zero} and random {self.random} must not exceed 1 together")
        return self

    @property
    def widths(self) -> tuple[int, int]:
        """Least and most frames in a span."""
        return (self.width, self.width) if isinstance(self.width, int) else self.width

    @property
    def zeroed(self) -> "Spans":
        """The same spans, always zeroed: in evaluation nothing that is scored may be visible."""
        return self.model_copy(update={"zero": 1.0, "random": 0.0})

    def in_steps(self, factor: int) -> "Spans":
        """Count widths in steps of `factor` stacked frames instead of in frames; a span is at least one step."""
        least, most = (max(1, round(width / factor)) for width in self.widths)
        return self.model_copy(update={"width": (least, most)})


def hide(frames: Frames, spans: Spans, draw: Draw, ids: tuple[str, ...]) -> tuple[Frames, Bool[Tensor, "batch time"]]:
    """Select spans and alter them; the selection says where to score, whether or not the frames were altered."""
    time = frames.values.shape[1]
    lengths = frames.lengths.cpu()
    widths = _widths(spans, lengths, draw, ids)
    starts = choose_starts(spans, lengths, widths, draw, ids, time)
    latest, selected = cover(starts, widths)
    fate = draw.uniform(ids, "fate", 1 if spans.per == "utterance" else time)
    source = _sources(latest, lengths, widths, draw.uniform(ids, "source", time))
    zeroed, replaced = (
        selected & (fate < spans.zero),
        selected & (fate >= spans.zero) & (fate < spans.zero + spans.random),
    )
    device = frames.values.device
    zeroed, replaced, source, selected = (
        part.to(device, non_blocking=True) for part in (zeroed, replaced, source, selected)
    )
    others = frames.values.gather(1, source[:, :, None].expand_as(frames.values))
    altered = torch.where(replaced[:, :, None], others, frames.values).masked_fill(zeroed[:, :, None], 0.0)
    return Frames(altered, frames.lengths), selected


def _widths(spans: Spans, lengths: Int[Tensor, " batch"], draw: Draw, ids: tuple[str, ...]) -> Int[Tensor, " batch"]:
    least, most = spans.widths
    widths = least + (draw.uniform(ids, "width", 1)[:, 0] * (most - least + 1)).long()
    # At least one frame must stay visible, or nothing could be predicted.
    return widths.minimum((lengths - 1).clamp(min=1))


def choose_starts(
    spans: Spans,
    lengths: Int[Tensor, " batch"],
    widths: Int[Tensor, " batch"],
    draw: Draw,
    ids: tuple[str, ...],
    time: int,
) -> Bool[Tensor, "batch time"]:
    """Mark where spans start, drawn without replacement from every place one fits; none in a single frame."""
    # Rounded at random, so that the expected share is the same at every length.
    counts = (spans.share * lengths / widths + draw.uniform(ids, "count", 1)[:, 0]).floor().long().clamp(min=1)
    if spans.placement == "disjoint":
        counts = counts.minimum((lengths + 1) // (widths + 1))
        places = lengths + 1 - counts * widths
    else:
        places = lengths - widths + 1
        counts = counts.minimum(places)
    counts = counts.where(lengths > 1, 0)
    ranks = draw.uniform(ids, "start", time).masked_fill(~valid_steps(places, time), 2.0).argsort(-1).argsort(-1)
    chosen = ranks < counts[:, None]
    if spans.placement == "overlapping":
        return chosen
    # Places are starts with all earlier spans cut out; putting them back leaves at least one frame between spans.
    order = chosen.cumsum(-1) - 1
    target = torch.arange(time) + order * widths[:, None]
    starts = torch.zeros_like(chosen)
    starts[chosen.nonzero()[:, 0], target[chosen]] = True
    return starts


def cover(
    starts: Bool[Tensor, "batch time"], widths: Int[Tensor, " batch"]
) -> tuple[Int[Tensor, "batch time"], Bool[Tensor, "batch time"]]:
    """Find each frame's latest span start (−1 before the first) and whether that span reaches it."""
    steps = torch.arange(starts.shape[1]).expand_as(starts)
    latest = torch.where(starts, steps, -1).cummax(-1).values
    return latest, (latest >= 0) & (steps - latest < widths[:, None])


def _sources(
    latest: Int[Tensor, "batch time"],
    lengths: Int[Tensor, " batch"],
    widths: Int[Tensor, " batch"],
    uniform: Float[Tensor, "batch time"],
) -> Int[Tensor, "batch time"]:
    """For each frame, the frame that would replace it: its place in another span of the same width."""
    start = latest.clamp(min=0)
    place = (torch.arange(latest.shape[1]) - start).minimum(widths[:, None] - 1)
    fits = (lengths - widths + 1)[:, None]
    return (uniform.gather(1, start) * fits).long() + place
