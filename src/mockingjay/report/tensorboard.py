"""Scalars and pictures as TensorBoard shows them; the one file that needs the extra `track`."""

import math
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.image import imread

from mockingjay.core.errors import MachineError


def write_events(folder: Path, metrics: Sequence[Mapping[str, Any]], pictures: Mapping[str, bytes], step: int) -> None:
    """Write one event file.

    Args:
        folder: Where TensorBoard will look; event files of an earlier writing are replaced.
        metrics: Logged lines with `step`; every finite number in them becomes a scalar, tables inside by their path.
        pictures: Name → a PNG.
        step: Of the pictures.

    Raises:
        MachineError: TensorBoard is not installed, or the file cannot be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MachineError(
            "--tensorboard: the package tensorboard is not installed, expected it for event files; "
            "pip install mockingjay-speech[track]"
        ) from error
    try:
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        with SummaryWriter(str(folder)) as writer:
            for line in metrics:
                rest = {name: value for name, value in line.items() if name != "step"}
                for name, value in _scalars(rest, ""):
                    writer.add_scalar(name, value, int(line["step"]))
            for name, png in pictures.items():
                writer.add_image(name, imread(BytesIO(png))[..., :3], step, dataformats="HWC")
    except OSError as error:
        raise MachineError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from error


def _scalars(line: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in line.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield prefix + name, float(value)
