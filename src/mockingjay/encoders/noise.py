"""Noise by address, made where it is needed: a number for every cell of a batch, without a wait for the host.

`Draw` makes its numbers on the host, which is right for masks, a few for each frame. Noise wants hundreds for each, so
here the same generator runs on the batch's device and makes the same numbers there.
"""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mockingjay.core.draw import Draw, address

# SplitMix64's constants as signed integers, whose products wrap around to the same bits.
_GOLDEN, _MIX_1, _MIX_2 = (each - 2**64 for each in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_STEP = 2.0**-24  # between two neighbouring numbers


def uniform(
    draw: Draw, ids: tuple[str, ...], purpose: str, count: int, device: torch.device
) -> Float[Tensor, "batch count"]:
    """Draw `count` numbers in [0, 1) for each id: those of `draw.uniform`, on a device."""
    keys = [address(draw.seed, draw.epoch, purpose, id) for id in ids]
    state = torch.tensor([key - (key >> 63 << 64) for key in keys]).to(device, non_blocking=True)
    bits = _mixed(state[:, None] + torch.arange(1, count + 1, device=device) * _GOLDEN)
    return _shifted(bits, 40).float() * _STEP


def gumbel(
    draw: Draw, ids: tuple[str, ...], purpose: str, count: int, device: torch.device
) -> Float[Tensor, "batch count"]:
    """Draw from the standard Gumbel distribution: what is added to logarithms of chances, the greatest is a sample."""
    return -(-uniform(draw, ids, purpose, count, device).clamp(min=_STEP / 2).log()).log()


def normal(
    draw: Draw, ids: tuple[str, ...], purpose: str, count: int, device: torch.device
) -> Float[Tensor, "batch count"]:
    """Draw from the standard normal distribution."""
    # Centred before the half step is added, where single precision still has room for it.
    return math.sqrt(2) * torch.erfinv(2 * (uniform(draw, ids, purpose, count, device) - 0.5) + _STEP)


def _mixed(state: Int64[Tensor, "batch count"]) -> Int64[Tensor, "batch count"]:
    state = (state ^ _shifted(state, 30)) * _MIX_1
    state = (state ^ _shifted(state, 27)) * _MIX_2
    return state ^ _shifted(state, 31)


def _shifted(state: Int64[Tensor, "batch count"], by: int) -> Int64[Tensor, "batch count"]:
    """Shift to the right and fill up with zeros, where a signed shift repeats the sign."""
    return (state >> by) & ((1 << (64 - by)) - 1)
