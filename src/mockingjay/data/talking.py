"""The embedded corpus: synthetic speech with exact phone times, made on the spot, in four languages.

Twenty-four voices of our own speak sentences of our own through espeak-ng; voice, sentence, sense, room, noise and
level are drawn independently, so that nothing is separable by accident. Test voices are not in train, and no sentence
is said twice. The columns are `speaker`, `split`, `text`, `lang`, `gender`, `sentiment` and the alignment. All of it
is a function of (seed, minutes): the number of processes changes nothing, down to the bytes.
"""

import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from mockingjay.core.draw import address
from mockingjay.core.errors import ConfigError, MachineError
from mockingjay.core.files import sync_folder, writing
from mockingjay.core.types import Utterance
from mockingjay.data.manifest import Corpus, write_manifest
from mockingjay.data.synthesis.espeak import version
from mockingjay.data.synthesis.sentences import sentences
from mockingjay.data.synthesis.speak import Line, Part, Said, speak
from mockingjay.data.synthesis.voices import Voice, voices

__all__ = ["make", "talking"]

_EDITION = 1  # raise it with every change that changes a file of the corpus
_SHORTEST = 0.8  # seconds; no sentence is shorter, so this many lines suffice
_MOST = 3000.0  # minutes; the grammar has sentences for several times as many
_BYTES = 1.3e6  # per minute


def talking(cache: Path | None = None, seed: int = 0, minutes: float = 30.0, workers: int = 1) -> Path:
    """Make the embedded corpus, or find it where it was made before.

    Args:
        cache: Folder that keeps the corpora; by default `mockingjay` below `MOCKINGJAY_CACHE`, `XDG_CACHE_HOME` or
            `~/.cache`.
        seed: Of everything drawn.
        minutes: Of audio, at least.
        workers: As in `make`.

    Returns:
        A folder with `manifest.jsonl` and `audio`.

    Raises:
        ConfigError: `minutes` or `workers` is out of range.
        MachineError: espeak-ng is not installed, or the cache cannot be written.
    """
    cache = _cache() if cache is None else cache
    folder = cache / f"talking-{_EDITION}-espeak-{version()}-seed-{seed}-minutes-{float(minutes)}"
    if (folder / "manifest.jsonl").is_file():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".talking-", dir=cache))
    except OSError as error:
        raise MachineError(
            f"{cache}: cannot be written ({error.strerror}), expected a folder for the embedded corpus; "
            "set MOCKINGJAY_CACHE to one of yours"
        ) from None
    try:
        make(draft, seed, minutes, workers)
        with writing(folder, 0):
            draft.chmod(0o777 & ~_umask())
            _settle(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def make(folder: Path, seed: int = 0, minutes: float = 30.0, workers: int = 1) -> Corpus:
    """Write the embedded corpus into a folder that has no `audio` yet.

    Args:
        folder: Gets `manifest.jsonl` and `audio`.
        seed: Of everything drawn.
        minutes: Of audio, at least; every voice gets an equal share.
        workers: Processes; one is this process, and enough: it makes half an hour in ten seconds.

    Raises:
        ConfigError: `minutes` or `workers` is out of range.
        MachineError: espeak-ng is not installed, or the folder cannot be written.
    """
    if not 0 < minutes <= _MOST:
        raise ConfigError(f"talking: minutes is {minutes}, expected more than 0 and at most {_MOST:.0f}; change it")
    if workers < 1:
        raise ConfigError(f"talking: workers is {workers}, expected 1 or more processes; change it")
    with writing(folder, int(_BYTES * minutes)):
        audio = folder / "audio"
        audio.mkdir(parents=True)
        parts = _parts(audio, seed, minutes)
        spoken = _spoken(parts, workers)
        utterances = tuple(_utterance(part.voice, said) for part, all_said in zip(parts, spoken) for said in all_said)
        sync_folder(audio)
        write_manifest(folder / "manifest.jsonl", utterances)
        sync_folder(folder)
    return Corpus("talking", utterances)


def _parts(audio: Path, seed: int, minutes: float) -> list[Part]:
    """Cast the voices and hand out sentences, none of them twice."""
    cast = voices(np.random.default_rng(address(seed, "talking", "voices")))
    seconds = minutes * 60 / len(cast)
    said: set[str] = set()
    parts = []
    for voice in cast:
        draw = np.random.default_rng(address(seed, "talking", voice.name))
        lines = tuple(
            Line(text, sentiment, address(seed, "talking", voice.name, index))
            for index, (text, sentiment) in zip(
                range(int(seconds / _SHORTEST) + 1), sentences(voice.language, draw, said)
            )
        )
        parts.append(Part(voice, lines, seconds, audio))
    return parts


def _spoken(parts: list[Part], workers: int) -> list[list[Said]]:
    """Have every part spoken, in order."""
    if workers == 1:
        return [speak(part) for part in parts]
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            return list(pool.map(speak, parts))
    except BrokenProcessPool:
        raise MachineError(
            f"talking: one of {workers} processes ended early, expected all to finish; use workers=1, or call it "
            "under `if __name__ == '__main__':`"
        ) from None


def _utterance(voice: Voice, said: Said) -> Utterance:
    return Utterance(
        id=f"talking-{said.path.stem}",
        path=str(said.path),
        seconds=said.seconds,
        speaker=voice.name,
        split=voice.split,
        text=said.line.text,
        labels={"lang": voice.language, "gender": voice.gender, "sentiment": said.line.sentiment},
        alignment=said.alignment,
    )


def _settle(draft: Path, folder: Path) -> None:
    """Put a finished corpus in its place, unless another process was first."""
    try:
        draft.rename(folder)
    except OSError:
        if not (folder / "manifest.jsonl").is_file():
            raise
    sync_folder(folder.parent)


def _umask() -> int:
    """Read the mask of new files' permissions, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _cache() -> Path:
    root = os.environ.get("MOCKINGJAY_CACHE") or os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(root) if root else Path.home() / ".cache") / "mockingjay"
    except RuntimeError:
        raise MachineError(
            "talking: there is no home folder, expected one for the cache; set MOCKINGJAY_CACHE to a folder of yours"
        ) from None
