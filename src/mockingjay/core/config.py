"""Configuration: frozen pydantic tables beside the classes they configure, and overlays that set single leaves on them.

An overlay (a TOML file, then `--set path=value`) changes leaves of an *instance*, so setting one leaf never resets its
siblings to the class's defaults. Changing `kind` replaces that table by the new kind's defaults.
"""

import difflib
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tomlkit
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from mockingjay.core.errors import ConfigError

MOST = 1e9  # of numbers without an upper bound of their own
DEEPEST = 32  # tables inside tables that a path may lead through


class Config(BaseModel):
    """A frozen table of settings; unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, strict=True
    )

    @field_validator("*")
    @classmethod
    def _measured(cls, value: Any, info: Any) -> Any:
        """Refuse sizes that no machine has, where a field has no upper bound of its own."""
        own = cls.model_fields[str(info.field_name)].metadata
        if not any(hasattr(each, "le") or hasattr(each, "lt") for each in own) and _largest(value) > MOST:
            raise ValueError(f"input should be at most {MOST:g} in size")
        return value


C = TypeVar("C", bound=Config)


def _largest(value: Any) -> int | float:
    """The largest absolute value among a number or a tuple of them; 0 of anything else."""
    if isinstance(value, tuple):
        return max(map(_largest, value), default=0)
    return abs(value) if isinstance(value, int | float) else 0


def validate(model: type[C], values: Mapping[str, Any], where: str = "") -> C:
    """Build a config from plain values.

    Raises:
        ConfigError: A key is unknown or a value is of the wrong type or out of range; the first fault is named.
    """
    try:
        return model.model_validate(_tuples(values))
    except ValidationError as error:
        raise ConfigError(_sentence(model, error.errors()[0], where)) from None


def overlay(config: C, changes: Mapping[str, Any], where: str = "") -> C:
    """Set leaves of a config by nested tables.

    Raises:
        ConfigError: As `validate`.
    """
    return validate(type(config), _merge(config.model_dump(), changes), where)


def assignments(texts: Sequence[str]) -> dict[str, Any]:
    """Parse `path.to.leaf=value` texts with TOML's values; a bare word is a string.

    Raises:
        ConfigError: A text has no `=` or its value is not TOML.
    """
    tables: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals or not path.strip() or path.count(".") > DEEPEST:
            raise ConfigError(
                f"--set {text}: no assignment, expected path=value; write for example --set train.steps=100"
            )
        table = tables
        *parents, leaf = path.strip().split(".")
        for parent in parents:
            table = table.setdefault(parent, {}) if isinstance(table, dict) else table
        if not isinstance(table, dict) or isinstance(table.get(leaf), dict):
            raise ConfigError(f"--set {text}: at odds with another --set, expected one of the two; leave one out")
        table[leaf] = _toml_value(text, value.strip())
    return tables


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: The file is missing or is not TOML; line and column are named.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}), expected a TOML file; check the path") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:  # the latter where it is nested by the hundred
        raise ConfigError(f"{path}: not TOML ({error}); mend that line") from None


def to_toml(config: Config, comments: bool = False) -> str:
    """Write a config as TOML, each field with its docstring as a comment where asked."""
    document = tomlkit.document()
    _fill(document, config, comments)
    return tomlkit.dumps(document)


def _toml_value(text: str, value: str) -> Any:
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        if value and not set(value) & set("[]{}\"'=\n"):
            return value
        raise ConfigError(f"--set {text}: {value!r} is not a TOML value; quote strings as path='\"text\"'") from None


def _merge(base: Any, changes: Any) -> Any:
    if not isinstance(base, Mapping) or not isinstance(changes, Mapping):
        return changes
    if "kind" in changes and changes["kind"] != base.get("kind"):
        return dict(changes)
    return {**base, **{key: _merge(base.get(key), value) for key, value in changes.items()}}


def _tuples(values: Any) -> Any:
    """TOML and JSON have lists where frozen configs have tuples."""
    if isinstance(values, Mapping):
        return {key: _tuples(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return tuple(_tuples(value) for value in values)
    return values


def _sentence(model: type[Config], error: Any, where: str) -> str:
    location, tables = _locate(model, error["loc"])
    path = ".".join(location) or "config"
    prefix = f"{where}: " if where else ""
    if error["type"] == "extra_forbidden":
        known = sorted({name for table in tables for name in table.model_fields})
        close = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        mend = f"did you mean '{close[0]}'?" if close else f"known keys are {', '.join(known)}"
        return f"{prefix}{path}: unknown key; {mend}"
    if error["type"] == "union_tag_invalid":
        expected = error["ctx"]["expected_tags"]
        return (
            f"{prefix}{path}.kind: unknown kind '{error['ctx']['tag']}', expected one of {expected}; choose one of them"
        )
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    shown = "" if isinstance(error["input"], Mapping | BaseModel) else f" ({error['input']!r})"
    return f"{prefix}{path}: {message}{shown}; change it in the config or with --set"


def _locate(model: type[Config], parts: Sequence[int | str]) -> tuple[list[str], list[type[BaseModel]]]:
    """Follow an error's location: the path a user would write, and the tables its last key could belong to."""
    path: list[str] = []
    tables: list[type[BaseModel]] = [model]
    for number, part in enumerate(parts):
        tagged = [table for table in tables if part in _kinds(table)]
        if tagged:
            tables = tagged
            continue
        path.append(str(part))
        inside = [table.model_fields[part].annotation for table in tables if part in table.model_fields]
        if number < len(parts) - 1:
            tables = [table for annotation in inside for table in _tables(annotation)]
    return path, tables


def _kinds(table: type[BaseModel]) -> tuple[str, ...]:
    field = table.model_fields.get("kind")
    return typing.get_args(field.annotation) if field else ()


def _tables(annotation: Any) -> list[type[BaseModel]]:
    """List the config classes an annotation admits."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for part in typing.get_args(annotation) for table in _tables(part)]


def _fill(table: Any, config: BaseModel, comments: bool) -> None:
    nested = {
        name: value for name in type(config).model_fields if isinstance(value := getattr(config, name), BaseModel)
    }
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if name in nested or value is None:
            continue
        item = tomlkit.item(list(value) if isinstance(value, tuple) else value)
        if comments and field.description:
            item.comment(" ".join(field.description.split()))
        table.add(name, item)
    for name, value in nested.items():
        child = tomlkit.table()
        _fill(child, value, comments)
        table.add(name, child)
