"""What a stranger may have written, JSON records and safetensors: bounded first, and one sentence where it lies.

Safetensors hold no code, but their header is a stranger's text: it is short here, names nothing twice, and the library
holds it to the bytes that are there. Whoever builds a model from a record compares the shapes first, of a hollow one,
which costs nothing, so that no record can ask for memory that its file does not fill.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mockingjay.core.errors import CheckpointError

RECORD = 1 << 20  # bytes of JSON; ours have a few thousand
HEADER = 1 << 22  # bytes of a safetensors header; ours have about a hundred for each tensor
TENSORS = 10_000


def read_record(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of at most `RECORD` bytes.

    Raises:
        OSError: It cannot be read.
        CheckpointError: It is not one, or too long.
    """
    with path.open("rb") as file:
        content = file.read(RECORD + 1)
    return parse_record(content, path)


def parse_record(content: bytes, where: Path) -> dict[str, Any]:
    """Parse a JSON object of at most `RECORD` bytes in which no key stands twice.

    Raises:
        CheckpointError: It is not one, or too long.
    """
    if len(content) > RECORD:
        raise CheckpointError(f"{where}: longer than {RECORD} bytes, expected a short record; copy it again")
    try:
        record = json.loads(content, object_pairs_hook=_once)
    except (ValueError, RecursionError):  # the latter where it is nested by the thousand
        record = None
    if not isinstance(record, dict):
        raise CheckpointError(f"{where}: not JSON with a record, expected what was saved; copy the folder again")
    return record


def parse_tensors(content: bytes, where: Path) -> dict[str, Tensor]:
    """Parse a safetensors file of at most `TENSORS` tensors.

    Raises:
        CheckpointError: It is not one, or names a tensor twice.
    """
    length = int.from_bytes(content[:8], "little")
    mend = "copy it again from its source"
    if len(content) < 8 or length > min(HEADER, len(content) - 8):
        raise CheckpointError(
            f"{where}: its header claims {length} bytes, expected those of a safetensors file; {mend}"
        )
    try:
        names = json.loads(content[8 : 8 + length], object_pairs_hook=_once)
        if len(names) > TENSORS:
            raise CheckpointError(f"{where}: holds {len(names)} tensors, expected at most {TENSORS}; {mend}")
        return safetensors.torch.load(content)
    except (ValueError, RecursionError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{where}: not safetensors ({printable(error)}), expected what was saved; {mend}"
        ) from None


def printable(words: object) -> str:
    """Write a stranger's words on a line of at most a hundred characters, without what steers a terminal."""
    line = " ".join(str(words).split())[:100]
    return "".join(mark if mark.isprintable() else "?" for mark in line)


class Hollow(TorchFunctionMode):
    """Within it, modules are built with parameters that take no memory, for their shapes.

    What is empty or zero comes to lie on the meta device, and initialising it is left out. A device context would put
    all tensors there, and torch prepares some of its functions for that device for seconds.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch, in its hollow version where it has one."""
        kwargs = kwargs or {}
        if func in (torch.empty, torch.zeros):
            return func(*args, **{**kwargs, "device": "meta"})
        target = args[0] if args else kwargs.get("tensor")
        in_place = func.__name__.endswith("_") and not func.__name__.endswith("__")
        return target if in_place and isinstance(target, Tensor) and target.is_meta else func(*args, **kwargs)


def check_finite(tensors: Mapping[str, Tensor], where: Path) -> None:
    """Refuse weights that are not numbers.

    Raises:
        CheckpointError: A tensor holds NaN or infinity; it is named.
    """
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(
                f"{where}: {name!r} is not finite, expected numbers; train again, or ask its author for another copy"
            )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a table whose keys all differ."""
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name stands twice")
    return table
