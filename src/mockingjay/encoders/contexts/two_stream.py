"""Two-stream attention: a Transformer reads frames in any order and says what it expects at a place before seeing it.

Yang et al. 2019 (XLNet, arXiv 1906.08237), section 2.3. The content stream is the Transformer itself, each step seeing
the steps up to its own rank; the query stream knows where it stands but not what stands there, and sees the content of
lower ranks only. Both have the same weights and their natural positions: the order lives in the mask alone. The two are
run as one sequence, first all content steps, then as many query steps as are asked for.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mockingjay.core.types import Frames
from mockingjay.encoders.contexts.transformer import Transformer, positions
from mockingjay.encoders.dropout import dropout


def two_streams(
    context: Transformer,
    frames: Frames,
    ranks: Int[Tensor, "batch time"],
    targets: Int[Tensor, "batch targets"],
    start: Float[Tensor, " dim"],
) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch targets dim"]]:
    """Run both streams and return their top layers.

    Args:
        context: Whose weights both streams have.
        frames: What the content stream reads.
        ranks: Each step's place in the order, from 0; padding must rank behind every step of its utterance.
        targets: The steps at which the query stream stands.
        start: What the query stream is everywhere before its position is added.
    """
    time, asked = frames.values.shape[1], targets.shape[1]
    projected = context.project(frames.values)
    places = positions(time, context.dim, projected)
    streams = context.norm(torch.cat([projected + places, start + places[targets]], 1))
    streams = dropout(streams, context.dropout, context.training)
    allowed = visible(ranks, targets)[:, None]
    for block in context.blocks:
        streams = block(streams, allowed)
    content, query = streams.split([time, asked], 1)
    return content, query


def visible(
    ranks: Int[Tensor, "batch time"], targets: Int[Tensor, "batch targets"]
) -> Bool[Tensor, "batch streams streams"]:
    """Say which steps each step sees: content ranks up to its own, queries ranks below it, and queries are never seen.

    The query of rank 0 has no content to see and sees itself, which holds none.
    """
    own = ranks.gather(1, targets)
    content = ranks[:, None, :] <= ranks[:, :, None]
    query = ranks[:, None, :] < own[:, :, None]
    itself = torch.eye(targets.shape[1], dtype=torch.bool, device=ranks.device) & (own == 0)[:, :, None]
    return torch.cat([F.pad(content, (0, targets.shape[1])), torch.cat([query, itself], 2)], 1)
