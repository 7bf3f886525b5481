"""Residual network with squeeze and excitation.

S. Liu, H. Wu, H.-y. Lee, H. Meng, ASRU 2019, arXiv 1910.08716 (SE-ResNet12 of 478 546 parameters), after J. Hu,
L. Shen, G. Sun, "Squeeze-and-Excitation Networks", CVPR 2018, arXiv 1709.01507; SE-ResNet34 has 1 343 762.

Differs from the code: what is read is standardised; log odds are the score.
"""

import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.downstream.countermeasures.countermeasure import Countermeasure, Scale


class SENet(Countermeasure):
    """Residual blocks that weigh their channels by what these are on average."""

    class Config(Table):
        """Defaults are SE-ResNet12 (code); blocks of 3, 4, 6, 3 are SE-ResNet34."""

        blocks: tuple[int, int, int, int] = (1, 2, 3, 1)
        """Residual blocks of each stage."""
        widths: tuple[int, int, int, int] = (16, 32, 64, 128)
        """Channels of each stage."""
        squeeze: int = Field(default=16, ge=1)
        """Channels that share one value when channels are weighed."""
        batch: int = Field(default=64, ge=1)
        """Examples of a training step."""

    def __init__(self, config: Config, time: int, dim: int) -> None:
        super().__init__()
        self.scale, self.batch = Scale(dim), config.batch
        inputs = config.widths[0]
        begin = nn.Conv2d(1, inputs, 7, stride=2, padding=3, bias=False)
        layers = [begin, nn.BatchNorm2d(inputs), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)]
        for stage, (count, width) in enumerate(zip(config.blocks, config.widths)):
            for number in range(count):
                layers.append(Block(inputs, width, 2 if stage and not number else 1, config.squeeze))
                inputs = width
        self.body = nn.Sequential(*layers)
        self.classes = nn.Linear(inputs, 2)

    def forward(self, pictures: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch classes"]:
        """Compute logits."""
        return self.classes(self.body(self.scale(pictures).transpose(1, 2)[:, None]).mean((2, 3)))

    def losses(
        self, pictures: Float[Tensor, "batch time dim"], answers: Int[Tensor, " batch"], update: int
    ) -> Float[Tensor, " batch"]:
        return F.cross_entropy(self(pictures), answers, reduction="none")


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, squeeze: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        few = max(1, outputs // squeeze)
        self.weigh = nn.Sequential(
            nn.Linear(outputs, few, bias=False), nn.ReLU(), nn.Linear(few, outputs, bias=False), nn.Sigmoid()
        )
        changes = stride > 1 or inputs != outputs
        short = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
        self.shortcut = nn.Sequential(short, nn.BatchNorm2d(outputs)) if changes else nn.Identity()

    def forward(self, values: Float[Tensor, "batch inputs high wide"]) -> Float[Tensor, "batch outputs _ _"]:
        """Add what the convolutions find to what there was."""
        found = self.body(values)
        weights = self.weigh(found.mean((2, 3)))[:, :, None, None]
        return F.relu(found * weights + self.shortcut(values))
