"""A bidirectional Transformer that knows how far apart two steps are, and not where they stand.

One learned number per head and distance is added to every score before the softmax, the same in all layers (Raffel et
al. 2020, T5, arXiv 1910.10683, section 2.1); distances beyond a reach count as that reach (Shaw et al. 2018, arXiv
1803.02155, section 3.2).
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from mockingjay.core.types import Frames, Hidden, valid_steps
from mockingjay.encoders.attention import Block
from mockingjay.encoders.contexts.context import Context
from mockingjay.encoders.contexts.transformer import Transformer, initialise
from mockingjay.encoders.dropout import dropout


class RelativeTransformer(Context):
    """A post-norm Transformer with relative positions; layer 0 of its output is the normalised input projection."""

    class Config(Transformer.Config):
        """Sizes default to those of the Transformer with sinusoids."""

        kind: Literal["relative-transformer"] = "relative-transformer"  # pyright: ignore[reportIncompatibleVariableOverride]
        reach: int = Field(default=64, ge=1, le=65_536)
        """Steps beyond which distances are no longer told apart."""

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.dim, self.depth, self.stride, self.causal = config.dim, config.layers + 1, 1, False
        self.dropout, self.reach = config.dropout, config.reach
        self.project = nn.Linear(inputs, config.dim)
        self.norm = nn.LayerNorm(config.dim, eps=1e-12)
        self.distances = nn.Parameter(torch.zeros(config.heads, 2 * config.reach + 1))  # from −reach to reach
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, config.feedforward, config.dropout, config.attention_dropout)
            for _ in range(config.layers)
        )
        self.apply(initialise)

    def forward(self, frames: Frames) -> Hidden:
        return self.read(self.project(frames.values), frames.lengths)

    def read(self, embedded: Float[Tensor, "batch time dim"], lengths: Int[Tensor, " batch"]) -> Hidden:
        """Read frames that are projected already, some of them perhaps replaced."""
        time = embedded.shape[1]
        layers = [dropout(self.norm(embedded), self.dropout, self.training)]
        mask = self._nearness(time)
        if embedded.is_cuda or bool((lengths < time).any()):  # asking costs a synchronisation on CUDA only
            mask = mask.masked_fill(~valid_steps(lengths, time)[:, None, None, :], -torch.inf)
        for block in self.blocks:
            layers.append(block(layers[-1], mask))
        return Hidden(tuple(layers), lengths)

    def _nearness(self, time: int) -> Float[Tensor, "1 heads time time"]:
        """Lay the learned numbers out so that row i, column j holds the one of distance j − i."""
        steps = torch.arange(1 - time, time, device=self.distances.device).clamp(-self.reach, self.reach)
        return self.distances[:, steps + self.reach].unfold(1, time, 1).flip(1)[None]
