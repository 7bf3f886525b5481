"""How much of the study of attacks fits into the time there is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TRIED = 8  # examples on which everything is timed
_SPARE = 0.8  # share of the budget that is planned with; reading, writing and a machine that slows down take the rest


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done."""

    updates: int  # of every countermeasure, at most
    attacked: int  # test utterances, half of them spoofs
    decibels: tuple[float, ...]  # bounds on features; 8 and 16 are the released names
    steps: int  # of PGD
    restarts: int
    adaptive: int  # of the attacked, those that are attacked through each defence
    draws: int  # of a random defence, over which the adaptive attacker averages
    levels: tuple[float, ...]  # bounds on the waveform, in decibels below the speech

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "Plan":
        """Rebuild a plan from JSON."""
        return cls(**{**record, "decibels": tuple(record["decibels"]), "levels": tuple(record["levels"])})


_FULL = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
# Richest first; steps and restarts of the first are the code's of arXiv 1910.08716.
WEALTH: Sequence[Plan] = (
    Plan(4000, 400, _FULL, 10, 5, 200, 8, (50.0, 40.0, 30.0, 20.0)),
    Plan(1500, 160, _FULL, 10, 5, 64, 8, (50.0, 40.0, 30.0, 20.0)),
    Plan(800, 112, _FULL, 10, 5, 48, 4, (50.0, 40.0, 30.0, 20.0)),
    Plan(600, 96, (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0), 10, 5, 32, 4, (40.0, 30.0, 20.0)),
    Plan(400, 64, (0.25, 1.0, 2.0, 4.0, 8.0, 16.0), 10, 3, 32, 2, (40.0, 30.0, 20.0)),
    Plan(300, 48, (0.5, 2.0, 4.0, 8.0, 16.0), 10, 2, 24, 2, (40.0, 30.0, 20.0)),
    Plan(200, 32, (0.5, 2.0, 8.0, 16.0), 10, 1, 16, 2, (40.0, 20.0)),
    Plan(120, 24, (1.0, 8.0, 16.0), 5, 1, 8, 2, (30.0,)),
    Plan(60, 16, (1.0, 8.0, 16.0), 3, 1, 4, 1, (30.0,)),
)


@dataclass(frozen=True, slots=True)
class Costs:
    """What was timed, in seconds: by family, by defence, or by both.

    Attributes:
        update: A training step of each family.
        gradient: Of one example through each (family, defence).
        view: One example through each defence, without a gradient.
        wave: A gradient of one example's samples, for each family.
        examples: Of training, dev and test, which pass each defence once.
        waveform: Whether samples alone are attacked, and no features.
    """

    update: Mapping[str, float]
    gradient: Mapping[tuple[str, str], float]
    view: Mapping[str, float]
    wave: Mapping[str, float]
    examples: int
    waveform: bool = False


def seconds(plan: Plan, costs: Costs, undefended: str, random: Sequence[str]) -> float:
    """Foretell how long a plan takes.

    Args:
        plan: How much is done.
        costs: What was timed.
        undefended: The defence against which attacks are made that know none.
        random: Defences whose gradients are averaged over draws.
    """
    defences, families = costs.view, costs.update
    through = plan.steps * plan.restarts + 1
    decibels = () if costs.waveform else plan.decibels
    known = plan.levels if costs.waveform else plan.decibels
    training = sum(
        plan.updates * cost * (len(defences) + 1) for cost in families.values()
    )  # one learns from attacked examples
    training += costs.examples * sum(defences.values())
    made = sum(
        len(decibels) * plan.attacked * (through + 1) * costs.gradient[family, undefended] for family in families
    )
    made += sum(len(plan.levels) * plan.attacked * through * cost for cost in costs.wave.values())
    shown = len(decibels) * (2 * len(families) + 1) + len(plan.levels) * (len(families) + 1)
    looked = shown * plan.attacked * sum(defences.values())
    adaptive = sum(
        len(known) * plan.adaptive * through * cost * (plan.draws if defence in random else 1)
        for (_, defence), cost in costs.gradient.items()
    )
    return training + made + looked + adaptive


def outlay(budget: float, costs: Costs, undefended: str, random: Sequence[str]) -> Plan:
    """Choose the richest plan that fits, or the poorest there is.

    Args:
        budget: Seconds.
        costs: What was timed.
        undefended: As in `seconds`.
        random: As in `seconds`.
    """
    fits = (plan for plan in WEALTH if seconds(plan, costs, undefended, random) <= _SPARE * budget)
    return next(fits, WEALTH[-1])
