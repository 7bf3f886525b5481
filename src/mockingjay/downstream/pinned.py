"""Files of the user's that a stored probe points at: too large to copy, so it keeps their paths and their SHA-256."""

import errno
import hashlib
import stat
from functools import lru_cache
from pathlib import Path

from pydantic import Field

from mockingjay.core.config import Config as Table
from mockingjay.core.errors import CheckpointError, ConfigError
from mockingjay.core.untrusted import printable


class Pinned(Table):
    """A file and what it held."""

    path: str
    """Where it lies."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of its bytes."""

    def check(self) -> None:
        """Refuse another file than was pinned.

        Raises:
            CheckpointError: The file is missing or has changed.
        """
        mend = "put it back or probe again"
        try:
            found = _digest(self.path)
        except OSError as error:
            raise CheckpointError(
                f"{printable(self.path)}: cannot be read ({error.strerror}), expected the file that the probe was "
                f"measured with; {mend}"
            ) from None
        if found != self.sha256:
            raise CheckpointError(
                f"{printable(self.path)}: has changed (SHA-256 {found[:12]}…), expected {self.sha256[:12]}… as when "
                f"the probe was measured; {mend}"
            )


def pin(path: str, where: str, expected: str) -> Pinned:
    """Hash a file.

    Args:
        path: Of the file, relative to the working directory or not.
        where: The setting that names it.
        expected: What it should be, in words.

    Raises:
        ConfigError: It cannot be read.
    """
    whole = str(Path(path).absolute())
    try:
        return Pinned(path=whole, sha256=_digest(whole))
    except OSError as error:
        raise ConfigError(
            f"{where}: {path} cannot be read ({error.strerror}), expected {expected}; check the path"
        ) from None


def _digest(path: str) -> str:
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
        raise OSError(errno.EINVAL, "not a file")
    return _hashed(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _hashed(path: str, changed: int, size: int) -> str:
    """Hash a file; language models take gigabytes, so once while it does not change."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
