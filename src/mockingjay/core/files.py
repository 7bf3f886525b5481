"""Files that are whole or absent: written to a temporary sibling, synced, renamed, and the folder synced."""

import errno
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from mockingjay.core.errors import MachineError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, whatever stops the writer.

    Raises:
        MachineError: The disk is full, read-only or not ours to write.
    """
    with replacing(path, len(content)) as file:
        file.write(content)


@contextmanager
def replacing(path: Path, need: int) -> Iterator[io.BufferedWriter]:
    """Open a file to write in pieces, which takes its place when the block ends and is gone where the block fails.

    Args:
        path: The place.
        need: Bytes about to be written; 0: nobody knows.

    Raises:
        MachineError: The disk is full, read-only or not ours to write.
    """
    # Shards in containers write to one disk, each as process 1.
    temporary = path.with_name(f".tmp-{os.getpid()}-{uuid4().hex[:8]}-{path.name}")
    with writing(path, need):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Make renames inside a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writing(path: Path, need: int) -> Iterator[None]:
    """Turn the operating system's refusals into one sentence.

    Args:
        path: What is being written; named in the error.
        need: Bytes about to be written; 0: nobody knows.

    Raises:
        MachineError: The disk is full, read-only or not ours to write.
    """
    try:
        yield
    except OSError as error:
        raise MachineError(_sentence(path, need, error)) from error


def _sentence(path: Path, need: int, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        folder = next((parent for parent in (path, *path.parents) if parent.is_dir()), Path("/"))
        words = "file size limit reached" if error.errno == errno.EFBIG else "disk full"
        free = shutil.disk_usage(folder).free
        needed = f"{need / 1e6:.1f} MB needed, " if need else ""
        return f"{path}: {words}, {needed}{free / 1e6:.1f} MB free; free some space and start the same command again"
    return (
        f"{path}: cannot be written ({error.strerror}), expected a writable folder; "
        "choose another --out or mend its permissions"
    )
