"""Files → samples: mono float32 at the models' rate, read in blocks so that no header can ask for memory."""

import contextlib
import os

import numpy as np
import soundfile
import soxr
import torch
from jaxtyping import Float
from torch import Tensor

from mockingjay.audio.faults import AudioError, fault
from mockingjay.audio.headers import Header, opened
from mockingjay.audio.matrices import FRAME, holds_features, opened_matrix
from mockingjay.core.types import SAMPLE_RATE

LONGEST = 12 * 3600.0  # seconds read in one piece (2.8 GB of samples); stretches of longer files are fine
LOUDEST = 100.0  # full scale is 1; int16 values stored as floats reach thousands
TOLERANCE = 0.01  # seconds that lists of stretches may disagree with the file

_BLOCK = 1 << 20  # frames
_GUARD = 0.1  # seconds decoded around a stretch that is resampled; soxr's HQ filter reaches less than 20 ms at 8 kHz
_ROLL = {"MP3": 10.0, "OGG": 1.0}  # seconds decoded before a stretch: these decoders need a past to be exact
_GUESS = 0.5  # seconds that an MP3 without a table of its length may be shorter than the decoder guesses


def header(path: str | os.PathLike[str]) -> Header:
    """Read what a file says it is.

    Raises:
        AudioError: The file cannot be used, as far as that can be told without decoding it.
    """
    with opened_matrix(path) if holds_features(path) else opened(path) as (_, found):
        return found


def read(path: str | os.PathLike[str], start: float = 0.0, seconds: float | None = None) -> Float[Tensor, " samples"]:
    """Read a file, or a stretch of it, as mono samples at 16 kHz.

    Two channels are averaged. Other rates are resampled (soxr, high quality) to round(frames · 16 000 / rate) samples.
    A stretch is samples round(start · 16 000) and the round(seconds · 16 000) from there of what the whole file gives,
    exactly for lossless 16 kHz audio and to the decoder's precision else; it is found by seeking.

    A file of features is read as samples too, 160 for each of its frames, the values first and then zeros; a stretch
    of it begins and ends at whole frames.

    Args:
        path: A wav, flac, ogg, opus, mp3, aiff, au, caf, w64 or NIST file, whatever its name ends in; or features made
            elsewhere, a `.npy` or a matrix of a Kaldi archive as `feats.ark:1234`.
        start: Seconds into the file.
        seconds: Length of the stretch; to the end of the file where it is None.

    Returns:
        Finite samples, full scale at ±1; features are of any size.

    Raises:
        AudioError: The file cannot be used; `kind` says why.
    """
    return load(path, start, seconds)[1]


