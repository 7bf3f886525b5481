"""Options that several verbs share, and the parsing of their values."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mockingjay.core.errors import ConfigError


def _there(device: str) -> str:
    """Refuse a device that is not there before anything is read."""
    if device != "auto":
        from mockingjay.train.distributed import device_called

        device_called(device)
    return device


Out = Annotated[Path, typer.Option("--out", help="Folder to write; the same command goes on there.")]
Data = Annotated[
    Path, typer.Option("--data", help="A folder of audio, a manifest.jsonl, a CSV, or a corpus in its own layout.")
]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change one setting; may repeat.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Everything random follows from it.")]
Json = Annotated[bool, typer.Option("--json", help="Print rows as JSON lines.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
Device = Annotated[str, typer.Option("--device", callback=_there, help="auto, cpu, cuda or cuda:<index>.")]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds(duration: str) -> float:
    """Read a duration such as 20m, 1h30m or 90s.

    Raises:
        ConfigError: It is not one.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise ConfigError(f"--budget {duration}: not a duration, expected for example 20m or 1h30m; write it so")
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if total <= 0:
        raise ConfigError(f"--budget {duration}: no time at all, expected more than 0s; give it some")
    return total


def allowance(budget: str | None, changes: Sequence[str], default: str | None = None) -> float | None:
    """Read a budget in seconds; None where the number of steps is set instead.

    Raises:
        ConfigError: It is not a duration, both are given, or a change is no assignment.
    """
    from mockingjay.core.config import assignments

    train = assignments(changes).get("train")
    fixed = isinstance(train, dict) and "steps" in train
    if fixed and budget is not None:
        raise ConfigError("--steps and --budget: both given, expected one of them; leave one out")
    text = budget if budget is not None or fixed else default
    return None if text is None else seconds(text)
