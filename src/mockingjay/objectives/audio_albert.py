"""Audio ALBERT: Mockingjay with one block of weights for all layers.

P.-H. Chi, P.-H. Chung, T.-H. Wu, C.-C. Hsieh, Y.-H. Chen, S.-W. Li, H.-y. Lee, "Audio ALBERT: A Lite BERT for
Self-supervised Learning of Audio Representation", SLT 2021, arXiv 2005.08575.

Single steps of three stacked frames are hidden from a Transformer that passes through the same block again and again,
and a small head rebuilds their linear spectra. Sharing leaves 9 % of the parameters of a twelve-layer Mockingjay, for
any number of passes, and none of the work. Its intermediate layers know more of phones and speakers than its last.

Differs from the paper: nothing we know of; of several published recipes the default is the first authors' code's.
Differs from that code: hidden steps never touch, but lie anywhere rather than every third step from a random offset.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import model_validator

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.types import Batch, Loss
from mockingjay.encoders.contexts.shared import SharedTransformer
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends import FrontendConfig, Stacked, build_frontend
from mockingjay.encoders.frontends.linear import LINEAR_1025
from mockingjay.moves import rebuild
from mockingjay.moves.hide import Spans, hide
from mockingjay.objectives.objective import Objective, Picture


class AudioALBERT(Objective):
    """Hide single steps and rebuild them with shared layers."""

    class Config(config.Config):
        """Defaults are six passes over three stacked frames (code)."""

        kind: Literal["audio-albert"] = "audio-albert"
        encoder: Encoder.Config = Encoder.Config(frontend=Stacked.Config(), context=SharedTransformer.Config())
        """What is kept after training."""
        target: FrontendConfig = Stacked.Config(inner=LINEAR_1025)
        """What is rebuilt, perhaps the input itself; its steps must lie on the input's."""
        hide: Spans = Spans(width=1, placement="disjoint")
        """Which spans are hidden, their widths in stacked steps."""

        @model_validator(mode="after")
        def _aligned(self) -> "AudioALBERT.Config":
            rebuild.check_same_steps(self.encoder.frontend, self.target)
            return self

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.target = None if config.target == config.encoder.frontend else build_frontend(config.target)
        self.encoder = Encoder(config.encoder)
        rebuild.require_step_per_frame(self.encoder.context, config.encoder.context.kind)
        rebuilt = self.encoder.frontend if self.target is None else self.target
        self.head = rebuild.prediction_network(self.encoder.dim, rebuilt.dim)

    def prepare(self, batches: Iterable[Batch]) -> None:
        rebuild.fit(batches, self.encoder.frontend, self.target)

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        altered = self._alter(batch, draw)
        scored = rebuild.score(self.head, self.encoder.context(altered.read).last, altered, "l1")
        return Loss(*scored, rebuild.realised(altered, scored[1]) if self.training else rebuild.trivial(altered, "l1"))

    @classmethod
    def measure(cls, config: Config) -> str:
        return rebuild.MEASURES["l1"]

    @torch.no_grad()
    def picture(self, batch: Batch, draw: Draw) -> Picture:
        return Picture(*rebuild.panels(self.encoder, self.head, self._alter(batch, draw)))

    def _alter(self, batch: Batch, draw: Draw) -> rebuild.Altered:
        """Hide steps between the storeys; in evaluation always by zeros, so that nothing scored is visible."""
        frames, true = rebuild.features(batch.waves, self.encoder.frontend, self.target)
        spans = self.config.hide if self.training else self.config.hide.zeroed
        read, steps = hide(frames, spans, draw, tuple(utterance.id for utterance in batch.utterances))
        return rebuild.Altered(read, true, steps, factor=rebuild.stacking(self.config.encoder.frontend))
