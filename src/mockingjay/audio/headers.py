"""What a file says it is, before any sample is decoded.

Nothing is trusted: the file is asked for by `stat` before it is opened (a pipe would hang its reader), its first bytes
must be those of a format on the list before libsndfile sees it (which keeps its rarely fuzzed parsers out of reach),
and the length its header promises is compared with the bytes that are there.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import soundfile

from mockingjay.audio.faults import AudioError, fault
from mockingjay.audio.mpeg import has_unknown_length
from mockingjay.audio.promises import missing

RATES = (4_000, 192_000)  # samples per second, lowest and highest that speech is recorded at
CHANNELS = 2  # more are an array, not a recording of one talker: which to use is the user's decision
UNKNOWN = 2**62  # frames; libsndfile's word for a stream whose header states no length

_FORMATS = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "NIST")
_STARTS = (b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"OggS", b"ID3", b"FORM", b".snd", b"caff", b"NIST_1A")
_OTHERS: Mapping[bytes, str] = {
    b"version https://git-lfs": "a git-LFS pointer",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x7fELF": "a program",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a numpy array",
    b"#EXTM3U": "a playlist",
    b"\x80\x02": "a Python pickle",
    b"\x80\x03": "a Python pickle",
    b"\x80\x04": "a Python pickle",
    b"\x80\x05": "a Python pickle",
}
_UNDECODED: Mapping[bytes, str] = {
    b"\x1a\x45\xdf\xa3": "Matroska or WebM",
    b"\x30\x26\xb2\x75": "Windows Media",
    b"#!AMR": "AMR",
    b"ajkg": "Shorten",
    b"wvpk": "WavPack",
    b"MAC ": "Monkey's Audio",
    b"DSD ": "DSD",
    b"\xff\xf1": "AAC",
    b"\xff\xf9": "AAC",
}
_INSIDE: Mapping[bytes, tuple[int, tuple[bytes, ...]]] = {  # containers of anything: where they say what, and sounds
    b"RIFF": (8, (b"WAVE",)),
    b"FORM": (8, (b"AIFF", b"AIFC")),
    b"OggS": (28, (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")),
}
_UNIMPLEMENTED = 18  # libsndfile's number for a coding that it knows and does not decode
_CONVERT = "convert it, for example with ffmpeg, to flac"


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says it is."""

    seconds: float
    rate: int  # samples per second
    channels: int
    frames: int  # samples per channel
    format: str  # libsndfile's name: WAV, FLAC, OGG, MP3 …; of features NPY or ARK
    bytes: int
    dim: int | None = None  # values a frame of features; None of sound


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[tuple[soundfile.SoundFile, Header]]:
    """Open a file for decoding, with its checked header.

    Raises:
        AudioError: The file cannot be used, as far as that can be told without decoding it.
    """
    with descriptor(path) as handle:
        size = os.fstat(handle).st_size
        start = os.pread(handle, 512, 0)
        _sniff(path, start, size)
        if lost := missing(handle, size):
            what = f"truncated: {size} bytes of the {size + lost} its header promises"
            raise fault(path, "truncated", what, "copy it again from its source, or cut its header to what is left")
        try:
            with soundfile.SoundFile(handle, closefd=False) as file:
                yield file, _checked(path, handle, file, size)
        except soundfile.LibsndfileError as error:
            if error.code == _UNIMPLEMENTED and not start.startswith(b"fLaC"):  # which has one coding only
                what = "audio in a coding that is not decoded here, expected for example plain PCM"
                raise fault(path, "format", what, _CONVERT) from None
            what = f"its header cannot be decoded ({error.error_string or 'unknown error'}), expected whole audio"
            raise fault(path, "corrupt", what, "copy it again from its source, or remove it") from None


