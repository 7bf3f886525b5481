"""Speakers: a vector for each, so that a decoder need not ask the latents who is speaking.

The corpus's speakers are learned once before training, as hashes of their names in a buffer of fixed size, so that they
are saved and resumed like any weight. Who is not among them, or has no name, is the stranger, whose vector is learned
by withholding now and then who it was.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.core.draw import Draw, address
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Utterance


class Speakers(nn.Module):
    """A table of speakers; row 0 is the stranger."""

    class Config(Table):
        """The width is from the code of ZeroSpeech 2020, the rest is ours."""

        most: int = Field(default=4096, ge=1)
        """Speakers the table has room for."""
        dim: int = Field(default=64, ge=1)
        """Width of a speaker's vector."""
        withheld: float = Field(default=0.1, ge=0, le=1)
        """Probability that an utterance is trained on as a stranger's."""

    known: Int[Tensor, " most"]  # hashes of names; 0 where there is room

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.dim = config, config.dim
        self.table = nn.Embedding(config.most + 1, config.dim)
        self.register_buffer("known", torch.zeros(config.most, dtype=torch.long))

    def learn(self, names: Iterable[str | None]) -> None:
        """Fill the table with a corpus's speakers.

        Raises:
            ConfigError: They are more than it has room for.
        """
        hashes = sorted({_hash(name) for name in names if name})
        if len(hashes) > self.config.most:
            raise ConfigError(
                f"objective.speakers.most: room for {self.config.most} speakers, but the corpus has {len(hashes)}; "
                "raise it to that"
            )
        self.known.zero_()
        self.known[: len(hashes)] = torch.tensor(hashes, dtype=torch.long, device=self.known.device)

    def rows(self, utterances: Sequence[Utterance]) -> Int[Tensor, " batch"]:
        """Find each utterance's speaker in the table; 0 is the stranger."""
        hashes = torch.tensor([_hash(each.speaker) if each.speaker else -1 for each in utterances])
        same = hashes.to(self.known.device, non_blocking=True)[:, None] == self.known
        return torch.where(same.any(1), same.float().argmax(1) + 1, 0)

    def forward(self, utterances: Sequence[Utterance], draw: Draw) -> Float[Tensor, "batch dim"]:
        """Look up each utterance's speaker; in training some are withheld."""
        rows = self.rows(utterances)
        if self.training:
            lots = draw.uniform([each.id for each in utterances], "speaker", 1)[:, 0].to(rows.device, non_blocking=True)
            rows = torch.where(lots < self.config.withheld, 0, rows)
        return self.table(rows)


def _hash(name: str) -> int:
    return address("speaker", name) & (2**63 - 1) or 1
