"""The table of tasks: what can be asked of a representation."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from mockingjay.core import config
from mockingjay.core.errors import ConfigError
from mockingjay.downstream.tasks.label import Label
from mockingjay.downstream.tasks.phone import Phone
from mockingjay.downstream.tasks.task import Targets, Task
from mockingjay.downstream.tasks.value import Value

__all__ = ["TASKS", "Label", "Phone", "Targets", "Task", "TaskConfig", "Value", "build_task", "open_task"]

TASKS: Mapping[str, type[Task]] = {"phone": Phone, "label": Label, "pitch": Value, "energy": Value}

TaskConfig = Annotated[Phone.Config | Label.Config | Value.Config, Field(discriminator="kind")]


class _Table(config.Config):
    task: TaskConfig


def build_task(values: Mapping[str, Any], outputs: tuple[str, ...] = (), where: str = "") -> Task:
    """Build a task from its config's values, `kind` among them.

    Raises:
        ConfigError: A key or value is wrong.
    """
    table = config.validate(_Table, {"task": values}, where)
    return TASKS[table.task.kind](table.task, outputs)


def open_task(text: str) -> Task:
    """Open a task by its name: `phone`, `pitch`, `energy` or `label:<column>`.

    Raises:
        ConfigError: There is no such task.
    """
    kind, colon, column = text.partition(":")
    if kind == "label" and column:
        return Label(Label.Config(column=column))
    if kind == "phone" and not colon:
        return Phone(Phone.Config())
    if kind in ("pitch", "energy") and not colon:
        return Value(Value.Config(kind=kind))
    raise ConfigError(
        f"task {text}: unknown task, expected phone, pitch, energy or label:<column>; write for example label:speaker"
    )
