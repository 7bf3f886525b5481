"""MP3 without a table of its length: the decoder guesses it from the first frame, and drops what lies beyond its guess.

At a constant bit rate the guess is right. At a variable one it can lose most of the file without a word, so such files
are found.
"""

import os

_LAYER_3_KBPS = {
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_LOOKED_AT = 1 << 16  # bytes; 100 frames and more


def has_unknown_length(descriptor: int) -> bool:
    """Whether an MP3 file has neither a table of its length nor a constant bit rate in its first 64 KiB."""
    data = os.pread(descriptor, _LOOKED_AT, _first_frame(descriptor))
    bit_rates = set()
    position = 0
    while position + 4 <= len(data):
        length, bit_rate = _frame(data[position : position + 4])
        if not length:
            break
        if not bit_rates and any(name in data[:64] for name in (b"Xing", b"Info", b"VBRI")):
            return False
        bit_rates.add(bit_rate)
        position += length
    return len(bit_rates) > 1


def promised_bytes(descriptor: int) -> int:
    """Read from an MP3's Xing or Info table where the file should end; 0 where no table says so."""
    offset = _first_frame(descriptor)
    data = os.pread(descriptor, 64, offset)
    table = max(data.find(b"Xing"), data.find(b"Info"))
    if table < 0 or len(data) < table + 16 or not data[table + 7] & 2:
        return 0
    place = table + 8 + 4 * (data[table + 7] & 1)  # the count of frames stands before that of bytes
    return offset + int.from_bytes(data[place : place + 4], "big")


def _first_frame(descriptor: int) -> int:
    """Where the first frame stands: behind the ID3 tag, whose length has seven bits a byte (ID3v2.4, section 3.1)."""
    start = os.pread(descriptor, 10, 0)
    if not start.startswith(b"ID3") or len(start) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(start[6:], (21, 14, 7, 0)))


def _frame(head: bytes) -> tuple[int, int]:
    """Read a frame's (length in bytes, kbit/s); (0, 0) where none begins, or of another layer than 3."""
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    index, rate = head[2] >> 4, head[2] >> 2 & 3
    if head[0] != 0xFF or head[1] < 0xE0 or version == 1 or layer != 1 or index in (0, 15) or rate == 3:
        return 0, 0
    kbps = _LAYER_3_KBPS[1 if version == 3 else 2][index]
    samples = 144 if version == 3 else 72  # an eighth of a frame's samples
    return samples * kbps * 1000 // _RATES[version][rate] + (head[2] >> 1 & 1), kbps
