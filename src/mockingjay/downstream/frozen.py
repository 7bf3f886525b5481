"""Train heads on the hidden states of a frozen representation.

Where these fit in memory the encoder hears every utterance once, whatever the rates and seeds. Where they do not, all
else stays as it is, learning rates, updates, rows of an update, schedule and stopping; only the states are computed
anew, a part at a time (see `parts`). So how wide a representation is decides how long its head takes to train, and not
how it is trained.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from pydantic import Field
from torch import Tensor

from mockingjay.core import config
from mockingjay.core.draw import address
from mockingjay.core.representation import Representation
from mockingjay.core.types import Utterance
from mockingjay.data.quarantine import Quarantine
from mockingjay.downstream.features import bytes_needed, device_of
from mockingjay.downstream.parts import Demand, Parts, States, heard, hold
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.tasks import Task
from mockingjay.downstream.training import Counts, Trained, Training

Part = Literal["train", "dev", "test"]
STATISTICS = 16_384  # rows to measure the standardisation on; a head absorbs any affine map, so a sample will do


class FrozenTraining(Training):
    """AdamW with a cosine schedule on shuffled rows, stopped where dev was best."""

    class Config(config.Config):
        """One budget of updates for every representation and every amount of labels (ours)."""

        learning_rates: tuple[float, ...] = Field(default=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1), min_length=1)
        """Tried with the first seed; dev decides."""
        mix_rate: float = Field(default=10.0, gt=0)
        """Learning rate of the mixing weights over that of the head; logits of a softmax have farther to go. Raw
        weights learn at the head's own rate, as in Mockingjay's released code."""
        updates: int = Field(default=500, ge=1)
        """Most optimiser steps of a training."""
        rows: int = Field(default=2048, ge=1)
        """Frames per update where every frame is labelled."""
        utterances: int = Field(default=128, ge=1)
        """Utterances per update where each is one pooled vector."""
        sequences: int = Field(default=32, ge=1)
        """Utterances per update where a head reads them step by step."""
        evaluations: int = Field(default=10, ge=1)
        """How often dev is looked at, evenly over the updates."""
        patience: int = Field(default=4, ge=1)
        """Looks without a better dev value before a training stops."""
        weight_decay: float = Field(default=0.01, ge=0)
        """Decoupled, of the head."""

    def __init__(
        self,
        representation: Representation,
        task: Task,
        probe: Probe.Config,
        config: Config,
        sets: Mapping[Part, Sequence[Utterance]],
        quarantine: Quarantine | None = None,
        memory: float = math.inf,  # bytes
    ) -> None:
        self.config = config
        self.fresh = lambda: Probe(representation, task, probe).to(device_of(representation))
        self.task = task
        self.places = {each.id: index for index, each in enumerate(sets["train"])}
        self.device = device_of(representation)
        self.counts = {name: len(chosen) for name, chosen in sets.items()}
        pattern = self.fresh()
        self.size = _size(pattern, config)
        self.sets: dict[Part, States] = {}
        for name, room in _rooms(pattern, sets, memory).items():
            demand = Demand(room, *((self.size, config.updates * self.size, 0) if name == "train" else ()))
            self.sets[name] = hold(pattern, sets[name], demand, quarantine)
        stack = next(self.sets["train"].once()).stack
        pattern.mix.fit(stack[:, :: max(1, stack.shape[1] // STATISTICS)])
        self.scale = pattern.mix.state_dict()

    @property
    def kind(self) -> Literal["frozen", "streamed"]:
        return "streamed" if any(isinstance(each, Parts) for each in self.sets.values()) else "frozen"

    @property
    def rates(self) -> tuple[float, ...]:
        return self.config.learning_rates

    def train(self, rate: float, seed: int) -> Trained:
        config = self.config
        torch.manual_seed(address("probe", seed) & (2**63 - 1))
        probe = self.fresh()
        probe.mix.load_state_dict(self.scale)
        farther = config.mix_rate if probe.config.weights == "softmax" else 1.0
        groups = [
            {"params": list(probe.head.parameters()), "rate": rate},
            {"params": list(probe.mix.parameters()), "rate": rate * farther, "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, lr=rate, weight_decay=config.weight_decay, fused=True)
        best, since = self._look(probe), 0
        for update, piece in zip(range(1, config.updates + 1), self.sets["train"].forever(self.size, seed)):
            for group in optimiser.param_groups:
                group["lr"] = group["rate"] * 0.5 * (1 + math.cos(math.pi * (update - 1) / config.updates))
            optimiser.zero_grad()
            loss = self.task.score(probe.answer(piece.stack, piece.lengths), piece.targets, piece.lengths)
            (loss.sum / loss.weight.clamp(min=1)).backward()  # of sequences a piece may hold none that can be learnt
            optimiser.step()
            if update * config.evaluations % config.updates < config.evaluations:
                seen = self._look(probe)
                best, since = (seen, 0) if seen[0] > best[0] else (best, since + 1)
                if since == config.patience:
                    break
        score, weights = best
        probe.load_state_dict(weights, strict=False)
        return Trained(probe.eval(), self.task.merit(score[0]), rate, seed)

    def fewer(self, train: Sequence[Utterance]) -> "Training":
        fewer = copy.copy(self)
        fewer.sets = {**self.sets, "train": self.sets["train"].only([self.places[each.id] for each in train])}
        return fewer

    def measure(self, probe: Probe, name: Part, task: Task | None = None) -> Counts:
        return self._count(probe, name, task or self.task)[0]

    def steps(self) -> Int[np.ndarray, " utterances"]:
        steps = np.zeros(self.counts["train"], dtype=np.int64)
        for part in self.sets["train"].once():
            assert part.sequential, "only sequences are read step by step"
            steps[part.owners.cpu().numpy()] = part.offsets.diff().cpu().numpy()
        return steps

    def _look(self, probe: Probe) -> tuple[tuple[float, float], dict[str, Tensor]]:
        """The metric's merit and the negated loss on dev, with a copy of the weights; the loss decides among equals."""
        counts, loss = self._count(probe, "dev", self.task)
        probe.train()
        return (self.task.merit(counts.value), -loss), {name: value.clone() for name, value in probe.weights().items()}

    @torch.no_grad()
    def _count(self, probe: Probe, name: Part, task: Task) -> tuple[Counts, float]:
        """What each utterance earned of what there was, and the mean loss."""
        probe.eval()
        earned = torch.zeros(self.counts[name], dtype=torch.float64, device=self.device)
        total = torch.zeros_like(earned)
        loss, weight = torch.zeros(2, dtype=torch.float64, device=self.device)
        for piece in (piece for part in self.sets[name].once() for piece in part.pieces(8 * self.size)):
            logits = probe.answer(piece.stack, piece.lengths)
            owners = piece.owners.flatten()
            earned.index_add_(0, owners, task.earned(logits, piece.targets, piece.lengths).flatten().double())
            total.index_add_(0, owners, task.total(piece.targets).flatten().double())
            scored = task.score(logits, piece.targets, piece.lengths)
            loss, weight = loss + scored.sum, weight + scored.weight
        return Counts(earned.cpu().numpy(), total.cpu().numpy()), float(loss / weight.clamp(min=1))


