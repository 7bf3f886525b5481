"""What a run writes beside its checkpoints: who writes, with which settings and sources, and a line per logged step."""

import fcntl
import importlib.metadata
import json
import os
import platform
import re
import socket
import sys
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from mockingjay.core.config import Config, to_toml
from mockingjay.core.errors import CheckpointError, ConfigError, MachineError
from mockingjay.core.files import write_atomically, writing
from mockingjay.train.checkpoint import fingerprint_of

_PACKAGES = ("mockingjay-speech", "torch", "numpy", "soundfile", "soxr", "safetensors")
_UPKEEP = ("save_every", "validate_every", "log_every", "keep", "refused", "workers", "cache", "collapsed")
HARMLESS = frozenset(f"upkeep.{key}" for key in _UPKEEP)
"""Keys that change no weight; all others are fixed when a run starts."""
RANDOM = "random weights"  # what a run begins with where it is given no encoder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder alone.

    The system drops the lock when its holder dies, so a lock left by a dead run is simply taken over.

    Raises:
        MachineError: Another run holds it, or the folder cannot be written.
    """
    path = folder / ".lock"
    with writing(path, 0):
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b", buffering=0)  # a buffer that the disk refuses is refused once more on closing
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().decode("utf-8", "replace").strip() or "starting just now"
            raise MachineError(
                f"{folder}: another run is writing here ({holder}), expected a folder of its own; wait for it or "
                "choose another --out"
            ) from None
        with writing(path, 0):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield


def begun(folder: Path) -> bool:
    """Whether a folder has been claimed by a run."""
    return (folder / "config.toml").exists() and (folder / "provenance.json").exists()


def beginning(start: nn.Module | None) -> str:
    """Name the weights that a run begins with."""
    return RANDOM if start is None else fingerprint_of(start.state_dict())


def check(
    folder: Path,
    config: Config,
    fingerprint: str | None = None,
    harmless: Collection[str] = HARMLESS,
    init: str | None = None,
) -> None:
    """Find out, without writing anything, whether a folder is free or holds this very run.

    Args:
        folder: The run's folder.
        config: The resolved settings.
        fingerprint: Of the corpus; None where it is not known yet.
        harmless: Keys that may change from start to start.
        init: As `beginning` names it; None where it is not known yet.

    Raises:
        ConfigError: The folder holds a run with other settings, another corpus or another beginning.
        CheckpointError: Its provenance.json is damaged.
    """
    if not begun(folder):
        return
    record = _read(folder / "provenance.json")
    data, first = record["data"], record.get("init")
    telling = [key for key in _differences(folder / "config.toml", to_toml(config)) if key not in harmless]
    if telling:
        raise ConfigError(
            f"{folder}: holds a run with other settings ({', '.join(telling)}), expected those in its config.toml; "
            "take them back or choose another --out"
        )
    if fingerprint is not None and data != fingerprint:
        raise ConfigError(
            f"{folder}: holds a run on another corpus ({data[:12]}), expected the same utterances "
            f"({fingerprint[:12]}); give the same data or choose another --out"
        )
    if None not in (init, first) and init != first:  # an older version has not written it down
        raise ConfigError(
            f"{folder}: holds a run that began with {_called(first)}, expected the same and not {_called(init)}; "
            "give the same --init or choose another --out"
        )


def claim(folder: Path, config: Config, fingerprint: str, init: str = RANDOM) -> None:
    """Make a folder this run's, or find that it is already.

    Writes config.toml and provenance.json; a resumed run adds its start to the latter.

    Args:
        folder: The run's folder.
        config: The resolved settings.
        fingerprint: Of the corpus.
        init: As `beginning` names it.

    Raises:
        ConfigError: As `check`.
        CheckpointError: As `check`.
        MachineError: The folder cannot be written.
    """
    check(folder, config, fingerprint, init=init)
    provenance = folder / "provenance.json"
    record = _read(provenance) if begun(folder) else {"data": fingerprint, "init": init, "starts": []}
    record["starts"].append(origin())
    write_atomically(folder / "config.toml", to_toml(config).encode())
    write_atomically(provenance, (json.dumps(record, indent=2) + "\n").encode())


def origin(command: Sequence[str] | None = None) -> dict[str, Any]:
    """Say what is about to run: versions, platform, source commit and command, without the home folder's name."""
    command = sys.argv if command is None else command
    words = [Path(word).name if index == 0 else word for index, word in enumerate(command)]
    return {
        "command": [_homeless(word) for word in words],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "commit": _commit(Path(__file__).parent),
    }


class Metrics:
    """metrics.jsonl: one line per logged step, each step once.

    Lines after the checkpoint's step are cut off when the run resumes, for it will write them again.

    Args:
        path: The file.
        step: Steps done at the checkpoint; 0 begins anew.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        if path.exists():
            kept = [line for line in path.read_bytes().splitlines(keepends=True) if step and _step(line) <= step]
            write_atomically(path, b"".join(kept))
        with writing(path, 0):
            self._file = path.open("ab")

    def append(self, row: Mapping[str, Any]) -> None:
        """Write a row, which has its `step`.

        Raises:
            MachineError: The disk is full.
        """
        line = (json.dumps(row, allow_nan=False) + "\n").encode()
        with writing(self.path, len(line)):
            self._file.write(line)
            self._file.flush()

    def sync(self) -> None:
        """Force all rows to the disk; before a checkpoint, so that none of its past is missing."""
        with writing(self.path, 0):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _called(init: Any) -> str:
    return RANDOM if init == RANDOM else f"an encoder's ({str(init)[:12]})"


def _homeless(word: str) -> str:
    """Write ~ for the home folder; there may be none, as in a container, or it may be the root, which names nobody."""
    home = os.path.expanduser("~")  # noqa: PTH111 -- it stays ~ where Path.home() would raise
    return re.sub(rf"(?<!\w){re.escape(home)}(?!\w)", "~", word) if home not in ("~", "/") else word


def _step(line: bytes) -> int | float:
    """Read a line's step; a line torn by a kill is after every step."""
    try:
        return json.loads(line)["step"] if line.endswith(b"\n") else float("inf")
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _differences(path: Path, text: str) -> list[str]:
    try:
        old = _leaves(tomllib.loads(path.read_text("utf-8")))
    except (OSError, ValueError):
        raise ConfigError(f"{path}: not the TOML this run wrote, expected its settings; choose another --out") from None
    new = _leaves(tomllib.loads(text))
    return sorted(key for key in {**old, **new} if old.get(key) != new.get(key))


def _leaves(table: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    leaves = {}
    for key, value in table.items():
        leaves |= _leaves(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return leaves


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text("utf-8"))
        if isinstance(record["data"], str) and isinstance(record["starts"], list):
            return record
    except (OSError, ValueError, KeyError, TypeError):
        pass  # told below, in one sentence for all
    raise CheckpointError(f"{path}: damaged, expected the record of this run's starts; choose another --out")


def _commit(folder: Path) -> str | None:
    """Read the commit of the checkout a folder lies in, without running git; None outside a checkout."""
    root = next((parent for parent in folder.parents if (parent / ".git" / "HEAD").is_file()), None)
    if root is None:
        return None
    head = (root / ".git" / "HEAD").read_text().strip()
    branch = root / ".git" / head.removeprefix("ref: ")
    if not head.startswith("ref: "):
        return head
    return branch.read_text().strip() if branch.is_file() else None
