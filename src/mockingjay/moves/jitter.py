"""Time-jitter: latents now and then take their neighbour's place (Chorowski et al. 2019, arXiv 1901.08810).

A latent that may stand for its neighbour cannot count on its exact place, so it holds what lasts longer than one step.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mockingjay.core.draw import Draw


def jitter(
    latents: Float[Tensor, "batch time dim"],
    lengths: Int[Tensor, " batch"],
    probability: float,
    draw: Draw,
    ids: tuple[str, ...],
) -> Float[Tensor, "batch time dim"]:
    """Replace each latent by its left or right neighbour, each with half the probability; ends may stay."""
    time = latents.shape[1]
    lots = draw.uniform(ids, "jitter", time).to(latents.device, non_blocking=True)
    shift = (lots > 1 - probability / 2).long() - (lots < probability / 2).long()
    index = (torch.arange(time, device=latents.device) + shift).clamp(min=0)
    index = torch.minimum(index, (lengths[:, None] - 1).clamp(min=0))
    return latents.gather(1, index[:, :, None].expand_as(latents))
