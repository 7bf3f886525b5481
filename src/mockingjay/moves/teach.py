"""Teach: a teacher that is the student's own moving average, and what it says of steps that the student cannot see.

Tarvainen and Valpola 2017 (arXiv 1703.01780); of speech Baevski et al. 2022 (data2vec, arXiv 2202.03555, section 3).
The teacher has no parameters: its weights are buffers, which no optimiser finds, checkpoints hold and gradients never
reach. An encoder that is saved knows nothing of it.
"""

import copy

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from mockingjay.core.config import Config as Table
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames
from mockingjay.encoders.attention import Block
from mockingjay.encoders.contexts.context import Context

_EPS = 1e-5


class Pace(Table):
    """How slowly a teacher follows; defaults are data2vec's for speech (section 4.2)."""

    first: float = Field(default=0.999, ge=0, le=1)
    """Share of the teacher that stays after the first step (τ₀)."""
    last: float = Field(default=0.9999, ge=0, le=1)
    """Share that stays from the end of the rise on (τₑ)."""
    rise: float = Field(default=0.075, ge=0, le=1)
    """Share of the training in which it rises linearly: 30 000 of 400 000 steps."""

    def at(self, progress: float) -> float:
        """The share of the teacher that stays at a point of the training, 0–1."""
        risen = min(1.0, progress / self.rise) if self.rise else 1.0
        return self.first + (self.last - self.first) * risen


class Teacher(nn.Module):
    """A context's moving average, and what its Transformer blocks say.

    Args:
        student: The context it follows; it begins as its copy.
        top: How many blocks' answers are averaged, from the top.

    Raises:
        ConfigError: The context has not so many blocks, or not one step per frame.
    """

    def __init__(self, student: Context, top: int) -> None:
        super().__init__()
        self.top = top
        self.context = copy.deepcopy(student)
        self.said: list[Tensor] = []  # by the blocks in the pass under way
        for part in [*self.context.modules()]:
            for name, weight in [*part.named_parameters(recurse=False)]:
                delattr(part, name)
                part.register_buffer(name, weight.detach())
        blocks = [part for part in self.context.modules() if isinstance(part, Block)]
        passes = sum(block.attention.passes for block in blocks)
        if passes < top or student.stride != 1:
            raise ConfigError(
                f"objective.encoder.context: {passes} Transformer blocks and {student.stride} frames a step, expected "
                f"at least top = {top} of them and one; set its kind to 'transformer' or top to fewer"
            )
        for block in blocks:
            block.narrow.register_forward_hook(self._hear)

    @torch.no_grad()
    def forward(self, frames: Frames) -> Float[Tensor, "batch time dim"]:
        """Average what the top blocks' feed-forward networks say, before it is added to what they read.

        Each is normalised over the utterance, channel by channel (section 3.3), so that none drowns the others out and
        a constant is no answer.
        """
        self.context.eval()  # whoever trains the student sets all modules to training
        self.said.clear()
        self.context(frames)
        valid = frames.valid[:, :, None]
        total = torch.stack([_standardised(each.float(), valid) for each in self.said[-self.top :]]).mean(0)
        self.said.clear()
        return total

    @torch.no_grad()
    def follow(self, student: Context, stays: float) -> None:
        """Move towards the student.

        Args:
            student: What it is a copy of.
            stays: Share of the teacher that stays, 0–1; 0 makes it the student's copy.
        """
        current = student.state_dict()
        for name, value in self.context.state_dict().items():
            if value.is_floating_point():
                value.lerp_(current[name], 1 - stays)
            else:
                value.copy_(current[name])

    def _hear(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.said.append(output)


def _standardised(
    values: Float[Tensor, "batch time dim"], valid: Bool[Tensor, "batch time 1"]
) -> Float[Tensor, "batch time dim"]:
    count = valid.sum(1, keepdim=True).clamp(min=1)
    values = (values - (values * valid).sum(1, keepdim=True) / count) * valid
    variance = values.square().sum(1, keepdim=True) / count
    return values * (variance + _EPS).rsqrt()
