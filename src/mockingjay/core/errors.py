"""Every error a user can meet, with its exit code.

MockingjayError
├── ConfigError          a key, a value or a combination of settings is wrong          exit 2
├── RepresentationError  a name does not open, or opens something unusable             exit 2
├── DataError            audio, labels or a manifest is wrong                          exit 3
├── CheckpointError      a saved file is torn, altered or of another run               exit 4
├── MachineError         disk, permission, memory, processor                           exit 5
└── TrainingError        the optimisation itself went wrong                            exit 6

One sentence each: *where: what is wrong (the value), what was expected; what to do.*
"""

from typing import ClassVar


class MockingjayError(Exception):
    """Any failure that is not a bug of ours."""

    exit_code: ClassVar[int] = 1


class ConfigError(MockingjayError):
    """A setting is unknown, out of range or contradicts another."""

    exit_code = 2


class RepresentationError(MockingjayError):
    """A representation's name cannot be opened."""

    exit_code = 2


class DataError(MockingjayError):
    """Audio, labels or a manifest cannot be used as they are."""

    exit_code = 3


class CheckpointError(MockingjayError):
    """A saved file is torn, altered or belongs to something else."""

    exit_code = 4


class MachineError(MockingjayError):
    """The machine lacks room, permission or an instruction."""

    exit_code = 5


class TrainingError(MockingjayError):
    """Optimisation failed, for example with a gradient that is not finite."""

    exit_code = 6


_NO_ROOM = ("out of memory", "can't allocate memory", "status_alloc_failed")


def lacks_memory(error: BaseException) -> bool:
    """Whether torch, or a library of NVIDIA's below it, found no memory; on a CPU that has no class of its own."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_ROOM)
