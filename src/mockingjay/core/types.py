"""The only values that cross layers: Waves → Frames → Hidden → Loss, and the utterances they came from.

Every batch is right-padded and carries its true lengths as integers; no sample or feature value is ever read as a
length.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

SAMPLE_RATE = 16_000  # samples per second, of every model here


def valid_steps(lengths: Int[Tensor, " batch"], time: int) -> Bool[Tensor, "batch time"]:
    """Mark the steps below each length."""
    return torch.arange(time, device=lengths.device) < lengths[:, None]


def pad(sequences: Sequence[Float[Tensor, "_ ..."]]) -> tuple[Float[Tensor, "batch _ ..."], Int[Tensor, " batch"]]:
    """Right-pad sequences with zeros along their first axis and count their lengths."""
    lengths = torch.tensor([len(sequence) for sequence in sequences], device=sequences[0].device)
    return torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True), lengths


@dataclass(frozen=True, slots=True)
class Waves:
    """Mono samples at `SAMPLE_RATE`, right-padded with zeros."""

    samples: Float[Tensor, "batch samples"]
    lengths: Int[Tensor, " batch"]  # samples

    @classmethod
    def pad(cls, waves: Sequence[Float[Tensor, " _"]]) -> "Waves":
        """Batch waves of any lengths."""
        return cls(*pad(waves))

    def to(self, device: torch.device | str) -> "Waves":
        """Move to a device; on CUDA the copy overlaps with computation when the memory is pinned."""
        return Waves(self.samples.to(device, non_blocking=True), self.lengths.to(device, non_blocking=True))


@dataclass(frozen=True, slots=True)
class Frames:
    """One vector per hop."""

    values: Float[Tensor, "batch time dim"]
    lengths: Int[Tensor, " batch"]  # frames

    @property
    def valid(self) -> Bool[Tensor, "batch time"]:
        """True where a frame belongs to its utterance, False on padding."""
        return valid_steps(self.lengths, self.values.shape[1])


@dataclass(frozen=True, slots=True)
class Hidden:
    """All layers' outputs on one time axis; layer 0 is what the first block reads."""

    layers: tuple[Float[Tensor, "batch time dim"], ...]
    lengths: Int[Tensor, " batch"]  # steps

    @property
    def last(self) -> Float[Tensor, "batch time dim"]:
        """The top layer."""
        return self.layers[-1]

    @property
    def valid(self) -> Bool[Tensor, "batch time"]:
        """True where a step belongs to its utterance, False on padding."""
        return valid_steps(self.lengths, self.last.shape[1])

    def split(self, layer: int = -1) -> list[Float[Tensor, "_ dim"]]:
        """Cut one layer into the utterances' own lengths."""
        return [values[:length] for values, length in zip(self.layers[layer], self.lengths.tolist())]

    def tiled(self, factor: int, lengths: Int[Tensor, " batch"]) -> "Hidden":
        """Bring steps of several frames back to frames: frame t holds step ⌊t / factor⌋.

        Stacking drops the frames that do not fill a step; they hold their utterance's last step.

        Args:
            factor: Frames in a step.
            lengths: Frames of each utterance, of which each has a step.
        """
        lengths = lengths.to(self.lengths.device)
        frames = torch.arange(int(lengths.max()), device=lengths.device)
        steps = torch.minimum(frames // factor, self.lengths[:, None] - 1)
        rows = torch.arange(len(lengths), device=lengths.device)[:, None]
        return Hidden(tuple(layer[rows, steps] for layer in self.layers), lengths)


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of one audio file and everything known about it."""

    id: str
    path: str  # absolute
    seconds: float
    start: float = 0.0  # seconds into the file
    speaker: str | None = None
    split: str | None = None
    text: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)  # any other column
    alignment: tuple[tuple[float, float, str], ...] | None = None  # (start s, end s, phone), from the utterance's start

    def label(self, column: str) -> str | None:
        """Read `speaker`, `split`, `text` or any other column; None where it is missing."""
        if column in ("speaker", "split", "text"):
            return getattr(self, column)
        return self.labels.get(column)


@dataclass(frozen=True, slots=True)
class Batch:
    """Waves and the utterances they came from; `epoch` addresses the randomness drawn for them."""

    waves: Waves
    utterances: tuple[Utterance, ...]
    epoch: int = 0
    starts: tuple[int, ...] = ()  # samples into its utterance at which each wave begins; none: all are whole

    def to(self, device: torch.device | str) -> "Batch":
        """Move the waves to a device."""
        return Batch(self.waves.to(device), self.utterances, self.epoch, self.starts)


@dataclass(frozen=True, slots=True)
class Loss:
    """A sum to minimise and the weight it is to be divided by, so that ranks and accumulation steps add up exactly."""

    sum: Float[Tensor, ""]
    weight: Float[Tensor, ""]  # how many cells were scored
    parts: Mapping[str, Float[Tensor, ""]] = field(
        default_factory=dict
    )  # named detached sums, divided by the same weight

    @property
    def mean(self) -> Float[Tensor, ""]:
        """The loss per scored cell."""
        return self.sum / self.weight


@dataclass(frozen=True, slots=True)
class Grid:
    """Where time steps lie: the one place that turns step indices into times and back."""

    hop: int  # samples per step
    centre: float  # samples; the middle of step 0

    def times(self, steps: int) -> Float[Tensor, " steps"]:
        """Centres of the first steps, in seconds."""
        return (torch.arange(steps, dtype=torch.float64) * self.hop + self.centre) / SAMPLE_RATE

    def nearest(self, times: Float[Tensor, " points"], steps: int) -> Int[Tensor, " points"]:
        """The step whose centre is nearest to each time in seconds, within the first `steps`."""
        index = torch.floor((times.double() * SAMPLE_RATE - self.centre) / self.hop + 0.5).long()
        return index.clamp(0, steps - 1)
