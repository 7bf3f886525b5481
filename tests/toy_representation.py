"""A representation whose answers are known, and speech-like files that it understands."""

import numpy as np
import soundfile
import torch
from torch import nn

from mockingjay.core.representation import Representation
from mockingjay.core.types import Grid, Hidden, Utterance, valid_steps

CODES = 8


class Toy(Representation):
    """Every sample of a code's stretch is (code + 0.5) / CODES; the last layer is the code as a one-hot vector, the
    first a muddle."""

    def __init__(self, hop=160, dim=CODES):
        super().__init__()
        self.dim, self.depth, self.grid, self.receptive = dim, 3, Grid(hop, hop / 2), hop
        generator = torch.Generator().manual_seed(0)
        self.map = nn.Linear(CODES, dim, bias=False)
        with torch.no_grad():
            self.map.weight.copy_(torch.eye(CODES)[:dim])
        self.register_buffer("muddle", torch.randn(CODES, dim, generator=generator) * 0.01)
        self.dropout = nn.Dropout(0.5)
        self.seen = 0

    def forward(self, waves):
        self.seen += len(waves.lengths)
        lengths = waves.lengths // self.hop
        centres = torch.arange(int(lengths.max())) * self.hop + self.hop // 2
        codes = (waves.samples[:, centres] * CODES).long().clamp(0, CODES - 1)
        last = self.map(nn.functional.one_hot(codes, CODES).float())
        padding = valid_steps(lengths, last.shape[1])[..., None] < 1
        last = last.masked_fill(padding, 7.0)  # padding that would be noticed
        return Hidden((self.muddle[codes], self.dropout(last) * 3 + 5, last), lengths)


class Onsets(Toy):
    """Knows the phones as they begin, and is silent while they last: stretches alike in every step leave a linear
    head no place for a blank between."""

    def forward(self, waves):
        hidden = super().forward(waves)
        last = hidden.last.clone()
        last[:, 1:][hidden.last[:, 1:].eq(hidden.last[:, :-1]).all(-1)] = 0.0
        return Hidden((*hidden.layers[:2], last), hidden.lengths)


def speak(folder, count=40, speakers=4, seconds=(0.5, 1.5), seed=0, labels=None):
    """Write utterances of random codes; `mood` is the parity of all codes of an utterance, speakers are a matter of
    chance."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    utterances = []
    for number in range(count):
        length = round(random.uniform(*seconds), 2)
        mood = number % 2
        alignment, wave, now = [], np.zeros(round(length * 16_000), dtype=np.float32), 0.0
        while now < length:
            until = min(length, round(now + int(random.integers(3, 12)) * 0.03, 2))
            code = int(random.integers(CODES // 2)) * 2 + mood
            wave[round(now * 16_000) : round(until * 16_000)] = (code + 0.5) / CODES
            alignment.append((now, until, f"p{code}"))
            now = until
        path = folder / f"u{number:03d}.wav"
        soundfile.write(path, wave, 16_000, subtype="FLOAT")
        utterances.append(
            Utterance(
                id=f"u{number:03d}",
                path=str(path),
                seconds=length,
                speaker=f"s{number % speakers}",
                labels={"mood": ("sad", "glad")[mood], **(labels or {})},
                alignment=tuple(alignment),
            )
        )
    return utterances
