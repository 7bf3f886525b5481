"""Draws slices of spectrogram out of vectors: the encoder of slices in a mirror (Audio2Vec, arXiv 1905.11796)."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mockingjay.encoders.contexts.slices import ConvolutionBlock, Slices


class SliceDecoder(nn.Module):
    """A seed picture, doubled and convolved until it has a slice's size.

    Args:
        mirrored: The encoder's config; blocks come in the opposite order.
        inputs: Width of what is read.
        bins: Channels of a frame.
        outputs: Pictures drawn at once.
    """

    def __init__(self, mirrored: Slices.Config, inputs: int, bins: int, outputs: int) -> None:
        super().__init__()
        channels = mirrored.channels[::-1]
        self.sizes = [(mirrored.width >> number, bins >> number) for number in range(len(channels))][::-1]
        self.seed = nn.Linear(inputs, channels[0] * self.sizes[0][0] * self.sizes[0][1])
        self.blocks = nn.ModuleList(map(ConvolutionBlock, (channels[0], *channels), channels))
        self.draw = nn.Conv2d(channels[-1], outputs, 1)

    def forward(
        self, vectors: Float[Tensor, "slices inputs"], used: Bool[Tensor, " slices"]
    ) -> Float[Tensor, "slices outputs width bins"]:
        """Draw a picture or several from each vector; vectors not used count for nothing in a batch's statistics."""
        images = self.seed(vectors).unflatten(1, (-1, *self.sizes[0]))
        shown = used[:, None, None, None]
        for size, block in zip(self.sizes, self.blocks):
            images = F.interpolate(images, size) if images.shape[2:] != size else images
            images = block(images, shown.expand(-1, 1, size[0], 1))
        return self.draw(images)
