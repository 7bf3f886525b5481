"""Files of features made elsewhere → samples in which each frame occupies one hop (docs/decisions/0006).

Two layouts are read: numpy's `.npy` with an array [time, dim], and the binary matrices of Kaldi's archives, which are
named as Kaldi names them, `feats.ark:1234`, by the byte at which they begin. Values are float32, or float64 that is
rounded to it; a frame is 10 ms. The readers are our own: no header is evaluated, nothing is unpickled, no command is
run, and no header can ask for more memory than the file has bytes.
"""

import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mockingjay.audio.faults import AudioError, fault
from mockingjay.audio.headers import Header, descriptor
from mockingjay.core.types import SAMPLE_RATE

FRAME = 160  # samples that a frame occupies, 10 ms; so many values it may have at most

_ARCHIVE = re.compile(r"(.+\.ark):(\d{1,18})", re.DOTALL)
_NPY = re.compile(rb"\{'descr': '(<f[48])', 'fortran_order': False, 'shape': \((\d{1,18}), (\d{1,18})\), \} *\n")
_KALDI = {b"FM ": "<f4", b"DM ": "<f8"}
_START = 4096  # bytes; longer headers than numpy's 128 and Kaldi's 15 are not ours
_BLOCK = 8192  # frames read at once


def located(path: str | os.PathLike[str]) -> tuple[str, int]:
    """Part a path into the file and the byte where its matrix begins: 0, but for Kaldi's `feats.ark:1234`."""
    name = os.fspath(path)
    found = _ARCHIVE.fullmatch(name)
    return (found[1], int(found[2])) if found else (name, 0)


def holds_features(path: str | os.PathLike[str]) -> bool:
    """Whether a path names features rather than sound; told by its end, for what is in it is not asked."""
    name = os.fspath(path)
    return name.lower().endswith(".npy") or _ARCHIVE.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Matrix:
    """Frames in an open file."""

    path: str
    descriptor: int
    frames: int
    dim: int
    layout: str  # of a value, as numpy names it
    begin: int  # byte of the first value

    def wave(self, first: int, count: int) -> Float[Tensor, " samples"]:
        """Read frames, each the first values of `FRAME` samples whose others are zero.

        Raises:
            AudioError: A value is not finite, or the file ends early.
        """
        wave = np.zeros((count, FRAME), np.float32)
        size = self.dim * np.dtype(self.layout).itemsize
        for place in range(0, count, _BLOCK):
            wanted = min(_BLOCK, count - place)
            data = os.pread(self.descriptor, wanted * size, self.begin + (first + place) * size)
            if len(data) < wanted * size:
                raise _truncated(self.path, f"it ends within frame {first + place + len(data) // size}")
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is found below
                values = np.frombuffer(data, self.layout).reshape(wanted, self.dim).astype(np.float32)
            finite = np.isfinite(values).all(1)
            if not finite.all():
                frame = first + place + int(finite.argmin())
                what = f"frame {frame} holds a value that is not finite, expected finite numbers"
                raise fault(self.path, "non-finite", what, "compute these features again, or remove it")
            wave[place : place + wanted, : self.dim] = values
        return torch.from_numpy(wave.reshape(-1))


@contextmanager
def opened_matrix(path: str | os.PathLike[str]) -> Iterator[tuple[Matrix, Header]]:
    """Open a file of features for reading, with its checked header.

    Raises:
        AudioError: The file cannot be used, as far as that can be told without reading its values.
    """
    file, offset = located(path)
    name = os.fspath(path)
    with descriptor(file) as handle:
        size = os.fstat(handle).st_size
        if size == 0:
            raise fault(path, "empty", "empty (0 bytes), expected features", "make it again, or remove it")
        start = os.pread(handle, _START, offset)
        archived = _ARCHIVE.fullmatch(name) is not None
        layout, frames, dim, begin = _kaldi(name, start) if archived else _npy(name, start)
        if not 1 <= dim <= FRAME:
            what = f"{dim} values a frame, expected 1 to {FRAME}"
            raise fault(path, "format", what, "leave out derivatives, or reduce the dimensions")
        if not frames:
            raise fault(path, "no-samples", "0 frames, expected features", "make it again, or remove it")
        promised = offset + begin + frames * dim * np.dtype(layout).itemsize
        if promised > size:
            raise _truncated(name, f"{size} bytes of the {promised} its header promises")
        kind = "ARK" if archived else "NPY"
        header = Header(frames * FRAME / SAMPLE_RATE, SAMPLE_RATE, 1, frames * FRAME, kind, size, dim)
        yield Matrix(name, handle, frames, dim, layout, offset + begin), header


def _npy(path: str, start: bytes) -> tuple[str, int, int, int]:
    """Read numpy's header: layout, frames, values a frame, bytes before the first."""
    if start[:6] != b"\x93NUMPY" or len(start) < 12 or start[6] not in (1, 2, 3):
        what = "no numpy array by its first bytes, expected one"
        raise fault(path, "not-audio", what, "save it with numpy.save, or remove it")
    begin = 10 if start[6] == 1 else 12
    (length,) = struct.unpack_from("<H" if start[6] == 1 else "<I", start, 8)
    words = start[begin : begin + length]
    found = _NPY.fullmatch(words)
    if found is None:
        shown = words[:120].decode("ascii", "backslashreplace").strip()
        what = f"an array of another kind ({shown}), expected float32 [time, dim] in C order"
        raise fault(path, "format", what, "save it as numpy.save(path, numpy.ascontiguousarray(values, 'float32'))")
    return found[1].decode(), int(found[2]), int(found[3]), begin + length


def _kaldi(path: str, start: bytes) -> tuple[str, int, int, int]:
    """Read the header of a binary matrix: layout, frames, values a frame, bytes before the first."""
    layout = _KALDI.get(start[2:5])
    if start[:2] != b"\0B" or layout is None or len(start) < 15 or start[5] != 4 or start[10] != 4:
        packed = start[:4] == b"\0BCM"
        what = f"{'a compressed' if packed else 'no binary'} matrix at that byte, expected one of floats"
        raise fault(path, "format", what, "write it with copy-feats --compress=false ark:- ark,scp:…, or list it anew")
    frames, dim = (struct.unpack_from("<i", start, place)[0] for place in (6, 11))
    if frames < 0:
        raise fault(path, "corrupt", f"{frames} frames, expected 1 or more", "make it again, or remove it")
    return layout, frames, dim, 15


def _truncated(path: str, what: str) -> AudioError:
    return fault(path, "truncated", f"truncated: {what}", "copy it again from its source, or remove it")


def matrices(path: str) -> Iterator[tuple[str, str]]:
    """Walk through a Kaldi archive: each matrix's key, and the path that names it.

    Raises:
        AudioError: What stands where a key or a matrix should is neither; or the file ends early.
    """
    with descriptor(path) as handle:
        size, place = os.fstat(handle).st_size, 0
    while place < size:
        with descriptor(path) as handle:
            key, space, _ = os.pread(handle, _START, place).partition(b" ")
        if not space or not key or b"\0" in key:
            what = f"no key at byte {place}, expected one and a space before every matrix"
            raise fault(path, "corrupt", what, "write the archive again, or give its .scp")
        name = f"{path}:{place + len(key) + 1}"
        with opened_matrix(name) as (matrix, _):
            place = matrix.begin + matrix.frames * matrix.dim * np.dtype(matrix.layout).itemsize
        yield os.fsdecode(key), name
