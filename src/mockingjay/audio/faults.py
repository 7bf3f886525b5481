"""What makes an audio file bad: a stable name for each fault, and the sentence that says file, fault and mend."""

import os
from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

from mockingjay.core.errors import DataError

Kind: TypeAlias = Literal[
    "missing",
    "not-a-file",
    "unreadable",
    "empty",
    "not-audio",
    "format",
    "corrupt",
    "truncated",
    "no-samples",
    "too-short",
    "too-long",
    "range",
    "channels",
    "rate",
    "non-finite",
    "amplitude",
]

KINDS: Mapping[str, str] = {
    "missing": "no file has this name",
    "not-a-file": "a folder, a pipe, a device or a socket; it is never opened",
    "unreadable": "the operating system refuses to open or read it",
    "empty": "0 bytes",
    "not-audio": "its first bytes are those of something else, which is named",
    "format": "audio, but in a format this package does not decode",
    "corrupt": "the decoder fails on it although no bytes are missing",
    "truncated": "it ends before what its header promises",
    "no-samples": "a sound header with no samples behind it",
    "too-short": "shorter than what the model needs",
    "too-long": "longer than is read in one piece",
    "range": "a stretch is asked for that the file does not hold",
    "channels": "more channels than two",
    "rate": "a sample rate outside the allowed range",
    "non-finite": "a sample is NaN or infinite",
    "amplitude": "samples far beyond full scale: integers stored as floats, as a rule",
}
assert set(KINDS) == set(get_args(Kind))


class AudioError(DataError):
    """An audio file that cannot be used.

    Attributes:
        kind: The fault's stable name, a key of `KINDS`.
        path: The file.
        mend: What the user can do.
    """

    # Keyword arguments with defaults: an exception must rebuild from its text alone to cross a process boundary.
    def __init__(self, text: str, kind: Kind = "corrupt", path: str = "", mend: str = ""):
        super().__init__(text)
        self.kind = kind
        self.path = path
        self.mend = mend


def fault(path: str | os.PathLike[str], kind: Kind, what: str, mend: str) -> AudioError:
    """Make the error for a file, in the house's one sentence."""
    return AudioError(f"{shown(path)}: {what}; {mend}", kind=kind, path=os.fspath(path), mend=mend)


def shown(path: str | os.PathLike[str]) -> str:
    r"""Write a file's name for people: bytes that are no UTF-8 and control characters appear as `\xNN`."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(mark if mark.isprintable() else f"\\x{ord(mark):02x}" for mark in text)
