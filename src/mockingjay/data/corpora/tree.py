"""What a corpus reader is shown: a path, and the files below it, walked once."""

# ruff: noqa: PTH100, PTH110, PTH112, PTH113, PTH116, PTH118, PTH119, PTH122 -- links stay as written

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path

from mockingjay.audio import AudioError, Header, header, holds_features, shown
from mockingjay.core.errors import DataError
from mockingjay.data.quarantine import Refusal

# Suffixes of audio, those that are not decoded included: such a file is refused by name rather than passed over.
_DECODED = ".wav .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .au .snd .caf .w64 .rf64 .sph .nist"
_UNDECODED = ".m4a .mp4 .aac .wma .webm .mka .amr .ape .wv .shn"
AUDIO = frozenset(f"{_DECODED} {_UNDECODED}".split())
_PERMISSIONS = "check its permissions"


class Tree:
    """A path and what lies below it.

    Attributes:
        root: The folder or file, absolute.
        refused: What looking through it told: folders that cannot be read, audio that lies otherwise than the rest.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.root = os.path.abspath(path)
        self.refused: list[Refusal] = []
        if not os.path.exists(self.root):
            raise DataError(f"{shown(path)}: no such file or folder, expected a corpus; check the path")
        if os.path.isdir(self.root) and not os.access(self.root, os.X_OK):  # its files may be listed, and none opened
            raise DataError(f"{shown(path)}: a folder that may not be entered, expected a corpus; {_PERMISSIONS}")

    @property
    def is_file(self) -> bool:
        """Whether the path is a file."""
        return os.path.isfile(self.root)

    @property
    def name(self) -> str:
        """The corpus's name."""
        name = os.path.basename(self.root)
        return shown(os.path.splitext(name)[0] if self.is_file else name)

    def path(self, relative: str) -> str:
        """Make a path of this tree absolute."""
        return os.path.join(self.root, relative)

    def holds(self, relative: str) -> bool:
        """Whether a file has this place below the root."""
        return os.path.isfile(self.path(relative))

    @cached_property
    def folders(self) -> tuple[str, ...]:
        """Names of the folders directly below the root, sorted; hidden ones are passed over."""
        return tuple(entry.name for entry in self._entries if entry.is_dir() and not entry.name.startswith("."))

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Paths below the root, relative and sorted; hidden ones are passed over."""
        return () if self.is_file else tuple(sorted(_walk(self.root, self.refused)))

    @cached_property
    def audio(self) -> tuple[str, ...]:
        """The files whose suffix is one of audio; where there are none, those of features."""
        found = tuple(file for file in self.files if suffix(file) in AUDIO)
        return found or tuple(file for file in self.files if holds_features(file))

    @cached_property
    def named(self) -> dict[str, str]:
        """The audio by its files' names alone, without suffix; of several the first."""
        return {os.path.basename(stem(file)): file for file in reversed(self.audio)}

    @cached_property
    def lists(self) -> tuple[str, ...]:
        """Names of the files directly below the root, sorted; hidden ones are passed over."""
        return tuple(entry.name for entry in self._entries if entry.is_file() and not entry.name.startswith("."))

    @cached_property
    def _entries(self) -> tuple[Path, ...]:
        try:
            return () if self.is_file else tuple(sorted(Path(self.root).iterdir()))
        except OSError as error:
            raise _unreadable(self.root, error) from None

    @cached_property
    def beside(self) -> dict[str, str]:
        """The other files, by their path in lower case; reading a pipe or a device might never end."""
        return {file.lower(): file for file in self.files if suffix(file) not in AUDIO and self.holds(file)}


def suffix(file: str) -> str:
    """The suffix of a file's name, in lower case, with its dot."""
    return os.path.splitext(file)[1].lower()


def stem(file: str) -> str:
    """A path without its suffix; `a.WAV.wav`, as some copies of TIMIT have it, loses both."""
    bare, last = os.path.splitext(file)
    return os.path.splitext(bare)[0] if last and suffix(bare) == last.lower() else bare


def measure(paths: Iterable[str], workers: int = 8) -> Iterator[Header | AudioError]:
    """Read headers in threads, in the order of the paths; a file's fault takes its header's place."""
    paths = iter(paths)
    with ThreadPoolExecutor(workers) as pool:
        # By slices, as a pool would otherwise hold a task for every file of the corpus at once.
        while batch := list(islice(paths, 4096)):
            yield from pool.map(_header, batch)


def _header(path: str) -> Header | AudioError:
    try:
        return header(path)
    except AudioError as error:
        return error


def _walk(root: str, refused: list[Refusal]) -> Iterator[str]:
    """Yield files below a folder; a folder that links lead to twice is entered once, and what cannot be is refused."""
    seen: set[tuple[int, int]] = set()
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            status = os.stat(os.path.join(root, folder))
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(os.path.join(root, folder)) as entries:
                visible = sorted((entry.name, _enters(entry)) for entry in entries if not entry.name.startswith("."))
        except OSError as error:
            unreadable = _unreadable(os.path.join(root, folder), error)
            if not folder:
                raise unreadable from None
            # A disk's own lost+found, say, which is root's alone.
            refused.append(Refusal(os.path.join(root, folder), "unreadable", str(unreadable), _PERMISSIONS))
            continue
        for name, enters in visible:
            inside = f"{folder}/{name}" if folder else name
            if enters:
                folders.append(inside)
            else:
                yield inside


def _unreadable(folder: str, error: OSError) -> DataError:
    return DataError(f"{shown(folder)}: cannot be read ({error.strerror}), expected a folder; {_PERMISSIONS}")


def _enters(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: as a file it is refused by name
        return False
