"""A probe asks a representation a question: layers read, a small head on top, a task's answer.

Three ways of using a pre-trained encoder (Mockingjay, section 2.3): feature extraction (`read="last"`), weighted sum
(`read="mix"`), both with the encoder frozen, and fine-tuning (`tune="all"`), encoder and head together.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.learner import Learner
from mockingjay.core.representation import Representation
from mockingjay.core.types import Batch, Loss, Utterance, Waves
from mockingjay.downstream.heads import HeadKind, build_head
from mockingjay.downstream.mix import Mix, Weighing
from mockingjay.downstream.tasks import Targets, Task


class Probe(Learner):
    """Reads a representation for one task.

    Frozen (`tune="head"`) means: its parameters ask for no gradient, it runs without a graph, and it stays in
    evaluation mode whatever `train()` says. The mixing weights lie outside and learn.
    """

    class Config(config.Config):
        """Defaults are the plainest probe: a linear layer on the frozen last layer."""

        read: str = Field(default="last", pattern=r"^(last|mix|layer:\d+)$")
        """The `last` layer, a learnt `mix` of all, or one `layer:<index>`."""
        tune: Literal["head", "all"] = "head"
        """Train the head alone, or the encoder with it."""
        head: HeadKind = "linear"
        """Linear, one or two hidden layers, or a recurrent network for utterances or for sequences."""
        normalise: bool = False
        """Give every layer a parameter-free layer norm before mixing."""
        weights: Weighing = "softmax"
        """Of a mix: learnt as a softmax, learnt `raw` without bounds, or fixed and equal: their `mean`."""
        lowest: int = Field(default=0, ge=0)
        """First layer of a mix; 1 leaves out layer 0, the projected input, as Mockingjay's code does."""

    def __init__(self, representation: Representation, task: Task, config: Config) -> None:
        super().__init__()
        assert task.outputs, "the task has not learnt its classes"
        self.config = config
        self.task = task
        self.representation = representation.requires_grad_(config.tune == "all")
        depth, dim = representation.depth, representation.dim
        self.mix = Mix(config.read, depth, dim, config.normalise, config.weights, config.lowest)
        self.head = build_head(config.head, representation.dim, len(task.outputs), task.resolution)
        self.train()

    def train(self, mode: bool = True) -> "Probe":
        """Enter training mode; a frozen representation stays in evaluation mode."""
        super().train(mode)
        if self.config.tune == "head":
            self.representation.eval()
        return self

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        logits, steps = self.guess(batch.waves)
        return self.task.score(logits, self.targets(batch.utterances, steps, logits), steps)

    def targets(
        self,
        utterances: Sequence[Utterance],
        steps: Int[Tensor, " batch"],
        logits: Float[Tensor, "batch guesses classes"],
    ) -> Targets:
        """Say what logits should name: a row for each of them, or one for each utterance."""
        task, grid = self.task, self.representation.grid
        parts = [task.targets(each, grid, count) for each, count in zip(utterances, steps.tolist())]
        return Targets.pad(parts, logits.shape[1] if task.resolution == "frame" else 1).to(logits.device)

    def guess(self, waves: Waves) -> tuple[Float[Tensor, "batch guesses classes"], Int[Tensor, " batch"]]:
        """Compute logits, per utterance or per step as the task wants, and each utterance's number of steps."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.tune == "all"):
            hidden = self.representation(waves)
            stack, lengths = self.head.thin(self.mix.take(hidden), hidden.lengths)
        return self.answer(stack, lengths), hidden.lengths

    def answer(
        self, stack: Float[Tensor, "layers batch rows dim"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch guesses classes"]:
        """Compute logits from thinned layers."""
        return self.head(self.mix(stack), lengths)

    def weights(self) -> dict[str, Tensor]:
        """Return what makes this probe: its whole state, less a frozen representation's."""
        own = self.config.tune == "all"
        return {
            name: value for name, value in self.state_dict().items() if own or not name.startswith("representation.")
        }
