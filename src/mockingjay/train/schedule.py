"""The learning rate as a pure function of the step, so that a resumed run cannot have another one."""

from typing import Literal

Schedule = Literal["linear", "constant"]


def warmup_linear(step: int, steps: int, warmup: float) -> float:
    """Rise linearly from 0 to 1 over the first share `warmup` of the steps, then fall linearly to 0.

    The published recipe of Mockingjay, TERA and Audio ALBERT: warm-up over 7 % of the steps (arXiv 1910.12638, section
    3.1).

    Args:
        step: Steps done, from 0.
        steps: Steps in all.
        warmup: Share of the steps, 0–1.
    """
    progress = step / steps
    return progress / warmup if progress < warmup else max((1 - progress) / (1 - warmup), 0.0)


def warmup_constant(step: int, steps: int, warmup: float) -> float:
    """Rise as `warmup_linear`, then stay at 1."""
    progress = step / steps
    return progress / warmup if progress < warmup else 1.0


SCHEDULES = {"linear": warmup_linear, "constant": warmup_constant}
