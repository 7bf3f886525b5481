"""What a frame sounds like, as probabilities over phones: a phone probe of ours, frozen and carried along.

This is what SLU BERT (arXiv 1909.10924) listens to: a recogniser that was trained with labels and learns no more. The
probe's encoder and linear head are held whole, so that an encoder on top of them can be saved and opened by itself.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames, Grid, Hidden, Waves
from mockingjay.encoders.contexts import ContextConfig, build_context
from mockingjay.encoders.frontends.fbank import Fbank
from mockingjay.encoders.frontends.frontend import Frontend
from mockingjay.encoders.frontends.linear import Linear
from mockingjay.encoders.frontends.log_mel import TERA_80, LogMel
from mockingjay.encoders.frontends.mfcc import MFCC
from mockingjay.encoders.frontends.precomputed import Precomputed
from mockingjay.encoders.frontends.stacked import UNSTACKED, Stacked
from mockingjay.encoders.frontends.waveform import Waveform
from mockingjay.encoders.windows import read

INNER: Mapping[str, type[Frontend]] = {**UNSTACKED, "stacked": Stacked, "waveform": Waveform}
SILENCE = ("sil", "SIL", "sp", "SP", "spn", "SPN", "h#", "pau", "epi", "<eps>")


class Recogniser(Frontend):
    """Phone probabilities at each step of a phone probe's encoder; they sum to one."""

    class Config(Table):
        """The probe is all there is to choose; the rest is filled in from it when pre-training begins."""

        kind: Literal["recogniser"] = "recogniser"
        probe: str = ""
        """Folder of a phone probe with a linear head, as `mockingjay probe --task phone` writes it."""
        phones: tuple[str, ...] = ()
        """The probe's classes (filled in)."""
        silence: tuple[str, ...] = SILENCE
        """Classes that are no speech, where the probe has them."""
        layers: tuple[int, ...] = ()
        """The layers that the probe reads (filled in)."""
        frontend: Annotated[
            LogMel.Config
            | Fbank.Config
            | Linear.Config
            | MFCC.Config
            | Precomputed.Config
            | Stacked.Config
            | Waveform.Config,
            Field(discriminator="kind"),
        ] = TERA_80
        """The probe's frontend (filled in)."""
        context: ContextConfig | None = None
        """The probe's context, where it reads an encoder rather than features (filled in)."""
        window: int | None = Field(default=None, ge=2)
        """Frames its context reads at once, None: all (filled in)."""

    silent: Bool[Tensor, " phones"]
    shares: Float[Tensor, " layers"]  # of each layer in what the head reads
    weight: Float[Tensor, "phones dim"]  # zero until taught
    bias: Float[Tensor, " phones"]

    def __init__(self, config: Config):
        super().__init__()
        if not config.phones:
            raise ConfigError(
                "frontend.recogniser: no phones, expected those of a phone probe; set its probe to the folder that "
                "`mockingjay probe --task phone` wrote"
            )
        self.config = config
        self.inner = INNER[config.frontend.kind](config.frontend)
        self.context = None if config.context is None else build_context(config.context, self.inner.dim)
        stride, width = (1, self.inner.dim) if self.context is None else (self.context.stride, self.context.dim)
        below, phones = self.inner.grid, len(config.phones)
        self.dim, self.reads = phones, self.inner.reads
        self.leaks = self.inner.leaks if self.context is None or self.context.causal else "future"
        self.grid = Grid(below.hop * stride, below.centre + below.hop * (stride - 1) / 2)
        self.receptive = self.inner.receptive + below.hop * (stride - 1)
        self.stride = stride
        self.register_buffer("silent", torch.tensor([phone in config.silence for phone in config.phones]))
        self.register_buffer("shares", torch.zeros(len(config.layers)))
        self.register_buffer("weight", torch.zeros(phones, width))
        self.register_buffer("bias", torch.zeros(phones))
        self._taught = False  # spares reading the buffer twice, which on an accelerator waits for it
        _freeze(self)
        self.train()

    def train(self, mode: bool = True) -> "Recogniser":
        """Enter training mode; what the probe's encoder is made of stays in evaluation mode."""
        super().train(mode)
        for part in self.children():
            part.eval()
        return self

    @torch.no_grad()
    def forward(self, waves: Waves) -> Frames:
        """Compute phone probabilities.

        Raises:
            DataError: An utterance has fewer than `receptive` samples.
            ConfigError: No probe was taken over and no weights were loaded.
        """
        self._taught = self._taught or bool(self.weight.any())
        if not self._taught:
            raise ConfigError(
                "frontend.recogniser: no weights, expected a phone probe's or saved ones; pre-train with it, or open "
                "an encoder that was"
            )
        frames = self.inner(waves)
        hidden = Hidden((frames.values,), frames.lengths)
        if self.context is not None:
            hidden = read(self.context, frames, self.config.window)
        with torch.autocast(frames.values.device.type, enabled=False):
            layers = torch.stack([hidden.layers[layer].float() for layer in self.config.layers])
            mixed = torch.einsum("l,lbtd->btd", self.shares, layers)
            values = nn.functional.linear(mixed, self.weight, self.bias).softmax(-1)
        return Frames(values.masked_fill(~hidden.valid[..., None], 0.0), hidden.lengths)

    def count(self, samples: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        return self.inner.count(samples) // self.stride

    def take(
        self,
        inner: Mapping[str, Any],
        context: Mapping[str, Any] | None,
        shares: Float[Tensor, " layers"],
        weight: Float[Tensor, "phones dim"],
        bias: Float[Tensor, " phones"],
    ) -> None:
        """Take over a probe's weights: the states of its frontend and context, and its head folded into one map."""
        self.inner.load_state_dict(inner)
        if self.context is not None and context is not None:
            self.context.load_state_dict(context)
        self.shares.copy_(shares)
        self.weight.copy_(weight)
        self.bias.copy_(bias)


def _freeze(module: nn.Module) -> None:
    """Turn parameters into buffers of the same names: whoever trains what stands above, these do not learn or decay."""
    for part in module.modules():
        for name, value in list(part._parameters.items()):
            if value is not None:
                del part._parameters[name]
                part.register_buffer(name, value.detach())
