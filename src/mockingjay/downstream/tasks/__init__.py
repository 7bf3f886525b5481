"""The table of tasks: what can be asked of a representation."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from mockingjay.core import config
from mockingjay.core.errors import ConfigError
from mockingjay.data.phones import FOLDINGS
from mockingjay.downstream.tasks.label import Label
from mockingjay.downstream.tasks.phone import Phone
from mockingjay.downstream.tasks.task import Targets, Task
from mockingjay.downstream.tasks.transcript import Transcript
from mockingjay.downstream.tasks.value import Value

__all__ = ["TASKS", "Label", "Phone", "Targets", "Task", "TaskConfig", "Transcript", "Value", "build_task", "open_task"]

TASKS: Mapping[str, type[Task]] = {
    "phone": Phone,
    "label": Label,
    "pitch": Value,
    "energy": Value,
    "phones": Transcript,
    "text": Transcript,
}

TaskConfig = Annotated[Phone.Config | Label.Config | Value.Config | Transcript.Config, Field(discriminator="kind")]


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
    """Open a task by its name: `phone`, `pitch`, `energy`, `label:<column>`, `phones`, `phones:<column>` or `text`.

    `phone:48`, `phone:41` and `phone:39` fold the phones first (`data/phones.py`).

    Raises:
        ConfigError: There is no such task.
    """
    kind, colon, column = text.partition(":")
    if kind == "label" and column:
        return Label(Label.Config(column=column))
    if kind == "phone" and (not colon or column in FOLDINGS):
        return Phone(Phone.Config(folding=next((each for each in FOLDINGS if each == column), None)))
    if kind in ("pitch", "energy") and not colon:
        return Value(Value.Config(kind=kind))
    if kind == "phones" and bool(colon) == bool(column):
        return Transcript(Transcript.Config(column=column))
    if kind == "text" and not colon:
        return Transcript(Transcript.Config(kind="text"))
    raise ConfigError(
        f"task {text}: unknown task, expected phone, pitch, energy or label:<column>, or for sequences phones, "
        "phones:<column> or text; write for example label:speaker"
    )
