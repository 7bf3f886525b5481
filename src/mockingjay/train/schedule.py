"""The learning rate as a pure function of the step, so that a resumed run cannot have another one."""

import math
from typing import Literal

Schedule = Literal["linear", "constant", "inverse-root", "cosine"]


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


def warmup_inverse_root(step: int, steps: int, warmup: float) -> float:
    """Rise linearly to 1, then fall with the inverse square root of the step; at least one step rises.

    MPC (arXiv 1910.09932; code) after Vaswani et al. 2017, section 5.3: k · dim^−½ · min(n^−½, n · w^−³ᐟ²)
    at the n-th step, counted from 1, of which w rise. Its peak, the learning rate here, is k · (dim · w)^−½.
    """
    number, rising = step + 1, max(1.0, warmup * steps)
    return min(number / rising, (rising / number) ** 0.5)


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Rise as `warmup_linear`, then fall to 0 along half a cosine: the recipe of wav2vec (arXiv 1904.05862; code)."""
    progress = step / steps
    return progress / warmup if progress < warmup else (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2


SCHEDULES = {
    "linear": warmup_linear,
    "constant": warmup_constant,
    "inverse-root": warmup_inverse_root,
    "cosine": warmup_cosine,
}
