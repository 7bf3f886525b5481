"""One voice says its sentences into files: the unit of work of a process."""

import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from mockingjay.data.synthesis import rooms
from mockingjay.data.synthesis.espeak import RATE, SILENCE, Espeak, Spoken, start
from mockingjay.data.synthesis.phones import fold
from mockingjay.data.synthesis.voices import Voice


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence for a voice, with the seed of everything that varies about how it is said."""

    text: str
    sentiment: str
    seed: int


@dataclass(frozen=True, slots=True)
class Said:
    """A line as it lies in its file."""

    line: Line
    path: Path
    seconds: float
    alignment: tuple[tuple[float, float, str], ...]  # (start s, end s, phone), without gaps


@dataclass(frozen=True, slots=True)
class Part:
    """What one voice has to say: lines in order until `seconds` are filled."""

    voice: Voice
    lines: tuple[Line, ...]
    seconds: float
    audio: Path  # an existing folder


def speak(part: Part) -> list[Said]:
    """Write a voice's files.

    Raises:
        MachineError: espeak-ng is not installed or does not start.
        OSError: A file cannot be written.
    """
    said: list[Said] = []
    with start() as espeak:
        while sum(one.seconds for one in said) < part.seconds:
            line = part.lines[len(said)]
            path = part.audio / f"{part.voice.name}-{len(said):04d}.flac"
            samples, alignment = _say(espeak, part.voice, line)
            _write(path, samples)
            said.append(Said(line, path, len(samples) / rooms.RATE, alignment))
    return said


def _write(path: Path, samples: Float[np.ndarray, " samples"]) -> None:
    """Write FLAC of 16 bits, down to the disk."""
    encoded = io.BytesIO()  # so that a full disk is the operating system's error, not libsndfile's
    soundfile.write(encoded, samples, rooms.RATE, format="FLAC", subtype="PCM_16")
    with path.open("xb") as file:
        file.write(encoded.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def _say(
    espeak: Espeak, voice: Voice, line: Line
) -> tuple[Float[np.ndarray, " samples"], tuple[tuple[float, float, str], ...]]:
    """Say a line; how is drawn from its seed alone."""
    draw = np.random.default_rng(line.seed)
    rate, pitch, liveliness = voice.rate * draw.uniform(0.88, 1.12), draw.integers(42, 59), draw.integers(35, 66)
    spoken = espeak.say(line.text, voice.accent, voice.timbre, round(rate), int(pitch), int(liveliness))
    before, after = draw.integers(rooms.RATE // 30, rooms.RATE // 4, size=2)
    dry = np.pad(soxr.resample(spoken.samples.astype(np.float64), RATE, rooms.RATE), (before, after))
    return rooms.place(dry, draw), _align(spoken, int(before), len(dry))


def _align(spoken: Spoken, before: int, samples: int) -> tuple[tuple[float, float, str], ...]:
    """Turn onsets into (start s, end s, phone) that tile all samples at our rate; adjoining silences become one."""
    onsets = [(0, SILENCE)]
    for onset, symbol in (*spoken.onsets, (len(spoken.samples), SILENCE)):
        position = before + round(onset * rooms.RATE / RATE)
        if position == onsets[-1][0]:
            onsets.pop()
        if symbol != SILENCE or onsets[-1][1] != SILENCE:
            onsets.append((position, symbol))
    ends = [*(position for position, _ in onsets[1:]), samples]
    return tuple(
        (position / rooms.RATE, end / rooms.RATE, SILENCE if symbol == SILENCE else fold(symbol))
        for (position, symbol), end in zip(onsets, ends)
    )
