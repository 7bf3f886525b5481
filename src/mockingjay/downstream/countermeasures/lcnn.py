"""Light CNN: convolutions whose channels compete in pairs, under an angular margin.

S. Liu, H. Wu, H.-y. Lee, H. Meng, "Adversarial Attacks on Spoofing Countermeasures of Automatic Speaker Verification",
ASRU 2019, arXiv 1910.08716, after X. Wu et al., "A Light CNN for Deep Face Representation", 2018, arXiv 1511.02683, and
for the loss W. Liu et al., "SphereFace", CVPR 2017, arXiv 1704.08063.

Differs from the code: four norms are left out that it makes and never uses (352 of its 10 198 816 parameters, 72 of the
small variant's 509 072); what is read is standardised; weights begin larger; log odds are the score.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.core.errors import ConfigError
from mockingjay.downstream.countermeasures.countermeasure import Countermeasure, Scale

POOLED = 16  # steps, and values, of the picture that become one


class LCNN(Countermeasure):
    """Nine competing convolutions, one competing layer, angles to two classes."""

    class Config(Table):
        """Defaults are the published network (code)."""

        channels: tuple[int, int, int, int, int, int] = (32, 48, 64, 32, 32, 80)
        """After the first convolution, after each of the four groups, and values of an embedding."""
        dropout: float = Field(default=0.75, ge=0, lt=1)
        """Of the embedding, before its values compete."""
        batch: int = Field(default=16, ge=1)
        """Examples of a training step."""

    def __init__(self, config: Config, time: int, dim: int) -> None:
        super().__init__()
        if min(time, dim) < POOLED:
            raise ConfigError(
                f"LCNN: pictures of {time} steps by {dim} values, expected at least {POOLED} of both; "
                "raise seconds or choose features of more values"
            )
        first, *groups, embedding = config.channels
        self.scale, self.batch = Scale(dim), config.batch
        one, two, three, four = map(_group, (first, *groups), groups)
        pool = nn.MaxPool2d(2)
        norms = nn.BatchNorm2d(groups[0]), nn.BatchNorm2d(groups[2])
        begin = Compete(1, first, 5)
        self.body = nn.Sequential(begin, pool, one, pool, norms[0], two, pool, three, norms[1], four, pool)
        self.dropout = nn.Dropout(config.dropout)
        self.narrow = nn.Linear(groups[3] * (dim // POOLED) * (time // POOLED), 2 * embedding)
        self.norm = nn.BatchNorm1d(embedding)
        for each in self.modules():
            if isinstance(each, nn.Conv2d | nn.Linear):
                _begin(each)
        self.directions = nn.Parameter(nn.init.xavier_uniform_(torch.empty(embedding, 2)))

    def forward(self, pictures: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch classes"]:
        """Compute the embedding's length times the cosine of its angle to each class."""
        embedding = self.embed(pictures)
        return embedding @ F.normalize(self.directions, dim=0)

    def losses(
        self, pictures: Float[Tensor, "batch time dim"], answers: Int[Tensor, " batch"], update: int
    ) -> Float[Tensor, " batch"]:
        embedding = self.embed(pictures)
        logits = embedding @ F.normalize(self.directions, dim=0)
        return F.cross_entropy(_with_margin(logits, embedding.norm(dim=1), answers, update), answers, reduction="none")

    def embed(self, pictures: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch embedding"]:
        """Compute what angles are taken of."""
        values = self.body(self.scale(pictures).transpose(1, 2)[:, None]).flatten(1)
        return self.norm(_larger(self.dropout(self.narrow(values))))


class Compete(nn.Module):
    """A convolution of twice the channels, of which the larger of each pair goes on (max feature map)."""

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, 2 * outputs, width, padding=width // 2)

    def forward(self, values: Float[Tensor, "batch inputs high wide"]) -> Float[Tensor, "batch outputs high wide"]:
        """Convolve and choose."""
        return _larger(self.convolution(values))


def _begin(layer: nn.Conv2d | nn.Linear) -> None:
    """Draw weights under which competing values stay of size one (ours).

    Under torch's own they shrink from layer to layer, and a norm's running variance, which begins at one, needs a
    hundred updates to come down to them: until then nothing is told apart in evaluation.
    """
    nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


def _larger(values: Float[Tensor, "batch channels ..."]) -> Float[Tensor, "batch half ..."]:
    """Take the larger of each pair of channels; on a CPU three times as fast in both directions as `maximum`."""
    first, second = values.chunk(2, 1)
    return second + (first - second).relu()


def _group(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(Compete(inputs, inputs, 1), Compete(inputs, outputs, 3))


def _with_margin(
    logits: Float[Tensor, "batch classes"],
    length: Float[Tensor, " batch"],
    answers: Int[Tensor, " batch"],
    update: int,
) -> Float[Tensor, "batch classes"]:
    """Make the right class harder: ψ(θ) = (−1)ᵏ cos 4θ − 2k stands for cos θ, the more so the longer it is trained."""
    share = max(5.0, 1500 / (1 + 0.1 * update))  # λ (code)
    right = logits.gather(1, answers[:, None])[:, 0]
    cosine = (right / length.clamp(min=1e-12)).clamp(-1, 1)
    k = (4 * cosine.detach().acos() / torch.pi).floor().clamp(max=3)
    four = 8 * cosine**4 - 8 * cosine**2 + 1  # cos 4θ
    psi = (1 - 2 * (k % 2)) * four - 2 * k
    harder = length * (share * cosine + psi) / (1 + share)
    return logits.scatter(1, answers[:, None], harder[:, None])
