"""How layers differ: similarity of their states and of their attention, what they know, what noise does to them, cost.

Audio ALBERT (arXiv 2005.08575) shares one block among all layers; whether that costs anything shows here: linear CKA
between layers (Kornblith et al. 2019, arXiv 1905.00414, section 3), Jensen–Shannon divergence between the layers'
attention, time and memory. What noise does to the layers is measured as in `studies/noise.py`.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mockingjay.core.draw import Draw
from mockingjay.core.representation import Representation
from mockingjay.core.types import SAMPLE_RATE, Waves
from mockingjay.downstream.features import device_of
from mockingjay.encoders.encoder import Encoder

DRAWS = 100  # of a similarity's interval: every draw centres all Gram matrices anew


def gram(rows: Float[Tensor, "layers points dim"]) -> Float[Tensor, "layers points points"]:
    """Multiply all pairs of points of each layer."""
    rows = rows.double() - rows.double().mean(1, keepdim=True)
    return rows @ rows.transpose(1, 2)


def cka(
    grams: Float[Tensor, "layers points points"], weights: Float[Tensor, " points"] | None = None
) -> Float[Tensor, "layers layers"]:
    """Compare layers by linear centred kernel alignment: |YᵀX|² / (|XᵀX| |YᵀY|) of centred columns, Frobenius norms.

    Args:
        grams: From `gram`.
        weights: How often each point counts; none: once.
    """
    points = grams.shape[1]
    shares = torch.ones(points, dtype=grams.dtype) if weights is None else weights.to(grams.dtype)
    shares = (shares / shares.sum()).to(grams.device)
    rows = torch.einsum("lpq,q->lp", grams, shares)
    total = rows @ shares
    centred = grams - rows[:, :, None] - rows[:, None, :] + total[:, None, None]
    root = shares.sqrt()
    flat = (centred * root[:, None] * root).flatten(1)
    products = flat @ flat.T
    norms = products.diagonal().clamp(min=1e-300).sqrt()
    return products / (norms[:, None] * norms)


def cka_interval(
    grams: Float[Tensor, "layers points points"], owners: Int[Tensor, " points"], seed: int, draws: int = DRAWS
) -> tuple[Float[np.ndarray, "layers layers"], Float[np.ndarray, "layers layers"]]:
    """Bound `cka` with 95 % confidence, drawing utterances with replacement.

    Args:
        grams: From `gram`.
        owners: The utterance of each point, from 0.
        seed: Of the draws.
        draws: How many.
    """
    utterances = int(owners.max()) + 1
    random = np.random.default_rng(seed)
    counts = random.multinomial(utterances, np.full(utterances, 1 / utterances), size=draws)
    found = [cka(grams, torch.from_numpy(row)[owners].double()).cpu().numpy() for row in counts]
    low, high = np.quantile(np.stack(found), (0.025, 0.975), axis=0)
    return low, high


def divergence(maps: Float[Tensor, "layers heads time time"]) -> Float[Tensor, "layers layers"]:
    """Compare layers by the Jensen–Shannon divergence, in nats, of where they look: heads and queries are averaged.

    Heads of a layer have no order, so a layer is the mean of its heads.
    """
    mean = maps.mean(1)
    own = torch.special.entr(mean).sum(-1)
    rows = []
    for layer, entropy in zip(mean, own):
        middle = torch.special.entr((mean + layer) / 2).sum(-1)
        rows.append((middle - (own + entropy) / 2).mean(-1))
    return torch.stack(rows).clamp(min=0)


@torch.no_grad()
def states(representation: Representation, waves: Waves) -> list[list[Tensor]]:
    """Represent waves: for each utterance its layers [steps, dim], first the frames that the network reads.

    Where a representation is not one of our encoders its frames cannot be seen, and layer 0 is the first.
    """
    representation.eval()
    waves = waves.to(device_of(representation))
    hidden = representation(waves)
    layers = [hidden.split(layer) for layer in range(len(hidden.layers))]
    if isinstance(representation, Encoder):
        frames = representation.frontend(waves)
        layers.insert(0, [row[:length] for row, length in zip(frames.values, frames.lengths.tolist())])
    return [list(each) for each in zip(*layers)]


def with_noise(
    wave: Float[Tensor, " samples"], decibels: float, seed: int, utterance: str
) -> Float[Tensor, " samples"]:
    """Add white noise so many decibels below the utterance's own level."""
    noise = torch.randn(wave.shape, generator=Draw(seed).generator("white noise", utterance))
    level = wave.square().mean().sqrt() / noise.square().mean().sqrt().clamp(min=1e-12)
    return wave + noise * level * 10 ** (-decibels / 20)


def cost(representation: Representation, waves: Waves, passes: int = 3) -> Mapping[str, Any]:
    """Measure what a second of audio costs: seconds to represent it, to train on it, and bytes kept for training.

    Parameters that layers share count once; the work and what is kept for gradients do not shrink with them.
    """
    device = device_of(representation)
    waves = waves.to(device)
    audio = float(waves.lengths.sum()) / SAMPLE_RATE
    wanted = [each.requires_grad for each in representation.parameters()]
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    own = {each.untyped_storage().data_ptr() for each in representation.parameters()}
    try:
        representation.eval().requires_grad_(True)
        with torch.no_grad():
            forward = min(_timed(lambda: representation(waves).last, device) for _ in range(passes))
        training = min(_timed(lambda: representation(waves).last.sum().backward(), device) for _ in range(passes))
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            last = representation(waves).last
    finally:
        for each, before in zip(representation.parameters(), wanted):
            each.requires_grad_(before)
        representation.zero_grad(set_to_none=True)
    del last
    return {
        "parameters": sum(each.numel() for each in representation.parameters()),
        "weights": sum(each.nbytes for each in representation.parameters()),  # bytes
        "forward": forward / audio,  # seconds
        "training": training / audio,  # seconds
        "kept": sum(size for place, size in kept.items() if place not in own) / audio,  # bytes
    }


def _timed(work: Any, device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
