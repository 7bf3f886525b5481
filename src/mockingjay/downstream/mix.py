"""Which layers a probe reads, and on what scale.

`mix` is the weighted sum of Mockingjay (section 2.3, "similar to ELMo") as SUPERB fixed it: raw layers under softmax
weights that start equal, each layer keeping its own scale; `normalise` puts a parameter-free layer norm on every layer
first. The weights may be raw instead, free to be negative and to sum to anything, as in Mockingjay's released code
(`weighted_sum`; which of the two its figures were made with the paper does not say), or fixed and equal (`average`
there). A mix reads layer 0 too, which is what the first block reads, the projected input, as SUPERB does; Mockingjay's
code leaves it out, and so does `lowest = 1`.

The sum is then standardised per dimension with statistics of the training set. That is an affine map, which a
linear head could undo: the class of probes does not change, only the speed at which one converges, and it is done for
every representation alike. The mean and variance of a weighted sum follow exactly from the layers' means and
covariances, so the scale stays right while the weights move:

    mean = Σ_l w_l mean_l        variance = Σ_l Σ_m w_l w_m covariance_lm

So only the proportions of raw weights matter, and theirs begin equal, summing to one. A weight is the importance of a
layer only among layers of like norms, so the mean norm of each is kept.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Hidden

Weighing = Literal["softmax", "raw", "mean"]


@dataclass(frozen=True, slots=True)
class Mixed:
    """Raw values, and the affine map that standardises them; a head's first layer absorbs it at no cost."""

    values: Float[Tensor, "batch rows dim"]
    scale: Float[Tensor, " dim"]
    shift: Float[Tensor, " dim"]

    @property
    def standardised(self) -> Float[Tensor, "batch rows dim"]:
        """Mean 0 and variance 1 over the training rows."""
        return torch.addcmul(self.shift, self.values, self.scale)


class Mix(nn.Module):
    """Reads one layer or a weighted sum of all.

    Attributes:
        layers: Indices of the layers it reads.
        logits: Mixing weights before the softmax, or as they are where they are raw; None where nothing is learnt.
        mean: Of each layer over the training rows; so are `covariance` and `norms`, the mean norm.
    """

    mean: Float[Tensor, "layers dim"]
    covariance: Float[Tensor, "layers layers dim"]  # of each dimension, between layers
    norms: Float[Tensor, " layers"]

    def __init__(
        self,
        read: str,
        depth: int,
        dim: int,
        normalise: bool = False,
        weighing: Weighing = "softmax",
        lowest: int = 0,
    ) -> None:
        super().__init__()
        self.layers = _indices(read, depth, lowest)
        self.normalise = normalise
        self.weighing: Weighing = weighing
        count = len(self.layers)
        even = torch.full((count,), 1 / count if weighing == "raw" else 0.0)
        self.logits = None if weighing == "mean" else nn.Parameter(even, requires_grad=count > 1)
        self.register_buffer("mean", torch.zeros(count, dim))
        self.register_buffer("covariance", torch.ones(count, count, dim))  # until fitted: unit scale
        self.register_buffer("norms", torch.zeros(count))

    @property
    def weights(self) -> Float[Tensor, " layers"]:
        """Positive and summing to one, unless they are raw."""
        if self.logits is None:
            return self.norms.new_full((len(self.layers),), 1 / len(self.layers))
        return self.logits if self.weighing == "raw" else self.logits.softmax(0)

    def take(self, hidden: Hidden) -> Float[Tensor, "layers batch time dim"]:
        """Pick the layers that are read."""
        stack = torch.stack([hidden.layers[layer] for layer in self.layers]).float()
        return F.layer_norm(stack, stack.shape[-1:]) if self.normalise else stack

    @torch.no_grad()
    def fit(self, rows: Float[Tensor, "layers rows dim"]) -> None:
        """Measure mean, covariance and norm on training rows."""
        mean = rows.mean(1, dtype=torch.float64)
        self.mean.copy_(mean)
        centred = rows - self.mean[:, None]
        for layer, values in enumerate(centred):
            self.covariance[layer] = (centred * values).mean(1)
        self.norms.copy_(rows.norm(dim=-1).mean(1))

    def forward(self, stack: Float[Tensor, "layers batch rows dim"]) -> Mixed:
        """Weigh and sum, and say how to standardise."""
        weights = self.weights
        variance = torch.einsum("l,m,lmd->d", weights, weights, self.covariance).clamp(min=0)
        scale = (variance + 1e-6 * variance.mean() + 1e-12).rsqrt()  # a constant dimension is not blown up
        values = torch.matmul(weights, stack.flatten(1)).view(stack.shape[1:]) if len(weights) > 1 else stack[0]
        return Mixed(values, scale, -scale * (weights @ self.mean))


def _indices(read: str, depth: int, lowest: int) -> tuple[int, ...]:
    if read == "mix":
        if lowest >= depth:
            raise ConfigError(
                f"probe.lowest: {lowest}, expected 0 to {depth - 1}, the layers of this representation; lower it"
            )
        return tuple(range(lowest, depth))
    layer = depth - 1 if read == "last" else int(read.removeprefix("layer:"))
    if layer >= depth:
        raise ConfigError(
            f"probe.read: layer {layer}, expected 0 to {depth - 1}, the layers of this "
            "representation; choose one of them"
        )
    return (layer,)
