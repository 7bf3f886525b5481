"""The synthesiser: espeak-ng through ctypes, with the sample at which each phone begins.

espeak-ng reports a phone when its wave generator reaches it, so an onset is exact to one sample at 22 050 Hz (0.05 ms).
Three of its habits (seen in 1.52) are undone here. The silence before a phone, a stop's closure above all, is
emitted as exact zeros *before* the phone is reported: it is given to the phone. A phone without a name is a pause
only where it is silent; else it is a glide, and belongs to the phone before. Marks of a change of language are
reported as phones: they are dropped.

The library is one global state per process and not safe between threads; a lock guards it. A sentence's samples do not
depend on what was said before, since our voices use neither flutter nor trills, whose oscillators are never reset.
"""

import ctypes
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16

from mockingjay.core.errors import MachineError

RATE = 22_050  # samples per second of every voice without MBROLA
SILENCE = "sil"

# speak_lib.h: espeakINITIALIZE_PHONEME_EVENTS, _PHONEME_IPA, _DONT_EXIT; AUDIO_OUTPUT_SYNCHRONOUS; espeakCHARS_UTF8
_PHONE_EVENTS, _IPA, _STAY, _SYNCHRONOUS, _UTF8 = 0x0001, 0x0002, 0x8000, 2, 1
_SPEED, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4  # espeak_PARAMETER
_HALF = 50  # of the usual volume, at which some voices clip
_LAST, _PHONE = 0, 7  # espeak_EVENT_TYPE
_LOCK = threading.Lock()


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_void_p), ("string", ctypes.c_ubyte * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds, rounded down
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True, slots=True)
class Spoken:
    """A sentence as synthesised."""

    samples: Int16[np.ndarray, " samples"]  # at RATE
    onsets: tuple[tuple[int, str], ...]  # (sample, IPA or SILENCE), ascending; each lasts until the next


def version() -> str:
    """Name the release of espeak-ng.

    Raises:
        MachineError: The library is not installed.
    """
    return _library()[0].espeak_Info(None).decode()


class Espeak:
    """The synthesiser, started; made by `start`."""

    def __init__(self, library: ctypes.CDLL, data: Path, folder: Path):
        self._library = library
        self._data = data
        self._voice = folder / "voice"
        self._pieces: list[np.ndarray] = []
        self._events: list[tuple[int, str]] = []
        self._callback = _Callback(self._receive)  # kept, or ctypes frees it while the library holds its address
        library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, language: str, timbre: str, rate: int, pitch: int, liveliness: int) -> Spoken:
        """Synthesise one sentence.

        Args:
            text: One sentence.
            language: Path of a language below espeak-ng's `lang`, such as `gmw/de`.
            timbre: Lines of a voice file that say who speaks.
            rate: Words per minute, 80 to 450.
            pitch: 0 to 100 about the voice's own, which is 50.
            liveliness: Range of pitch, 0 to 100 about the voice's own, which is 50.
        """
        self._voice.write_text((self._data / "lang" / language).read_text("utf-8") + "\n" + timbre, "utf-8")
        self._call("espeak_SetVoiceByFile", str(self._voice).encode())
        for parameter, value in ((_SPEED, rate), (_VOLUME, _HALF), (_PITCH, pitch), (_RANGE, liveliness)):
            self._call("espeak_SetParameter", parameter, value, 0)
        self._pieces, self._events = [], []
        encoded = text.encode() + b"\0"
        self._call("espeak_Synth", encoded, ctypes.c_size_t(len(encoded)), 0, 1, 0, _UTF8, None, None)
        samples = np.concatenate(self._pieces)
        return Spoken(samples, tuple(_onsets(samples, self._events)))

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, name)(*arguments)
        assert status == 0, f"{name} returned {status}"

    def _receive(self, wave: Any, count: int, events: Any) -> int:
        if count > 0:
            self._pieces.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while events[index].type != _LAST:
            if events[index].type == _PHONE:
                symbol = bytes(events[index].id.string).split(b"\0")[0].decode("utf-8", "ignore")
                self._events.append((events[index].sample, symbol))
            index += 1
        return 0


@contextmanager
def start() -> Iterator[Espeak]:
    """Start the synthesiser; one at a time in a process.

    Raises:
        MachineError: The library is not installed or does not start.
    """
    library, data = _library()
    with _LOCK, tempfile.TemporaryDirectory(prefix="mockingjay-") as name:
        folder = Path(name)
        # espeak-ng holds this path in 160 bytes; an installation's may be longer
        (folder / "espeak-ng-data").symlink_to(data)
        started = library.espeak_Initialize(_SYNCHRONOUS, 0, str(folder).encode(), _PHONE_EVENTS | _IPA | _STAY)
        if started != RATE:
            raise MachineError(
                f"{data}: espeak-ng did not start (returned {started}), expected {RATE} samples per second; "
                "reinstall it with pip install --force-reinstall espeakng-loader"
            )
        try:
            yield Espeak(library, data, folder)
        finally:
            library.espeak_Terminate()


def _library() -> tuple[ctypes.CDLL, Path]:
    try:
        import espeakng_loader

        library = ctypes.CDLL(str(espeakng_loader.get_library_path()))
    except (ImportError, OSError) as error:
        raise MachineError(
            f"talking: espeak-ng is not there ({error}), expected the package espeakng-loader; "
            "run pip install 'mockingjay-speech[talking]'"
        ) from None
    library.espeak_Info.restype = ctypes.c_char_p
    return library, Path(espeakng_loader.get_data_path())


def _onsets(samples: Int16[np.ndarray, " samples"], events: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield where phones and pauses begin, by the rules of this module's docstring."""
    events = [(position, symbol) for position, symbol in events if not symbol.startswith("(")]
    ends = [*(position for position, _ in events[1:]), len(samples)]
    loud = np.flatnonzero(samples)
    last, since = SILENCE, 0
    for (position, symbol), end in zip(events, ends):
        if not symbol and samples[position:end].any():
            continue
        if symbol and last != SILENCE:
            index = np.searchsorted(loud, position)
            position = max(since, int(loud[index - 1]) + 1 if index else 0)
        last, since = symbol or SILENCE, position
        yield since, last
