"""How much of what was changed at the input reaches each layer: the ratio of noise to signal, layer by layer (LNSR).

H. Wu, A. T. Liu, H.-y. Lee, Interspeech 2020, arXiv 2006.03214: the sum over utterances as the formula has it, or the
mean, which does not grow with their number.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mockingjay.core.errors import DataError

Norm = Literal["frobenius", "spectral", "frame"]
NORMS: tuple[Norm, ...] = ("frobenius", "spectral", "frame")


def noise_to_signal(
    clean: Float[Tensor, "steps dim"], altered: Float[Tensor, "_ dim"], norm: Norm = "frobenius"
) -> float:
    """Divide the length of what changed by the length of what was there.

    Args:
        clean: One layer of one utterance.
        altered: The same of the altered utterance; the longer of the two is cut.
        norm: `frobenius`; `spectral`, which the released script takes; or `frame`, the mean ratio of single frames.

    Raises:
        DataError: There was nothing: the clean states are all zero.
    """
    steps = min(len(clean), len(altered))
    signal, noise = clean[:steps].double(), altered[:steps].double() - clean[:steps].double()
    if not signal.any():
        raise DataError(f"LNSR: all of {steps} steps are zero, expected states to compare with; leave this one out")
    if norm == "frame":
        lengths = signal.norm(dim=1)
        return float((noise.norm(dim=1)[lengths > 0] / lengths[lengths > 0]).mean())
    order = 2 if norm == "spectral" else "fro"
    return float(torch.linalg.matrix_norm(noise, order) / torch.linalg.matrix_norm(signal, order))


def lnsr(
    clean: Sequence[Sequence[Tensor]],
    altered: Sequence[Sequence[Tensor]],
    norm: Norm = "frobenius",
    reduce: Literal["mean", "sum"] = "mean",
) -> list[float]:
    """Compute the layer-wise noise-to-signal ratio of arXiv 2006.03214.

    Args:
        clean: For each utterance its layers, as `states` gives them: [steps, dim] each, the input first.
        altered: The same utterances, altered.
        norm: As in `noise_to_signal`.
        reduce: `sum` over the utterances as the formula has it, or their `mean`.

    Returns:
        One number a layer.

    Raises:
        DataError: As `noise_to_signal`.
    """
    table = ratios(clean, altered, norm)
    return (table.mean(0) if reduce == "mean" else table.sum(0)).tolist()


def ratios(
    clean: Sequence[Sequence[Tensor]], altered: Sequence[Sequence[Tensor]], norm: Norm = "frobenius"
) -> Float[np.ndarray, "utterances layers"]:
    """List what `lnsr` sums, for each utterance and layer.

    Raises:
        DataError: As `noise_to_signal`.
    """
    assert len(clean) == len(altered)
    return np.array([[noise_to_signal(*pair, norm) for pair in zip(*both)] for both in zip(clean, altered)])
