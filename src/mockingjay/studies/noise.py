"""How much of what was changed at the input reaches each layer: the ratio of noise to signal, layer by layer (LNSR).

H. Wu, A. T. Liu, H.-y. Lee, Interspeech 2020, arXiv 2006.03214: the sum over utterances as the formula has it, or the
mean, which does not grow with their number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mockingjay.core.errors import DataError
from mockingjay.downstream.scores import bounded

Norm = Literal["frobenius", "spectral", "frame"]
NORMS: tuple[Norm, ...] = ("frobenius", "spectral", "frame")


@dataclass(frozen=True, slots=True)
class LNSR:
    """Layer-wise noise-to-signal ratio, one number a layer; no layers where no utterance could be measured."""

    mean: list[float]  # over utterances
    low: list[float]  # the mean's 95 % interval
    high: list[float]
    sum: list[float]  # as the formula has it


def noise_to_signal(
    clean: Float[Tensor, "steps dim"], altered: Float[Tensor, "_ dim"], norm: Norm = "frobenius", where: str = "LNSR"
) -> float:
    """Divide the length of what changed by the length of what was there.

    Args:
        clean: One layer of one utterance.
        altered: The same of the altered utterance; the longer of the two is cut.
        norm: `frobenius`; `spectral`, which the released script takes; or `frame`, the mean ratio of single frames.
        where: What an error begins with.

    Raises:
        DataError: There was nothing: the clean states are all zero.
    """
    steps = min(len(clean), len(altered))
    signal, noise = clean[:steps].double(), altered[:steps].double() - clean[:steps].double()
    if not signal.any():
        raise DataError(f"{where}: all of {steps} steps are zero, expected states to compare with; leave this one out")
    if norm == "frame":
        lengths = signal.norm(dim=1)
        return float((noise.norm(dim=1)[lengths > 0] / lengths[lengths > 0]).mean())
    order = 2 if norm == "spectral" else "fro"
    return float(torch.linalg.matrix_norm(noise, order) / torch.linalg.matrix_norm(signal, order))


def silent(layers: Mapping[str, Sequence[Tensor]], *, below: bool = True) -> dict[str, str]:
    """Find the utterances that cannot be measured, for one of their layers is all zero, and say so of each.

    Args:
        layers: Of each utterance by its id, [steps, dim] each.
        below: Whether the first layer is the network's input.
    """
    found = {}
    for id, own in layers.items():
        names = [name for layer, name in zip(own, _names(len(own), below)) if not layer.any()]
        if names:
            found[id] = f"{id} is left out of LNSR: nothing but zeros in {names[0]}."
    return found


def ratios(
    clean: Mapping[str, Sequence[Tensor]],
    altered: Mapping[str, Sequence[Tensor]],
    norm: Norm = "frobenius",
    *,
    below: bool = True,
) -> Float[np.ndarray, "utterances layers"]:
    """Measure every layer of every clean utterance.

    Args:
        clean: Layers of each utterance by its id, [steps, dim] each.
        altered: The same of the same utterances, altered.
        norm: As in `noise_to_signal`.
        below: As in `silent`.

    Raises:
        DataError: An utterance is silent; it is named, and the layer.
    """
    depth = len(next(iter(clean.values()), ()))
    rows = [
        [
            noise_to_signal(one, other, norm, f"{id}, {name}")
            for one, other, name in zip(layers, altered[id], _names(depth, below))
        ]
        for id, layers in clean.items()
    ]
    return np.array(rows, dtype=float).reshape(len(rows), depth)


def lnsr(table: Float[np.ndarray, "utterances layers"], seed: int = 0) -> LNSR:
    """Summarise what `ratios` measured as arXiv 2006.03214 does, and bound the mean.

    Args:
        table: One row an utterance.
        seed: Of the interval's draws.
    """
    if not len(table):
        return LNSR([], [], [], [])
    low, high = bounded(table, lambda sums: sums / len(table), seed=seed)
    return LNSR(table.mean(0).tolist(), low.tolist(), high.tolist(), table.sum(0).tolist())


def _names(depth: int, below: bool) -> list[str]:
    return ["the input"] * below + [f"layer {layer}" for layer in range(depth - below)]
