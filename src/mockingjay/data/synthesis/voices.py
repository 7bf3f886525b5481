"""Who speaks: voices of our own, drawn by a seed, as lines of an espeak-ng voice file (its docs/voices.md)."""

from dataclasses import dataclass

import numpy as np

ACCENTS = {  # files below espeak-ng's `lang`; a language's voices take turns
    "en": ("gmw/en-US", "gmw/en-GB-x-rp"),
    "de": ("gmw/de",),
    "es": ("roa/es",),
    "fr": ("roa/fr",),
}
_TRILLS_AWAY = {  # their oscillator would make a sentence depend on the ones before
    "de": 'replace 00 r r"\n',  # the uvular of most speakers
    "es": "replace 00 R2 *\nreplace 00 r *\n",  # a tap
}
VOICES_PER_LANGUAGE = 6  # four to train on, one each for dev and test
_FORMANTS = 5  # espeak-ng's 1 to 5; the others only colour
_SEXES = ("m", "f")


@dataclass(frozen=True, slots=True)
class Voice:
    """One speaker."""

    name: str
    gender: str
    language: str
    accent: str
    split: str
    timbre: str
    rate: float  # words per minute


def voices(draw: np.random.Generator) -> list[Voice]:
    """Draw six voices for each language, half of them female.

    What tells voices apart (pitch, its range, length of the vocal tract, rate, voicing) is spread evenly over the
    twelve of a sex and shuffled independently, so that no two are alike and no property goes with a language.
    """
    each = len(ACCENTS) * VOICES_PER_LANGUAGE // len(_SEXES)
    grids = {sex: [_spread(draw, each) for _ in range(5)] for sex in _SEXES}
    made = []
    for number, (language, accents) in enumerate(ACCENTS.items()):
        for index in range(VOICES_PER_LANGUAGE):
            sex = _SEXES[index % 2]
            place = number * VOICES_PER_LANGUAGE // 2 + index // 2
            pitch, lively, tract, rate, voicing = (float(grid[place]) for grid in grids[sex])
            made.append(
                Voice(
                    name=f"{language}-{sex}{index // 2}",
                    gender=sex,
                    language=language,
                    accent=accents[index // 2 % len(accents)],
                    split=_split(index, number),
                    timbre=_TRILLS_AWAY.get(language, "") + _timbre(sex, pitch, lively, tract, voicing, draw),
                    rate=165 + 35 * rate,
                )
            )
    return made


def _spread(draw: np.random.Generator, count: int) -> np.ndarray:
    """Draw one number from each of `count` equal parts of [0, 1), in drawn order."""
    return (draw.permutation(count) + draw.random(count)) / count


def _split(index: int, language: int) -> str:
    """Give dev a man and test a woman in one language, the other way round in the next."""
    return "train" if index < VOICES_PER_LANGUAGE - 2 else ("dev", "test")[(index + language) % 2]


def _timbre(sex: str, pitch: float, lively: float, tract: float, voicing: float, draw: np.random.Generator) -> str:
    """Write the voice file's lines; pitch in Hz, formants in per cent of the language's own."""
    low = 75 + 50 * pitch if sex == "m" else 150 + 75 * pitch
    scale = 92 + 12 * tract if sex == "m" else 108 + 13 * tract
    lines = [
        f"pitch {low:.0f} {low * (1.25 + 0.35 * lively):.0f}",
        "flutter 0",  # as with trills
        "roughness 0",
        f"voicing {80 + 30 * voicing:.0f}",
        f"tone 600 {draw.integers(140, 180)} 1200 {draw.integers(110, 150)} 2000 {draw.integers(80, 130)}",
    ]
    for formant in range(1, _FORMANTS + 1):
        frequency = scale + draw.uniform(-3, 3)
        lines.append(f"formant {formant} {frequency:.0f} {draw.integers(80, 110)} {draw.integers(90, 140)}")
    return "\n".join(lines) + "\n"