def passes(probe: Probe, train: Sequence[Utterance], config: FrozenTraining.Config) -> float:
    """Tell how often one training hears its utterances where their states do not fit in memory."""
    size = _size(probe, config)
    return heard(probe, train, config.updates * size)


def _size(probe: Probe, config: FrozenTraining.Config) -> int:
    """Count the guesses of an update."""
    pooled = config.sequences if probe.head.sequential else config.utterances
    return config.rows if probe.task.resolution == "frame" else pooled


def _rooms(probe: Probe, sets: Mapping[Part, Sequence[Utterance]], memory: float) -> dict[Part, float]:
    """Share memory out, in bytes: to each set all it needs, or enough for a part of it.

    Half is for sets that are kept whole, dev before all, which is looked at most often. A part takes an eighth: one of
    the training set is still read while the next is computed, and one of another set is looked at in between.
    """
    needed = {name: float(bytes_needed(probe, chosen)) for name, chosen in sets.items()}
    rooms: dict[Part, float] = dict.fromkeys(sets, memory / 8)
    left = memory if sum(needed.values()) <= memory else memory / 2
    order: tuple[Part, ...] = ("dev", "test", "train")
    for name in order:
        if needed[name] <= left:
            rooms[name], left = needed[name], left - needed[name]
    return rooms
