"""Sound files as bytes, whole or put together from chunks that may lie."""

import io
import struct

import numpy as np
import soundfile

RATE = 16_000
TIB = 1 << 40
PCM, FLOAT = 1, 3  # format tags of a WAV file


def tone(seconds=0.3, rate=RATE, channels=1, gain=0.3):
    """Two gliding sines in a little noise."""
    times = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(len(times))
    wave = np.sin(2 * np.pi * 220 * times) + 0.5 * np.sin(2 * np.pi * 900 * times * (1 + times)) + 0.05 * noise
    return np.stack([gain * wave / (1 + number) for number in range(channels)], 1).astype(np.float32).squeeze()


def encoded(wave=None, rate=RATE, form="WAV", subtype=None, **more) -> bytes:
    """Bytes of a whole file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, tone() if wave is None else wave, rate, format=form, subtype=subtype, **more)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes, length: int | None = None, order="<") -> bytes:
    """Write a RIFF chunk, truthful unless told otherwise."""
    return (
        name + struct.pack(f"{order}I", len(content) if length is None else length) + content + bytes(len(content) % 2)
    )


def form(tag=PCM, channels=1, rate=RATE, bits=16, align=None, order="<") -> bytes:
    """Write the format chunk of a WAV file."""
    align = channels * max(1, bits // 8) if align is None else align
    fields = (tag, channels, rate & 0xFFFFFFFF, rate * align & 0xFFFFFFFF, align & 0xFFFF, bits)
    return chunk(b"fmt ", struct.pack(f"{order}HHIIHH", *fields), order=order)


def pcm(seconds=0.3, channels=1) -> bytes:
    """Sixteen-bit samples."""
    return (tone(seconds, channels=channels) * 20_000).astype("<i2").tobytes()


def wav(*chunks: bytes, length: int | None = None, magic=b"RIFF", kind=b"WAVE", order="<") -> bytes:
    """Put chunks together to a WAV file."""
    body = kind + b"".join(chunks)
    return magic + struct.pack(f"{order}I", len(body) if length is None else length) + body


def floats(wave) -> bytes:
    """A WAV file of 32-bit floats, whatever they are."""
    return wav(form(FLOAT, bits=32), chunk(b"data", np.asarray(wave, "<f4").tobytes()))


def spoilt(at: int, value: float, wave=None) -> np.ndarray:
    """A wave with one wrong sample."""
    wave = tone() if wave is None else wave
    wave[at] = value
    return wave


def patched(content: bytes, *patches: tuple[int, bytes]) -> bytes:
    """Overwrite some bytes."""
    changed = bytearray(content)
    for place, data in patches:
        changed[place : place + len(data)] = data
    return bytes(changed)
