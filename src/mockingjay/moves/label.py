"""Label: which clusters whole utterances consist of, told once before the steps and kept in files.

Hsu et al. 2021 (HuBERT, arXiv 2106.07447, section II-A): a teacher is asked about each utterance once, not about every
crop of every step, and has heard all of it. A file holds the units of `SHARE` utterances as 16-bit numbers. Its name is
a hash of who has told them and of which utterances, so that one told by another teacher is never taken for it; a pass
that is killed goes on at the next file, and ranks divide the files among them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from jaxtyping import Int, UInt16
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mockingjay import audio
from mockingjay.core.draw import address
from mockingjay.core.errors import DataError
from mockingjay.core.files import write_atomically
from mockingjay.core.types import SAMPLE_RATE, Batch, Grid, Utterance, Waves

SHARE = 512  # utterances in a file
STRETCH = 100  # seconds heard at once; longer utterances are heard in stretches of it (ours)

Tell = Callable[[Waves], Int[Tensor, "batch time"]]


class Labels:
    """Units of utterances, on the grid of who told them.

    A copy shares the files: they are no state, but a function of the weights that told them.

    Args:
        folder: Where the files lie.
        teller: Names everything that the units depend on besides the audio.
        utterances: All that will be asked about.
        grid: Where units lie, from an utterance's first sample on.
        receptive: Samples a wave must have to give at least one unit.
    """

    def __init__(self, folder: Path, teller: str, utterances: Sequence[Utterance], grid: Grid, receptive: int) -> None:
        self.grid, self.receptive = grid, receptive
        shares = [utterances[first : first + SHARE] for first in range(0, len(utterances), SHARE)]
        self._shares = {folder / _name(teller, share): share for share in shares}
        self._places = {each.id: (path, row) for path, share in self._shares.items() for row, each in enumerate(share)}
        self._files: dict[Path, _File] = {}

    def __deepcopy__(self, memo: dict) -> "Labels":
        return self

    def write(self, tell: Tell, device: torch.device, rank: int = 0, ranks: int = 1) -> None:
        """Ask for the units of a rank's share of the files, one utterance at a time, where they are not there yet.

        What cannot be read is passed over: whoever trains on it will refuse it by name.

        Raises:
            MachineError: The folder cannot be written.
        """
        for path, share in list(self._shares.items())[rank::ranks]:
            if not _whole(path, len(share)):
                units = [self._told(each, tell, device) for each in share]
                ends = np.cumsum([len(each) for each in units])
                write_atomically(path, safetensors.numpy.save({"units": np.concatenate(units), "ends": ends}))

    def read(self, id: str, first: int, grid: Grid, time: int) -> Int[Tensor, " time"] | None:
        """Read the units nearest to the middles of a crop's steps; None where none are known of the utterance.

        Where a crop begins at a multiple of the units' hop, they are those that steps of the whole utterance would be
        told, and else those nearest to where its steps truly lie.

        Args:
            id: The utterance's.
            first: The crop's first sample.
            grid: The crop's steps.
            time: How many there are; past the utterance's end its last unit is repeated.
        """
        path, row = self._places.get(id, (None, 0))
        if path is None:
            return None
        if path not in self._files:
            self._files[path] = _File(path)
        units = self._files[path].units(row)
        if units is None:
            return None
        return torch.from_numpy(units.astype(np.int64))[nearest(self.grid, grid, time, first).clamp_max(len(units) - 1)]

    def tell(
        self, batch: Batch, grid: Grid, time: int, live: Callable[[Waves, int], Int[Tensor, "batch time"]]
    ) -> Int[Tensor, "batch time"]:
        """Tell the units of a batch's crops, live where none are known of an utterance."""
        starts = batch.starts or (0,) * len(batch.utterances)
        rows = []
        for row, (utterance, first) in enumerate(zip(batch.utterances, starts, strict=True)):
            units = self.read(utterance.id, first, grid, time)
            if units is None:
                length = batch.waves.lengths[row : row + 1]
                units = live(Waves(batch.waves.samples[row : row + 1, : int(length)], length), time)[0]
            rows.append(units.cpu())
        return torch.stack(rows).to(batch.waves.samples.device, non_blocking=True)

    def _told(self, utterance: Utterance, tell: Tell, device: torch.device) -> UInt16[np.ndarray, " units"]:
        steps = STRETCH * SAMPLE_RATE // self.grid.hop
        samples, told = round(utterance.seconds * SAMPLE_RATE), [np.zeros(0, np.uint16)]
        for first in range(0, samples, steps * self.grid.hop):
            # As far beyond the stretch as its last steps reach, so that none is missing between two stretches.
            count = min(samples - first, steps * self.grid.hop + self.receptive)
            if count < self.receptive:
                break
            try:
                wave = audio.read(utterance.path, utterance.start + first / SAMPLE_RATE, count / SAMPLE_RATE)
            except DataError:
                return told[0]
            told.append(tell(Waves.pad([wave.to(device)]))[0, :steps].cpu().numpy().astype(np.uint16))
        return np.concatenate(told)


def nearest(told: Grid, asked: Grid, time: int, first: int = 0) -> Int[Tensor, " time"]:
    """Find the unit nearest to the middle of each of the first steps of a crop that begins at a sample; exact."""
    middles = torch.arange(time, dtype=torch.float64) * asked.hop + (first + asked.centre - told.centre)
    return torch.floor(middles / told.hop + 0.5).long().clamp_min(0)


class _File:
    """One file, of which only what is asked for is read into memory."""

    def __init__(self, path: Path) -> None:
        self._file = safe_open(path, framework="numpy")
        self._units = self._file.get_slice("units")
        self._ends = [0, *self._file.get_tensor("ends").tolist()]

    def units(self, row: int) -> UInt16[np.ndarray, " units"] | None:
        first, end = self._ends[row : row + 2]
        return self._units[first:end] if end > first else None  # the library refuses to read nothing


def _name(teller: str, share: Sequence[Utterance]) -> str:
    described = [f"{each.id}\x1f{each.path}\x1f{each.start}\x1f{each.seconds}" for each in share]
    return f"{address(teller, *described):016x}.safetensors"


def _whole(path: Path, rows: int) -> bool:
    """Whether a file is there and can be read."""
    try:
        with safe_open(path, framework="numpy") as file:
            return file.get_slice("ends").get_shape() == [rows] and bool(file.get_slice("units").get_shape())
    except (OSError, SafetensorError):
        return False
