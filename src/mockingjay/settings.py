"""What a run is a function of, besides its audio: an objective's defaults, a preset, and single changes."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mockingjay.core import config
from mockingjay.core.errors import ConfigError
from mockingjay.data.batches import BatchPlan
from mockingjay.objectives import OBJECTIVES, ObjectiveConfig
from mockingjay.objectives.mockingjay import Mockingjay
from mockingjay.train.loop import Run


class Upkeep(config.Config):
    """What happens between steps; none of it changes a weight, except which utterances are held out."""

    held_out: float = Field(default=0.05, gt=0, lt=0.5)
    """Share of the corpus that is never trained on, at most ten minutes of it; speakers apart where they are known."""
    validate_every: int | None = Field(default=None, ge=1)
    """Steps from one validation to the next; none: twenty times a run."""
    save_every: int | None = Field(default=None, ge=1)
    """Steps from one checkpoint to the next; none: every two minutes."""
    log_every: int | None = Field(default=None, ge=1)
    """Steps from one line of metrics.jsonl to the next; none: five hundred lines a run."""
    keep: int = Field(default=2, ge=2)
    """Whole checkpoints that stay."""
    refused: float = Field(default=0.01, ge=0, le=1)
    """Share of the utterances that may be unusable before the run stops; a single one always may."""
    workers: int | None = Field(default=None, ge=0)
    """Threads that read audio ahead; none: two beside CUDA; on a CPU, whose cores compute, the loop reads itself."""
    cache: float = Field(default=1.0, ge=0)
    """GiB of decoded audio kept in memory."""
    collapsed: Literal["stop", "tell"] = "stop"
    """Where all frames have come to be represented alike at two validations in a row: stop, or tell and go on."""


class Settings(config.Config):
    """Everything a run is a function of, besides its audio."""

    objective: ObjectiveConfig = Mockingjay.Config()
    """The method, its encoder included."""
    batches: BatchPlan.Config = BatchPlan.Config()
    """What a step learns from."""
    train: Run.Config = Run.Config()
    """Optimisation."""
    upkeep: Upkeep = Upkeep()
    """Validation, checkpoints, reading."""


def preset_names(objective: str) -> list[str]:
    """List the presets of an objective."""
    folder = files("mockingjay") / "presets" / objective
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def settings(
    objective: str, preset: str | None = None, changes: Sequence[str] = (), seed: int | None = None
) -> Settings:
    """Resolve an objective's defaults, a preset or TOML file, and `path=value` changes, in this order.

    A preset may begin with `extends = "<preset>"`: it then says only in what it differs from that one.

    Raises:
        ConfigError: A name, key or value is wrong.
    """
    if objective not in OBJECTIVES:
        raise ConfigError(
            f"{objective}: no such objective, expected one of {', '.join(OBJECTIVES)}; check the spelling"
        )
    resolved = config.validate(Settings, {"objective": {"kind": objective}})
    for path, table in _preset(objective, preset):
        resolved = config.overlay(resolved, table, path.name)
    if seed is not None:
        resolved = config.overlay(resolved, {"train": {"seed": seed}, "batches": {"seed": seed}})
    return config.overlay(resolved, config.assignments(changes))


def sets_steps(objective: str, preset: str) -> bool:
    """Whether a preset file of the user's own says `train.steps`; that of a preset of ours is a mere suggestion.

    Raises:
        ConfigError: As `settings`.
    """
    ours = Path(str(files("mockingjay") / "presets"))
    read = _preset(objective, preset)
    return any("steps" in table.get("train", {}) for path, table in read if not path.is_relative_to(ours))


def _preset(objective: str, preset: str | None) -> list[tuple[Path, dict[str, Any]]]:
    """Read a preset and those it extends, the first of them first."""
    read: list[tuple[Path, dict[str, Any]]] = []
    while preset is not None:
        path = Path(str(files("mockingjay") / "presets" / objective / f"{preset}.toml"))
        if not path.is_file():
            path = Path(preset)
        if not path.is_file():
            where = f"{read[-1][0].name}: extends {preset!r}" if read else f"--preset {preset}"
            known = ", ".join(preset_names(objective))
            raise ConfigError(f"{where}: no such preset, expected one of {known} or a TOML file; check the spelling")
        if any(path == other for other, _ in read):
            raise ConfigError(f"{path.name}: extends itself by way of {read[-1][0].name}, expected a chain; break it")
        table = config.read_toml(path)
        preset = table.pop("extends", None)
        if not isinstance(preset, str | None):
            raise ConfigError(f"{path.name}: extends is {preset!r}, expected a preset's name; write it as text")
        read.append((path, table))
    return read[::-1]
