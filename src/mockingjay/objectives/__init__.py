"""The table of objectives: one published name, one file, one line."""

from collections.abc import Mapping

from mockingjay.objectives.mockingjay import Mockingjay
from mockingjay.objectives.objective import Objective

OBJECTIVES: Mapping[str, type[Objective]] = {"mockingjay": Mockingjay}

ObjectiveConfig = Mockingjay.Config


def build_objective(config: ObjectiveConfig) -> Objective:
    """Build the objective a config describes."""
    return OBJECTIVES[config.kind](config)