def load(
    path: str | os.PathLike[str], start: float = 0.0, seconds: float | None = None
) -> tuple[Header, Float[Tensor, " samples"]]:
    """Read as `read` does, and return what the file says it is beside the samples.

    Raises:
        AudioError: The file cannot be used; `kind` says why.
    """
    if holds_features(path):
        return _load_features(path, start, seconds)
    with opened(path) as (file, header):
        total = _resampled(header.frames, header.rate)
        first, count = _stretch(path, header, total, start, seconds)
        step = header.rate // np.gcd(header.rate, SAMPLE_RATE)  # frames from one joint point of both grids to the next
        begin, end = first, min(header.frames, first + count)
        if header.rate != SAMPLE_RATE:
            guard = int(_GUARD * header.rate)
            begin = max(0, first * header.rate // SAMPLE_RATE - guard) // step * step
            end = min(header.frames, -(-(first + count) * header.rate // SAMPLE_RATE) + guard)
        wave = _decode(path, file, header, int(begin), int(end))
        wave = wave[first - begin * SAMPLE_RATE // header.rate :][:count]
        assert len(wave) == count or header.format == "MP3", (path, len(wave), count)
        return header, torch.from_numpy(wave)


def _load_features(
    path: str | os.PathLike[str], start: float, seconds: float | None
) -> tuple[Header, Float[Tensor, " samples"]]:
    with opened_matrix(path) as (matrix, header):
        first, count = (round(samples / FRAME) for samples in _stretch(path, header, header.frames, start, seconds))
        first = min(first, matrix.frames - 1)
        return header, matrix.wave(first, min(max(count, 1), matrix.frames - first))


def _resampled(frames: int, rate: int) -> int:
    return (2 * frames * SAMPLE_RATE + rate) // (2 * rate)


def _stretch(
    path: str | os.PathLike[str], header: Header, total: int, start: float, seconds: float | None
) -> tuple[int, int]:
    """Turn seconds into (first sample, count) at 16 kHz, inside the file."""
    asked = seconds if seconds is not None else header.seconds - start
    if min(asked, header.seconds) > LONGEST:
        what = f"{asked / 3600:.1f} hours, expected at most {LONGEST / 3600:.0f} in one piece"
        raise fault(path, "too-long", what, "read it in stretches, or cut it")
    if not total:
        what = f"{header.frames} samples at {header.rate} Hz, expected enough for one at {SAMPLE_RATE} Hz"
        raise fault(path, "too-short", what, "record it again, or remove it")
    first = round(start * SAMPLE_RATE)
    last = total if seconds is None else first + round(seconds * SAMPLE_RATE)
    if first < 0 or last <= first or first >= total or last > total + round(TOLERANCE * SAMPLE_RATE):
        stretch = f"{start:g} s to {start + seconds:g} s" if seconds is not None else f"{start:g} s onwards"
        what = f"the stretch from {stretch} is asked for, but the file holds {header.seconds:g} s"
        raise fault(path, "range", what, "correct the start and duration in the list")
    return first, min(last, total) - first


def _decode(
    path: str | os.PathLike[str], file: soundfile.SoundFile, header: Header, begin: int, end: int
) -> Float[np.ndarray, " samples"]:
    """Decode frames [begin, end), average the channels and resample."""
    resample = soxr.ResampleStream(header.rate, SAMPLE_RATE, 1) if header.rate != SAMPLE_RATE else None
    position = max(0, begin - int(_ROLL.get(header.format, 0.0) * header.rate))
    waves = []
    try:
        if position:
            file.seek(position)
        while position < end:
            block = _block(file, min(_BLOCK, end - position))
            if not len(block):
                break
            _check(path, block, position)
            mono = block.mean(axis=1) if block.ndim == 2 else block
            mono = mono[max(0, begin - position) :]
            position += len(block)
            waves.append(resample.resample_chunk(mono, last=position == end) if resample else mono)
    except soundfile.LibsndfileError as error:
        raise _broken(path, file, header, position, error.error_string) from None
    guessed = int(_GUESS * header.rate) if header.format == "MP3" else 0
    if position + guessed < end or position <= begin:
        raise _broken(path, file, header, position, "")
    if resample and position < end:
        waves.append(resample.resample_chunk(np.zeros(0, np.float32), last=True))
    wave = waves[0] if len(waves) == 1 else np.concatenate(waves)
    if resample and position == header.frames:
        # The stream's own rounding may differ from ours by one sample at the very end of the file.
        lacking = _resampled(end, header.rate) - begin * SAMPLE_RATE // header.rate - len(wave)
        wave = np.pad(wave, (0, max(0, lacking)))
    return wave


def _block(file: soundfile.SoundFile, frames: int) -> Float[np.ndarray, "..."]:
    # Where a header lies, seeking in an MP3 can lead beyond its end, and soundfile then asks for less than nothing.
    return file.read(frames, dtype="float32") if file.tell() <= file.frames else np.zeros(0, np.float32)


def _check(path: str | os.PathLike[str], block: Float[np.ndarray, "..."], position: int) -> None:
    # A NaN makes both comparisons false, so two passes without temporaries see everything.
    if block.min() >= -LOUDEST and block.max() <= LOUDEST:
        return
    wrong = ~np.isfinite(block)
    if wrong.any():
        index = int(np.argwhere(wrong)[0][0])
        what = f"sample {position + index} is {block[index].ravel()[wrong[index].ravel()][0]}, expected finite numbers"
        raise fault(path, "non-finite", what, "export it again, or remove it")
    what = f"samples reach {np.abs(block).max():g}, expected full scale at 1 and at most {LOUDEST:g}"
    raise fault(path, "amplitude", what, "divide integers by their full scale before storing them as floats")


def _broken(
    path: str | os.PathLike[str], file: soundfile.SoundFile, header: Header, position: int, reason: str
) -> AudioError:
    """Tell a file that ends early from one that is damaged inside, by whether its last frame can be decoded."""
    # A decoder that failed stays failed: both questions are put to a fresh one on the same descriptor.
    found = position + _decodable(file.name, position)
    held = f"{found / header.rate:.2f} s of {header.seconds:.2f} s"
    mend = "copy it again from its source, or remove it"
    if _decodable(file.name, header.frames - 1):
        return fault(path, "corrupt", f"damaged after {held} ({reason or 'the decoder stops'})", mend)
    return fault(path, "truncated", f"truncated: it ends after {held} that its header promises", mend)


def _decodable(descriptor: int, position: int) -> int:
    """Count the frames that can be decoded from a position on, to a small block's precision."""
    frames = 0
    os.lseek(descriptor, 0, os.SEEK_SET)
    with contextlib.suppress(soundfile.LibsndfileError), soundfile.SoundFile(descriptor, closefd=False) as file:
        file.seek(position)
        while block := len(_block(file, 1024)):
            frames += block
    return frames
