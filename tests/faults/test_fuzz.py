"""The promise: no header, however spoilt, crashes, hangs or starves a reader; `--fuzz 50000` tries so many."""

import numpy as np
import pytest
from audio_bytes import encoded
from child import survey

from mockingjay import audio
from mockingjay.audio import AudioError

SOUND = {
    form: encoded(form=form, subtype=subtype)
    for form, subtype in {
        "WAV": None, "FLAC": None, "OGG": "OPUS", "MP3": None, "AIFF": None, "AU": None, "W64": None, "CAF": None,
        "RF64": None, "NIST": None, "WAVEX": "FLOAT",
    }.items()
}  # fmt: skip
DENSE = 8  # frames a byte, more than any coding has whose size goes with its length
EDGES = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 40,
    (1 << 63) - 1,
    (1 << 64) - 1,
)


def spoil(content: bytes, random: np.random.Generator) -> bytes:
    """Change a header in one to four places: a byte, a field's value, a piece cut out, doubled, or the rest cut off."""
    changed = bytearray(content)
    for _ in range(random.integers(1, 5)):
        place = int(random.integers(0, min(200, len(changed))))
        kind, width = random.integers(6), int(random.choice([2, 4, 8]))
        edge = EDGES[random.integers(len(EDGES))] & ((1 << 8 * width) - 1)
        if kind <= 1:
            changed[place] = random.integers(256)
        elif kind <= 3:
            changed[place : place + width] = edge.to_bytes(width, "little" if kind == 2 else "big")
        elif kind == 4:
            changed[place:place] = changed[place : place + width * int(random.integers(0, 9))]
        else:
            del changed[place : place + (width if random.random() < 0.9 else len(changed))]
        if not changed:
            break
    return bytes(changed)


@pytest.mark.parametrize("form", SOUND)
def test_spoilt_headers_of_audio(form, tmp_path, fuzz):
    path = tmp_path / "x.wav"

    def read(seed):
        path.write_bytes(spoil(SOUND[form], np.random.default_rng(seed)))
        try:
            header, wave = audio.load(path)
        except AudioError as error:
            text = str(error)
            return "" if text.startswith(f"{path}: ") and text.isprintable() else text
        assert wave.isfinite().all() and len(wave) > 0
        if header.format not in ("FLAC", "OGG", "MP3"):
            assert header.frames <= DENSE * header.bytes, header
        return ""

    count = (fuzz or 2_000) // len(SOUND) + 1
    assert not {seed: (fate, said) for seed, fate, said in survey(read, range(count)) if fate or said}
