"""How many bytes a sound file's header promises: libsndfile shortens a truncated file to what is left without a word.

Only the containers' own length fields are read, with `pread`. A field that holds a stream's "not known yet" (0, or a
value near the type's end, as recorders write to a pipe) promises nothing.
"""

import math
import os
import re
import struct

from mockingjay.audio.mpeg import promised_bytes

_CHUNKS = 1000  # a file with more of them before its samples is made to waste our time
_OPEN_ENDED = 0x7FFF_F000  # bytes; from here up 32-bit lengths are placeholders of recorders that wrote to a pipe


def missing(descriptor: int, size: int) -> int:
    """Count the bytes that a file's header promises beyond its end.

    Args:
        descriptor: The open file.
        size: Its size in bytes.
    """
    start = os.pread(descriptor, 24, 0)
    magic = start[:4]
    promised = 0
    if magic in (b"RIFF", b"RIFX", b"RF64"):
        promised = _riff(descriptor, size, ">" if magic == b"RIFX" else "<")
    elif magic == b"FORM":
        promised = 8 + _field(start, 4, ">I")
    elif magic == b".snd":
        promised = _field(start, 4, ">I") + _field(start, 8, ">I")
    elif magic == b"riff":
        promised = _field(start, 16, "<Q")
    elif magic == b"caff":
        promised = _caf(descriptor, size)
    elif magic == b"NIST":
        promised = _nist(os.pread(descriptor, 1024, 0))
    elif magic == b"OggS":
        promised = _ogg(descriptor, size)
    elif start[:3] == b"ID3" or start[:1] == b"\xff":
        promised = promised_bytes(descriptor)
    # One byte of padding is often forgotten by writers.
    return promised - size if promised > size + 1 else 0


def _field(data: bytes, offset: int, layout: str) -> int:
    """Read a length field; placeholders count as 0."""
    if len(data) < offset + struct.calcsize(layout):
        return 0
    (value,) = struct.unpack_from(layout, data, offset)
    return 0 if (layout[-1] == "I" and value >= _OPEN_ENDED) or value >= 1 << 62 else value


def _riff(descriptor: int, size: int, order: str) -> int:
    """Walk the chunks of a WAV file up to its samples, and return where they should end."""
    offset = 12
    samples_64 = 0
    for _ in range(_CHUNKS):
        head = os.pread(descriptor, 16, offset)
        if len(head) < 8:
            return 0
        length = _field(head, 4, f"{order}I")
        if head[:4] == b"ds64":
            samples_64 = _field(os.pread(descriptor, 24, offset), 16, "<Q")
        if head[:4] == b"data":
            return offset + 8 + (length or samples_64) if length or samples_64 else 0
        offset += 8 + length + length % 2
        if offset >= size:
            return 0
    return 0


def _caf(descriptor: int, size: int) -> int:
    """Walk the chunks of a CAF file up to its samples, and return where they should end."""
    offset = 8
    for _ in range(_CHUNKS):
        head = os.pread(descriptor, 12, offset)
        length = _field(head, 4, ">Q")  # −1 says "to the end of the file"
        offset += 12 + length
        if head[:4] == b"data":
            return offset if length else 0
        if offset >= size:
            return 0
    return 0


def _nist(header: bytes) -> int:
    """Read from a NIST SPHERE header where its samples should end; compressed ones may take any length."""
    fields = dict(re.findall(rb"^(\w+) -\w+ (\S+)", header, re.MULTILINE))
    length = re.match(rb"NIST_1A\s+(\d+)\s", header)
    parts = [fields.get(name, b"") for name in (b"sample_count", b"channel_count", b"sample_n_bytes")]
    if length is None or b"," in fields.get(b"sample_coding", b"") or not all(map(bytes.isdigit, parts)):
        return 0
    return int(length[1]) + math.prod(map(int, parts))


def _ogg(descriptor: int, size: int) -> int:
    """Return where the last page of an Ogg file should end; a cut between two pages leaves no trace."""
    tail = os.pread(descriptor, 1 << 17, max(0, size - (1 << 17)))  # a page has at most 65 307 bytes
    page = tail.rfind(b"OggS")
    if page < 0 or len(tail) < page + 27:
        return size + 27 - (len(tail) - page) if page >= 0 else 0
    segments = tail[page + 26]
    table = tail[page + 27 : page + 27 + segments]
    return size - len(tail) + page + 27 + segments + sum(table)
