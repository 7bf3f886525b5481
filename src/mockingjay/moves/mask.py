"""Mask: choose spans of steps whose frames a learned vector replaces, and gather what stands at them.

Baevski et al. 2020 (wav2vec 2.0, arXiv 2006.11477, section 3.1): a share p of all steps are starts of spans of M steps
that may overlap. Drawn by (seed, epoch, utterance) and at once for a batch, by the moves of moves/hide. Steps are
gathered by indices made where the lengths are known, so that nothing waits for an accelerator to count.

Differs from the released code: an utterance has one span at least, not two.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from mockingjay.core.config import Config as Table
from mockingjay.core.draw import Draw
from mockingjay.core.types import Frames
from mockingjay.moves.hide import Spans, choose_starts, cover


class Masks(Table):
    """Which steps are masked; defaults are wav2vec 2.0's (section 4.2), by which about half of all steps are."""

    starts: float = Field(default=0.065, gt=0, lt=1)
    """Share of the steps at which a span starts."""
    width: int = Field(default=10, ge=1, le=65_536)
    """Steps in a span."""

    @model_validator(mode="after")
    def _possible(self) -> "Masks":
        if self.starts * self.width >= 1:
            raise ValueError(f"starts {self.starts} times width {self.width} must be below 1")
        return self


@dataclass(frozen=True, slots=True)
class Masked:
    """The steps masked in a batch."""

    hidden: Bool[Tensor, "batch time"]
    places: Int[Tensor, "batch masked"]  # the masked steps in their order; beyond their number, any others
    counts: Int[Tensor, " batch"]

    def put(
        self, values: Float[Tensor, "batch time dim"], mask: Float[Tensor, " dim"]
    ) -> Float[Tensor, "batch time dim"]:
        """Replace what stands at masked steps by the mask."""
        return torch.where(self.hidden[:, :, None], mask.to(values.dtype), values)

    def take(self, values: Float[Tensor, "batch time dim"]) -> Frames:
        """Gather what stands at masked steps; utterances have as many frames as they have masked steps."""
        return Frames(values.gather(1, self.places[:, :, None].expand(-1, -1, values.shape[2])), self.counts)


def choose_masked(masks: Masks, lengths: Int[Tensor, " batch"], time: int, draw: Draw, ids: tuple[str, ...]) -> Masked:
    """Choose the steps to mask, at least one of each utterance of two steps or more."""
    known = lengths.cpu()
    spans = Spans(share=masks.starts * masks.width, width=masks.width)
    widths = torch.full_like(known, masks.width).minimum((known - 1).clamp(min=1))
    _, hidden = cover(choose_starts(spans, known, widths, draw, ids, time), widths)
    counts = hidden.sum(1)
    places = hidden.byte().argsort(stable=True, dim=1, descending=True)[:, : max(1, int(counts.max()))]
    return Masked(*(each.to(lengths.device, non_blocking=True) for each in (hidden, places, counts)))
