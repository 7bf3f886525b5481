"""What makes a folder one study's: a card of what it is a function of, and the runs inside it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mockingjay.core.draw import address
from mockingjay.core.errors import ConfigError
from mockingjay.core.files import write_atomically
from mockingjay.core.types import Utterance
from mockingjay.data.batches import BatchPlan
from mockingjay.data.splits import hold_out
from mockingjay.downstream.questions import Question
from mockingjay.rounds import rounds
from mockingjay.settings import Settings
from mockingjay.train import ledger


def check_card(card: Path, ours: Mapping[str, Any], what: str) -> None:
    """Refuse a folder that holds another study, before anything is written into it.

    Args:
        card: Where `write_card` writes.
        ours: What this study is a function of, in JSON's types.
        what: What it is called, such as `a comparison`.

    Raises:
        ConfigError: The card there says otherwise.
    """
    theirs = json.loads(card.read_text("utf-8")) if card.is_file() else ours
    differing = ", ".join(key for key in ours if theirs.get(key) != ours[key])
    if differing:
        raise ConfigError(
            f"{card.parent}: holds {what} with other {differing}, expected those in its {card.name}; "
            "take them back or choose another --out"
        )


def write_card(card: Path, ours: Mapping[str, Any]) -> None:
    """Make a folder this study's.

    Raises:
        MachineError: The card cannot be written.
    """
    write_atomically(card, (json.dumps(ours, indent=1) + "\n").encode())


def extend_card(card: Path, more: Mapping[str, Any], what: str) -> None:
    """Add what is known by now to a folder's card; what stands there already must be the same.

    Args:
        card: As in `check_card`.
        more: Of this study, in JSON's types.
        what: What it is called.

    Raises:
        ConfigError: The card says otherwise.
        MachineError: The card cannot be written.
    """
    known = json.loads(card.read_text("utf-8")) if card.is_file() else {}
    check_card(card, {key: value for key, value in more.items() if key in known}, what)
    write_card(card, known | dict(more))


def tested(asked: Sequence[Question]) -> str:
    """Name what questions are tested on."""
    listed = [[question.slug, *(each.id for each in question.parts.test)] for question in asked]
    return f"{address(json.dumps(listed)):016x}"


def check_run(folder: Path, chosen: Settings, learnt: Sequence[Utterance], budget: float | None) -> None:
    """Refuse a folder that holds another run than a study's.

    Args:
        folder: The run's.
        chosen: Its settings.
        learnt: What it is to learn from and be validated on.
        budget: Seconds, which have set the steps of a run that has begun; None where the settings set them.

    Raises:
        ConfigError: It does.
        CheckpointError: Its provenance.json is damaged.
    """
    part = hold_out(learnt, chosen.upkeep.held_out, chosen.batches.seed)["train"]
    fingerprint = BatchPlan(part, chosen.batches).fingerprint
    for each, run in rounds(chosen, folder):
        ledger.check(run, each, fingerprint, ledger.HARMLESS | ({"train.steps"} if budget else set()))
