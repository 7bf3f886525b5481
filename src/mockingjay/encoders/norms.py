"""Normalisation of sequences, padding left out: over a step's channels, an utterance, or a batch.

What is normalised together depends on each other. Only norms over a step's own channels keep a causal network causal;
over an utterance the past knows something of the future, over a batch one utterance something of the others, and both
are declared by whoever has such a norm.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

Norm = Literal["none", "channel", "layer", "group", "instance", "batch"]
PER_STEP: frozenset[Norm] = frozenset({"none", "channel", "layer"})  # these see no step but their own

_EPS = 1e-5


class SequenceNorm(nn.Module):
    """Whichever norm a config asks for, with a scale and a shift per channel.

    Args:
        kind: 'channel' and 'layer' are over the channels of each step, the first by the unbiased variance (code of
            modified CPC), 'group' over all channels and steps of an utterance (wav2vec), 'instance' over all its steps
            for each channel apart (wav2vec 2.0), 'batch' over all steps of a batch in training and by its running
            averages afterwards, 'none' leaves everything as it is.
        channels: How many there are.
    """

    def __init__(self, kind: Norm, channels: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "batch":
            self.batch = MaskedBatchNorm(channels)
        elif kind != "none":
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self, values: Float[Tensor, "batch time channels"], valid: Bool[Tensor, "batch time"] | None
    ) -> Float[Tensor, "batch time channels"]:
        """Normalise; `valid` marks what is no padding, None where nothing is."""
        channels = values.shape[2:]
        if self.kind == "layer":
            return F.layer_norm(values, channels, self.weight, self.bias, _EPS)
        if self.kind == "channel":
            # By the unbiased variance: the fused norm does it where scale and epsilon make up for the other divisor.
            share = 1 - 1 / channels[0]
            return F.layer_norm(values, channels, self.weight * share**0.5, self.bias, _EPS * share)
        if self.kind in ("group", "instance"):
            return _over_utterances(values, valid, self.weight, self.bias, apart=self.kind == "instance")
        if self.kind == "batch":
            valid = values.new_ones(values.shape[:2], dtype=torch.bool) if valid is None else valid
            return self.batch(values.transpose(1, 2)[..., None], valid[:, None, :, None])[..., 0].transpose(1, 2)
        return values


def _over_utterances(
    values: Float[Tensor, "batch time channels"],
    valid: Bool[Tensor, "batch time"] | None,
    weight: Float[Tensor, " channels"],
    bias: Float[Tensor, " channels"],
    apart: bool,
) -> Float[Tensor, "batch time channels"]:
    values = values.float()  # sums over a million values
    over, width = (1, 1.0) if apart else ((1, 2), float(values.shape[2]))
    if valid is None:
        count = values.new_tensor(values.shape[1] * width)
    else:
        values = values * valid[:, :, None]
        count = valid.sum(1).clamp(min=1)[:, None, None] * width
    mean = values.sum(over, keepdim=True) / count
    power = torch.linalg.vector_norm(values, dim=over, keepdim=True).square() / count
    scale = weight * ((power - mean.square()).clamp(min=0) + _EPS).rsqrt()
    return torch.addcmul(bias - mean * scale, values, scale)


class MaskedBatchNorm(nn.Module):
    """Batch normalisation of images whose padding counts for nothing (Ioffe and Szegedy 2015, arXiv 1502.03167).

    On several ranks each has its own statistics.
    """

    mean: Float[Tensor, " filters"]
    variance: Float[Tensor, " filters"]

    def __init__(self, filters: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(filters))
        self.bias = nn.Parameter(torch.zeros(filters))
        self.register_buffer("mean", torch.zeros(filters))
        self.register_buffer("variance", torch.ones(filters))

    def forward(
        self, images: Float[Tensor, "batch filters time columns"], valid: Bool[Tensor, "batch 1 time 1"]
    ) -> Float[Tensor, "batch filters time columns"]:
        """Normalise by the valid part's statistics in training, which are followed, and by the followed ones else."""
        mean, variance = self.mean, self.variance
        if self.training:
            share = valid.float() / (valid.sum() * images.shape[3]).clamp(min=1)
            mean = (images * share).sum((0, 2, 3))
            variance = ((images - mean[:, None, None]).square() * share).sum((0, 2, 3))
            with torch.no_grad():
                self.mean.lerp_(mean.float(), self.momentum)
                self.variance.lerp_(variance.float(), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return images * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]


def follows_batches(module: nn.Module) -> bool:
    """Whether a module itself normalises by the batch in training; one that is frozen goes by what it followed."""
    return isinstance(module, MaskedBatchNorm) and isinstance(module.weight, nn.Parameter)
