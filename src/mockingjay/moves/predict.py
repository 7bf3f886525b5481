"""Predict: from what is known at every step, say what will be some steps later, by a network of its own per distance.

Linear maps are those of CPC (van den Oord et al. 2018, arXiv 1807.03748, section 2.2), causal Transformer layers those
of modified CPC (Rivière et al. 2020, arXiv 2002.02848; sizes are the code's).

Differs from the code: distances in time beyond the reach of its relative positions count as that reach, where the code
takes windows of one length only.
"""

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.encoders.dropout import dropout


class LinearPredictors(nn.Module):
    """One matrix per distance, without biases.

    They start so small that all candidates score alike (ours): larger ones, and large steps from there, teach the
    frames to be alike before anything is foretold, which the presets' long warm-up prevents as well.
    """

    class Config(Table):
        """Nothing to choose."""

        kind: Literal["linear"] = "linear"

    def __init__(self, config: Config, inputs: int, outputs: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.maps = nn.Linear(inputs, steps * outputs, bias=False)  # one product for all of them
        nn.init.normal_(self.maps.weight, std=0.01 / math.sqrt(inputs * outputs))

    def forward(self, hidden: Float[Tensor, "batch time inputs"]) -> Float[Tensor, "batch time steps outputs"]:
        """Say what will be; the nearest step comes first."""
        return self.maps(hidden).unflatten(2, (self.steps, -1))


class TransformerPredictors(nn.Module):
    """One causal post-norm Transformer layer per distance; the width stays.

    What they say is divided by the width, so that its inner products with frames are means and not sums (code).
    """

    class Config(Table):
        """Defaults are the code's."""

        kind: Literal["transformer"] = "transformer"
        heads: int = Field(default=8, ge=1)
        """Attention heads; must divide the encoder's width."""
        feedforward: int = Field(default=2048, ge=1)
        """Width between the two feed-forward matrices."""
        dropout: float = Field(default=0.1, ge=0, lt=1)
        """Dropout on attention, after it and inside and after the feed-forward network."""
        reach: int = Field(default=116, ge=1)
        """Steps back that are told apart by learned relative positions: 128 of a window less 12 foretold."""

    def __init__(self, config: Config, inputs: int, outputs: int, steps: int) -> None:
        super().__init__()
        assert inputs == outputs and inputs % config.heads == 0, "the objective's config checks this"
        self.layers = nn.ModuleList(CausalLayer(inputs, config) for _ in range(steps))

    def forward(self, hidden: Float[Tensor, "batch time inputs"]) -> Float[Tensor, "batch time steps outputs"]:
        """Say what will be; the nearest step comes first."""
        return torch.stack([layer(hidden) for layer in self.layers], 2) / hidden.shape[2]


class CausalLayer(nn.Module):
    """A Transformer layer that attends backward and knows by a learned vector how far back each key lies."""

    def __init__(self, dim: int, config: TransformerPredictors.Config) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.query_key_value = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.distances = nn.Parameter(torch.empty(config.reach, dim // config.heads).normal_(std=0.02))
        self.attention_norm, self.feedforward_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.widen, self.narrow = nn.Linear(dim, config.feedforward), nn.Linear(config.feedforward, dim)

    def forward(self, values: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        """Run the layer."""
        heads = self.query_key_value(values).unflatten(2, (3, self.heads, -1)).transpose(1, 3)
        query, key, value = heads.unbind(2)
        share = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=self._nearness(query), dropout_p=share)
        attended = dropout(self.out(mixed.transpose(1, 2).flatten(2)), share, self.training)
        values = self.attention_norm(values + attended)
        changed = self.narrow(dropout(F.relu(self.widen(values)), share, self.training))
        return self.feedforward_norm(values + dropout(changed, share, self.training))

    def _nearness(self, query: Float[Tensor, "batch heads time part"]) -> Float[Tensor, "batch heads time time"]:
        """Score each key by how far back it lies; what lies ahead scores −∞."""
        time = query.shape[2]
        steps = torch.arange(time, device=query.device)
        back = steps[:, None] - steps
        by_distance = query @ self.distances.t() * query.shape[3] ** -0.5
        index = back.clamp(0, len(self.distances) - 1).expand(*query.shape[:2], -1, -1)
        return by_distance.gather(3, index).masked_fill(back < 0, -torch.inf)


Predictors = LinearPredictors | TransformerPredictors
PredictorsConfig = Annotated[LinearPredictors.Config | TransformerPredictors.Config, Field(discriminator="kind")]


def build_predictors(config: PredictorsConfig, inputs: int, outputs: int, steps: int) -> Predictors:
    """Build what says the next `steps` frames of width `outputs` from hidden states of width `inputs`."""
    if isinstance(config, LinearPredictors.Config):
        return LinearPredictors(config, inputs, outputs, steps)
    return TransformerPredictors(config, inputs, outputs, steps)
