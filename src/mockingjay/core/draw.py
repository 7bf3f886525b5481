"""Randomness is addressed, not streamed: a number depends on (seed, epoch, utterance, purpose, index) and nothing else.

So the number of workers, ranks, batch-mates, or a resume cannot change it, and no generator state exists to be saved.
The generator is SplitMix64 (Steele, Lea, Flood 2014) run as a counter, vectorised over a batch.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt64
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def address(*parts: object) -> int:
    """Hash any parts into 64 bits, the same on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def _mix(state: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return state ^ (state >> np.uint64(31))


@dataclass(frozen=True, slots=True)
class Draw:
    """Hands out random numbers by address."""

    seed: int
    epoch: int = 0

    def uniform(self, ids: Sequence[str], purpose: str, count: int) -> Float[Tensor, "batch count"]:
        """Draw `count` numbers in [0, 1) for each id; a longer draw begins with the shorter one's numbers."""
        keys = np.array([address(self.seed, self.epoch, purpose, id) for id in ids], dtype=np.uint64)
        counters = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
        bits = _mix(keys[:, None] + counters[None, :])
        return torch.from_numpy((bits >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24))

    def generator(self, *parts: object) -> torch.Generator:
        """Make a torch generator for what needs a distribution of its own."""
        return torch.Generator().manual_seed(address(self.seed, self.epoch, *parts) & (2**63 - 1))
