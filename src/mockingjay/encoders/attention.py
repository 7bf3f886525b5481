"""Self-attention, and the three ways to look into it: watch it, prune its heads, limit its span.

The three are context managers over any module that holds `Attention`s, so that no forward pass carries a flag for them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mockingjay.encoders.dropout import attention, dropout

# Which keys each step may see, or what is added to its scores (−inf where it may not).
Mask = Bool[Tensor, "#batch 1 #time time"] | Float[Tensor, "#batch heads time time"]


class Attention(nn.Module):
    """Multi-head self-attention with biases; the scale is 1/√(dim/heads)."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        assert dim % heads == 0, "the context's config checks this"
        self.heads = heads
        self.dropout = dropout
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.passes = 1  # of its network that one forward takes through it; more where layers share their weights
        # Set by the context managers below for as long as they are open; never part of the model.
        self.seen: list[Tensor] | None = None
        self.kept: list[Tensor | None] | None = None  # of each pass
        self.turn = 0  # the pass to come, while heads are pruned
        self.span: int | None = None
        self.reach: int | None = None  # as span, but taken from the probabilities

    def forward(self, inputs: Float[Tensor, "batch time dim"], allowed: Mask | None) -> Float[Tensor, "batch time dim"]:
        """Attend over the allowed keys; None allows all."""
        batch, time, dim = inputs.shape
        heads = self.query_key_value(inputs).view(batch, time, 3, self.heads, dim // self.heads).transpose(1, 3)
        query, key, value = heads.unbind(2)
        if self.span is not None:
            near = _near(time, self.span, inputs.device)
            allowed = near if allowed is None else _both(allowed, near)
        if self.seen is None and self.kept is None and self.reach is None:
            mixed = attention(query, key, value, allowed, self.dropout if self.training else 0.0)
        else:
            mixed = self._explicit(query, key, value, allowed)
        return self.out(mixed.transpose(1, 2).reshape(batch, time, dim))

    def _explicit(
        self,
        query: Float[Tensor, "batch heads time part"],
        key: Float[Tensor, "batch heads time part"],
        value: Float[Tensor, "batch heads time part"],
        allowed: Bool[Tensor, "..."] | Float[Tensor, "..."] | None,
    ) -> Float[Tensor, "batch heads time part"]:
        """Do the same in the open, where the probabilities can be seen and heads silenced."""
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf) if allowed.dtype == torch.bool else scores + allowed
        # Who sees nothing, as padding far from all that is none, says zero; else it would spoil what others mix in.
        probabilities = scores.softmax(-1).masked_fill(scores.isneginf().all(-1, keepdim=True), 0.0)
        if self.reach is not None:
            probabilities = probabilities * _near(scores.shape[-1], self.reach, scores.device)
        if self.seen is not None:
            self.seen.append(probabilities.detach())
        mixed = dropout(probabilities, self.dropout, self.training) @ value
        if self.kept is None:
            return mixed
        kept, self.turn = self.kept[self.turn], (self.turn + 1) % self.passes
        return mixed if kept is None else mixed * kept.to(mixed)[:, None, None]


def _near(time: int, span: int, device: torch.device) -> Bool[Tensor, "time time"]:
    steps = torch.arange(time, device=device)
    return (steps[:, None] - steps).abs() <= span


def _both(allowed: Mask, near: Bool[Tensor, "time time"]) -> Mask:
    return allowed & near if allowed.dtype == torch.bool else allowed.masked_fill(~near, -torch.inf)


def attentions(module: nn.Module) -> list[Attention]:
    """List the attention layers of a module, bottom up; one that layers share stands in each of their places."""
    return [part for part in module.modules() if isinstance(part, Attention) for _ in range(part.passes)]


@contextmanager
def watch(module: nn.Module) -> Iterator[list[Float[Tensor, "batch heads query key"]]]:
    """Collect the attention probabilities of every layer in calling order; rows sum to one over the allowed keys."""
    seen: list[Tensor] = []
    layers = attentions(module)
    for layer in layers:
        layer.seen = seen
    try:
        yield seen
    finally:
        for layer in layers:
            layer.seen = None


@contextmanager
def prune(module: nn.Module, heads: Mapping[int, Sequence[int]]) -> Iterator[None]:
    """Silence heads: `heads` maps a layer, counted from the bottom, to its silenced heads.

    Layers that share their weights are silenced each for itself.
    """
    layers = attentions(module)
    kept: list[Tensor | None] = [None] * len(layers)
    for index, silenced in heads.items():
        kept[index] = torch.ones(layers[index].heads).index_fill(0, torch.tensor([*silenced], dtype=torch.long), 0.0)
    for place, layer in enumerate(layers):
        if not place or layer is not layers[place - 1]:
            own = kept[place : place + layer.passes]
            layer.kept, layer.turn = (own if any(each is not None for each in own) else None), 0
    try:
        yield
    finally:
        for layer in layers:
            layer.kept = None


@contextmanager
def limit(module: nn.Module, span: int, where: Literal["before", "after"] = "before") -> Iterator[None]:
    """Let every step attend to keys at most `span` steps away.

    Args:
        module: Holds the attention layers.
        span: Steps.
        where: `before` the softmax, so that what is left sums to one; or `after` it, as arXiv 2006.03265 writes it:
            far probabilities become zero and the near ones stay what they were, which is another experiment.
    """
    layers = attentions(module)
    for layer in layers:
        layer.span, layer.reach = (span, None) if where == "before" else (None, span)
    try:
        yield
    finally:
        for layer in layers:
            layer.span = layer.reach = None


class Block(nn.Module):
    """A post-norm BERT layer: attention and feed-forward, each followed by dropout, residual and LayerNorm."""

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.attention = Attention(dim, heads, attention_dropout)
        self.attention_norm = nn.LayerNorm(dim, eps=1e-12)
        self.widen = nn.Linear(dim, feedforward)
        self.narrow = nn.Linear(feedforward, dim)
        self.feedforward_norm = nn.LayerNorm(dim, eps=1e-12)
        self.dropout = dropout

    def forward(self, inputs: Float[Tensor, "batch time dim"], allowed: Mask | None) -> Float[Tensor, "batch time dim"]:
        """Run the layer."""
        attended = dropout(self.attention(inputs, allowed), self.dropout, self.training)
        inputs = self.attention_norm(inputs + attended)
        changed = dropout(self.narrow(F.gelu(self.widen(inputs))), self.dropout, self.training)
        return self.feedforward_norm(inputs + changed)