@contextmanager
def descriptor(path: str | os.PathLike[str]) -> Iterator[int]:
    """Open a regular file for reading; what the system refuses, now or later, becomes a fault.

    Raises:
        AudioError: There is no such file, it is none, or it cannot be read.
    """
    handle = _open(path)
    try:
        yield handle
    except OSError as error:
        raise _refused(path, error) from None
    finally:
        os.close(handle)


def _open(path: str | os.PathLike[str]) -> int:
    try:
        mode = Path(path).stat().st_mode
        if not stat.S_ISREG(mode):
            kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
            what = f"{kinds.get(stat.S_IFMT(mode), 'a device')}, expected an audio file"
            raise fault(path, "not-a-file", what, "name a regular file")
        # Not blocking: should the name become a pipe after the stat, opening it still returns at once.
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _refused(path, error) from None


def _refused(path: str | os.PathLike[str], error: OSError | ValueError) -> AudioError:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return fault(path, "missing", "no such file, expected audio", "correct the path, or remove it from the list")
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return fault(path, "unreadable", f"cannot be read ({reason})", "check its permissions and its disk")


def _sniff(path: str | os.PathLike[str], start: bytes, size: int) -> None:
    """Refuse what is not audio, and say what it is."""
    if size == 0:
        raise fault(path, "empty", "empty (0 bytes), expected audio", "copy it again from its source, or remove it")
    layer_3_or_2 = len(start) > 1 and start[0] == 0xFF and start[1] & 0xE0 == 0xE0 and start[1] & 6 in (2, 4)
    place, sounds = _INSIDE.get(start[:4], (0, ()))
    soundless = place > 0 and len(start) >= place + 8 and not start.startswith(sounds, place)
    if not soundless and (start.startswith(_STARTS) or (layer_3_or_2 and not start.startswith(b"\xff\xfe"))):
        return
    undecoded = next((name for magic, name in _UNDECODED.items() if start.startswith(magic)), None)
    if undecoded or start[4:8] == b"ftyp":
        what = f"{undecoded or 'MP4 or M4A'} audio, expected wav, flac, ogg, opus, mp3, aiff, au or caf"
        raise fault(path, "format", what, _CONVERT)
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    other = next((name for magic, name in _OTHERS.items() if start.startswith(magic)), None)
    if soundless:
        other = f"{start[place : place + 8].decode('latin-1')!r} inside {start[:4].decode()}"
    elif other is None and text.startswith((b"<!doctype html", b"<html")):
        other = "an HTML page"
    if other is None:
        other = "text" if text and not set(text) - set(range(32, 256)) - set(b"\t\r\n\f") else "of an unknown format"
    mend = "run `git lfs pull`" if "git-LFS" in other else "download or export the audio again, or remove it"
    raise fault(path, "not-audio", f"not audio but {other}, expected wav, flac, ogg, opus or mp3", mend)


def _checked(path: str | os.PathLike[str], descriptor: int, file: soundfile.SoundFile, size: int) -> Header:
    if file.format not in _FORMATS:
        what = f"{file.format} audio, expected wav, flac, ogg, opus, mp3, aiff, au or caf"
        raise fault(path, "format", what, _CONVERT)
    if file.channels > CHANNELS:
        what = f"{file.channels} channels, expected 1, or 2 to be averaged"
        raise fault(path, "channels", what, "choose the channel to use and export it as a mono file")
    if not RATES[0] <= file.samplerate <= RATES[1]:
        what = f"{file.samplerate} samples per second, expected {RATES[0]} to {RATES[1]}"
        raise fault(path, "rate", what, "correct the rate in its header, or export it again")
    if file.frames == 0:
        raise fault(path, "no-samples", "0 samples behind its header, expected audio", "record it again, or remove it")
    if file.frames >= UNKNOWN or (file.format == "MP3" and has_unknown_length(descriptor)):
        what = f"{file.format} audio whose header states no length, as written to a pipe"
        raise fault(path, "format", what, "encode it again into a file, for example with `ffmpeg -i`")
    return Header(file.frames / file.samplerate, file.samplerate, file.channels, file.frames, file.format, size)
