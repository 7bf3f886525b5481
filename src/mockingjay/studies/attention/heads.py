"""What kind of head a head is: global, vertical or diagonal.

S.-w. Yang, A. T. Liu, H.-y. Lee, "Understanding Self-Attention of Self-Supervised Audio Transformers", Interspeech
2020, arXiv 2006.03265, section 3. A map A has a row of weights over keys k for every query q, and H is the entropy in
nats; expectations are over utterances.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mockingjay.core.draw import Draw

MEASURES = ("globalness", "verticality", "diagonality")
RANKED = (*MEASURES, "weight")  # what heads are removed by, the highest first
CATEGORIES = ("global", "vertical", "diagonal")


def measure(maps: Float[Tensor, "*heads time time"]) -> Float[Tensor, "3 ..."]:
    """Measure globalness, verticality and diagonality of one utterance's maps without padding.

    G = mean over q of H(A[q]); V = −H(mean over q of A[q]); D = −Σ |q − k| A[q, k] / T².
    """
    time = maps.shape[-1]
    steps = torch.arange(time, device=maps.device, dtype=maps.dtype)
    globalness = torch.special.entr(maps).sum(-1).mean(-1)
    verticality = -torch.special.entr(maps.mean(-2)).sum(-1)
    diagonality = -(maps * (steps[:, None] - steps).abs()).sum((-1, -2)) / time**2
    return torch.stack([globalness, verticality, diagonality])


def weight(maps: Float[Tensor, "*heads time time"]) -> Float[Tensor, "*heads"]:
    """Take the maximal attention weight of one utterance's maps: the paper's baseline for its measures (section 5)."""
    return maps.amax((-2, -1))


def ranks(values: Float[Tensor, "measures heads"]) -> Int[Tensor, "measures heads"]:
    """Rank the heads by each measure, 0 for the highest."""
    return values.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)


def categories(values: Float[Tensor, "3 heads"]) -> Int[Tensor, " heads"]:
    """Sort every head into the category in whose list it stands highest; ranks, because the scales differ."""
    return ranks(values).argmin(0)


def orders(
    values: Float[Tensor, "4 heads"], strengths: Float[Tensor, " heads"], randoms: int, seed: int
) -> Mapping[str, tuple[int, ...]]:
    """Put heads into the orders in which they are removed.

    Args:
        values: Globalness, verticality, diagonality and weight: the highest goes first (section 5).
        strengths: What each head adds to a step: the weakest goes first, as one would prune (ours).
        randoms: How many random orders to make for comparison.
        seed: Addresses them.
    """
    chosen = {name: row.argsort(dim=-1, descending=True, stable=True) for name, row in zip(RANKED, values)}
    chosen["weakest output"] = strengths.argsort(dim=-1, stable=True)
    for number in range(1, randoms + 1):
        generator = Draw(seed).generator("order of heads", number)
        chosen[f"random {number}"] = torch.randperm(len(strengths), generator=generator)
    return {name: tuple(order.tolist()) for name, order in chosen.items()}


def by_layer(heads: tuple[int, ...], each: int) -> dict[int, list[int]]:
    """Turn numbers layer · heads + head into `prune`'s layers with their heads."""
    chosen: dict[int, list[int]] = {}
    for head in sorted(heads):
        chosen.setdefault(head // each, []).append(head % each)
    return chosen


def title(head: int, each: int) -> str:
    """Name a head as a reader counts: layers from 1, for hidden layer 0 is the input projection, and heads from 1."""
    return f"layer {head // each + 1} head {head % each + 1}"
