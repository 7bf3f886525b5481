"""WaveNet autoencoders: squeeze speech through a bottleneck and let a strong decoder say the waveform again.

J. Chorowski, R. Weiss, S. Bengio, A. van den Oord, "Unsupervised Speech Representation Learning Using WaveNet
Autoencoders", IEEE/ACM TASLP 27(12), 2019, arXiv 1901.08810.

Convolutions over MFCCs give one latent every 20 ms, which is narrow (AE), noisy (VAE) or one of a codebook's (VQ-VAE).
From latents, of which some take their neighbour's place, and from the speaker's vector, a WaveNet says the distribution
of every sample given those before it. What the decoder knows otherwise, the voice and the fine shape of the waveform,
the latents need not hold, and there is no room for it. The loss is −log p a sample, plus the bottleneck's cost, and in
evaluation −log p alone.

Differs from the paper: layers and sizes are from the code of ae-wavenet; only a segment of each utterance is decoded,
but the encoder reads all of it and all its latents are counted; codes begin at latents, and those no longer chosen
start anew; a speaker is a learned vector, and now and then withheld, so that strangers have one too. No Polyak
averaging.
"""

import itertools
from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Int
from pydantic import Field, model_validator
from torch import Tensor

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import SAMPLE_RATE, Batch, Frames, Loss, Utterance, Waves, valid_steps
from mockingjay.encoders.bottlenecks import Discrete
from mockingjay.encoders.contexts import Squeezed
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends import MFCC
from mockingjay.moves.decode import DecoderConfig, Segment, WaveNet, build_decoder
from mockingjay.moves.jitter import jitter
from mockingjay.moves.slices import cut, first
from mockingjay.moves.speakers import Speakers
from mockingjay.objectives.objective import Objective, encoder_of_sound

_FIRST = 4  # batches whose latents the first codes are chosen from


class Autoencoder(Objective):
    """Say the waveform again from few numbers and the speaker."""

    class Config(config.Config):
        """Defaults are the paper's VQ-VAE in ae-wavenet's sizes (code)."""

        kind: Literal["autoencoder"] = "autoencoder"
        encoder: Encoder.Config = Encoder.Config(frontend=MFCC.Config(), context=Squeezed.Config())
        """What is kept after training, the bottleneck included."""
        jitter: float = Field(default=0.12, ge=0, le=1)
        """Probability that a latent takes a neighbour's place (paper)."""
        segment: int = Field(default=16, ge=1)
        """Latents of each utterance that are decoded; 5120 samples (paper, from memory)."""
        speakers: Speakers.Config = Speakers.Config()
        """Who speaks, for the decoder."""
        decoder: DecoderConfig = WaveNet.Config()
        """What says the speech again; dropped after training."""
        spoken: float = Field(default=1.0, gt=0)
        """Seconds that are made to sound when a reconstruction is asked for (ours)."""

        @model_validator(mode="after")
        def _squeezes(self) -> "Autoencoder.Config":
            kind = self.encoder.context.kind
            if kind != "squeezed":
                raise ValueError(f"encoder.context.kind {kind!r} has no bottleneck, expected 'squeezed'")
            return self

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder_of_sound(config.encoder)
        assert isinstance(config.encoder.context, Squeezed.Config), "the config checks this"
        self.speakers = Speakers(config.speakers)
        dim = config.encoder.context.dim
        self.decoder = build_decoder(config.decoder, dim, self.speakers.dim, self.encoder.grid)

    @property
    def context(self) -> Squeezed:
        """The encoder's upper storey."""
        context = self.encoder.context
        assert isinstance(context, Squeezed), "the config checks this"
        return context

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Learn who speaks in the corpus, fit the frontend and the decoder's statistics, and place the first codes.

        Raises:
            ConfigError: There are more speakers than the table has room for.
        """
        self.speakers.learn(each.speaker for batch in batches for each in batch.utterances)
        self.encoder.frontend.fit(batch.waves for batch in batches)
        self.decoder.fit(batch.waves for batch in batches)
        with torch.no_grad():
            for batch in itertools.islice(batches, _FIRST):
                ids = tuple(utterance.id for utterance in batch.utterances)
                latents = self._project(batch.waves)
                self.context.bottleneck(latents.values, latents.valid, 0.0, Draw(0), ids)
        self.context.bottleneck.begin()

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        ids, count = tuple(utterance.id for utterance in batch.utterances), self.config.segment
        projected = self._project(batch.waves)
        passed = self.context.bottleneck(projected.values, projected.valid, progress, draw, ids)
        begin = first(projected.lengths, count, draw, ids)
        latents, inside = (part[:, 0] for part in cut(passed.values, projected.lengths, begin, count))
        if self.training:
            latents = jitter(latents, inside.sum(1), self.config.jitter, draw, ids) * inside[..., None]
        segment = Segment(begin[:, 0], count, self.encoder.grid)
        said = self.decoder(latents, self.speakers(batch.utterances, draw), batch.waves, segment)
        if not self.training:
            return said
        # All latents of an utterance say what those of its segment cost.
        mean = (passed.cost * projected.valid).sum(1) / projected.lengths.clamp(min=1)
        cost = (mean * inside.sum(1)).sum()
        figures = {name: value.detach() * said.weight for name, value in passed.figures.items()}
        return Loss(
            said.sum + cost, said.weight, {"likelihood": said.sum.detach(), "bottleneck": cost.detach(), **figures}
        )

    def after_step(self, progress: float) -> None:
        self.context.bottleneck.follow()

    def codes(self, batch: Batch) -> Int[Tensor, "steps groups"] | None:
        bottleneck = self.context.bottleneck
        if not isinstance(bottleneck, Discrete):
            return None
        latents = self._project(batch.waves)
        return bottleneck.quantiser.nearest(latents.values)[latents.valid][:, None]

    def picture(self, batch: Batch, draw: Draw) -> None:
        """Nothing is hidden; see `reconstruct`."""

    @torch.no_grad()
    def reconstruct(self, batch: Batch, draw: Draw) -> Waves:
        """Make the first seconds of the batch sound again, in their own voices."""
        return self.say(batch.waves, batch.utterances, draw)

    @torch.no_grad()
    def say(self, waves: Waves, speakers: tuple[Utterance, ...], draw: Draw) -> Waves:
        """Make what was said sound in the voices of these utterances' speakers.

        Args:
            waves: What is said; of the first `spoken` seconds.
            speakers: Who shall say it; a speaker who is not in the training corpus is a stranger.
            draw: Addresses the samples that are drawn.
        """
        hop = self.encoder.grid.hop
        most = max(round(self.config.spoken * SAMPLE_RATE / hop), 1)
        projected = self._project(waves)
        latents = self.context.bottleneck.layers(projected.values)[-1][:, :most]
        lengths = projected.lengths.clamp(max=most)
        latents = latents * valid_steps(lengths, latents.shape[1])[..., None]
        generator = draw.generator("reconstruct", *(each.id for each in speakers))
        samples = self.decoder.generate(latents, self.speakers(speakers, draw), generator)
        valid = valid_steps(lengths * hop, samples.shape[1])
        return Waves(samples * valid, lengths * hop)

    def _project(self, waves: Waves) -> Frames:
        """Run the encoder up to the bottleneck."""
        with torch.no_grad():
            frames = self.encoder.frontend(waves)
        hidden = self.context.convolve(frames)
        return Frames(self.context.project(hidden.values), hidden.lengths)
