"""Feature files that are written as their rows come: of a long recording no more than a stretch is ever in memory.

Byte for byte what writing the whole array at once gives, in npy and safetensors; in parquet the same table.
"""

import importlib
import io
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
from jaxtyping import Float

from mockingjay.core.errors import MachineError
from mockingjay.core.files import replacing
from mockingjay.core.types import Grid

Format = Literal["npy", "safetensors", "parquet"]
Append = Callable[[Float[np.ndarray, "layers _ dim"]], None]

_GROUP = 16_384  # rows of a parquet file that are turned around at once


@contextmanager
def writing_rows(path: Path, format: Format, shape: Sequence[int], grid: Grid) -> Iterator[Append]:
    """Write a float32 array of [time, dim] or [layers, time, dim] as its steps come.

    Args:
        path: The file; it appears when the block ends.
        format: As in `extract`.
        shape: Of the whole array.
        grid: Where the steps lie.

    Yields:
        What takes the next steps of all layers.

    Raises:
        MachineError: The disk is full, read-only or not ours to write, or pyarrow is missing for parquet.
    """
    need = 4 * math.prod(shape)
    with replacing(path, need) as file:
        if format != "parquet":
            file.write(_header(format, shape))
            yield _appender(file, shape)
            return
        # Without a name, so that nothing is left of it wherever this stops.
        with tempfile.TemporaryFile(dir=path.parent) as spool:
            yield _appender(spool, shape)
            spool.seek(0)
            write_table(file, _blocks(spool, shape), shape, shape[-2], grid)


def write_table(
    file: io.BufferedIOBase,
    blocks: Iterator[Float[np.ndarray, "rows dim"]],
    shape: Sequence[int],
    steps: int,
    grid: Grid,
) -> None:
    """Write a parquet table of one row per layer and step: number, seconds, hidden values.

    Args:
        file: Where to.
        blocks: The rows, layer after layer.
        shape: Of the whole array.
        steps: Of each layer; 1 of means, which are given the first step's time.
        grid: Where the steps lie.
    """
    arrow, parquet = pyarrow()
    dim, seconds = shape[-1], grid.times(steps).numpy()
    columns = [("row", arrow.int64()), ("seconds", arrow.float64()), ("hidden", arrow.list_(arrow.float32(), dim))]
    schema = arrow.schema(columns, metadata={"shape": json.dumps(list(shape))})
    done = 0
    with parquet.ParquetWriter(file, schema) as writer:
        for rows in blocks:
            numbers = np.arange(done, done + len(rows))
            hidden = arrow.FixedSizeListArray.from_arrays(arrow.array(rows.ravel()), dim)
            writer.write_table(
                arrow.table([arrow.array(numbers), arrow.array(seconds[numbers % steps]), hidden], schema=schema)
            )
            done += len(rows)


def pyarrow() -> tuple[ModuleType, ModuleType]:
    """Import pyarrow.

    Raises:
        MachineError: It is not installed.
    """
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise MachineError(
            "--format parquet: pyarrow is not installed; install mockingjay-speech[parquet], or "
            "choose npy or safetensors"
        ) from None


def _header(format: Format, shape: Sequence[int]) -> bytes:
    """Begin a file as numpy and safetensors do."""
    if format == "npy":
        buffer = io.BytesIO()
        fields = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}
        np.lib.format.write_array_header_1_0(buffer, fields)
        return buffer.getvalue()
    entry = {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 4 * math.prod(shape)]}
    text = json.dumps({"hidden": entry}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _appender(file: io.BufferedIOBase, shape: Sequence[int]) -> Append:
    """Put each layer's steps where they belong; layers lie one after the other."""
    start, layer, done = file.tell(), 4 * shape[-2] * shape[-1], 0  # bytes

    def append(values: Float[np.ndarray, "layers _ dim"]) -> None:
        nonlocal done
        for index, rows in enumerate(values):
            file.seek(start + index * layer + done)
            file.write(np.ascontiguousarray(rows, dtype="<f4").data)
        done += 4 * values[0].size
        assert done <= layer

    return append


def _blocks(spool: io.BufferedIOBase, shape: Sequence[int]) -> Iterator[Float[np.ndarray, "rows dim"]]:
    dim = shape[-1]
    while content := spool.read(4 * _GROUP * dim):
        yield np.frombuffer(content, dtype="<f4").reshape(-1, dim)
