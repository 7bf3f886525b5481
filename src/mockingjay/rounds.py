"""Rounds: what runs a run's settings stand for, and whether a folder holds them.

Where the encoder that a run has trained teaches the next one, they are runs in one folder. A round is a run like any
other, with its own checkpoints and record. The last one lies where a run does and the ones before it in `rounds/1`,
`rounds/2` …, so that whoever opens, probes or compares the run finds the last round's encoder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mockingjay.core import config
from mockingjay.core.types import Utterance
from mockingjay.data.batches import BatchPlan
from mockingjay.data.splits import hold_out
from mockingjay.downstream.recognise import filled_in
from mockingjay.encoders.frontends import Recogniser
from mockingjay.objectives.hubert import HuBERT
from mockingjay.open import lasting_name, open_representation
from mockingjay.settings import Settings
from mockingjay.train import ledger


def rounds(chosen: Settings, out: Path) -> list[tuple[Settings, Path]]:
    """List the rounds of a run in their order, each with its settings and folder; the last one's folder is `out`.

    Args:
        chosen: The run's settings; those of a round are the same, but for what is clustered, and have no more rounds.
        out: The run's folder.
    """
    objective = chosen.objective
    if not isinstance(objective, HuBERT.Config):
        return [(chosen, out)]
    folders = [*(out / "rounds" / str(number) for number in range(1, objective.rounds)), out]
    changes: dict[str, Any] = {"rounds": 1, "teacher": lasting_name(objective.teacher) if objective.teacher else ""}
    listed = []
    for folder in folders:
        listed.append((config.overlay(chosen, {"objective": changes}), folder))
        changes = changes | {"teacher": str(folder.absolute()), "clusters": {"units": objective.later_units}}
    return listed


def recognise(chosen: Settings, out: Path, learnt: Sequence[Utterance] | None = None, init: str | None = None) -> None:
    """Refuse a folder that holds another run before anything is written into it.

    Raises:
        ConfigError: It does; which settings differ is said, or that the utterances or `init` (see `ledger`) do.
        CheckpointError: Its provenance.json is damaged.
    """
    fingerprint = None
    if learnt is not None:
        parts = hold_out(learnt, chosen.upkeep.held_out, chosen.batches.seed)
        fingerprint = BatchPlan(parts["train"], chosen.batches).fingerprint
    for each, folder in rounds(resolved(chosen), out):
        ledger.check(folder, each, fingerprint, ledger.HARMLESS | {"train.steps"}, init)  # a budget has set them
        init = ledger.RANDOM if init is not None else None  # of the next round


def resolved(chosen: Settings) -> Settings:
    """Fill in what a name in the settings stands for: the phone probe that SLU BERT listens to.

    Raises:
        ConfigError: It names no phone probe of ours.
        CheckpointError: The probe's folder is damaged.
    """
    frontend = chosen.objective.encoder.frontend
    if not isinstance(frontend, Recogniser.Config):
        return chosen
    full = filled_in(frontend, open_representation).model_dump()
    return config.overlay(chosen, {"objective": {"encoder": {"frontend": full}}})
