"""The loop is a generator: one optimiser step per tick, and the caller decides about everything between two ticks.

It trains objectives, probes and fine-tuning alike, for all it knows is `learner(batch, progress, draw) → Loss`. The
summed loss is divided by the summed weight over all ranks and accumulation steps, so 2 ranks × 4 utterances are 1 rank
× 8, whatever their lengths. Nothing it needs outlives a step but weights, moments and the step's number: that is what a
checkpoint holds.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mockingjay.core.config import Config as Table
from mockingjay.core.draw import Draw, address
from mockingjay.core.errors import CheckpointError, ConfigError, TrainingError
from mockingjay.core.learner import Learner
from mockingjay.core.types import SAMPLE_RATE, Batch, Utterance
from mockingjay.encoders.attention import Block
from mockingjay.encoders.norms import follows_batches
from mockingjay.train.checkpoint import Checkpoint
from mockingjay.train.distributed import Group
from mockingjay.train.optimiser import Optimiser
from mockingjay.train.precision import Precision, autocast
from mockingjay.train.schedule import SCHEDULES, Schedule

_NAMED = 3  # utterances in an error's sentence
_FIXED = 4  # totals before the learner's own parts: loss sum, weight, samples, cells of the padded batch


@dataclass(frozen=True, slots=True)
class Tick:
    """What one optimiser step did. Its figures are read from the device only when asked for."""

    step: int  # steps done, this one included
    lr: float
    waited: float  # seconds for data; on CUDA the device may have been at the step before meanwhile
    totals: Float[Tensor, " totals"]  # over all ranks and accumulation steps
    norm: Float[Tensor, ""]
    names: tuple[str, ...]
    timed: Callable[[], float]
    settle: Callable[[], None]  # raises TrainingError where the step was not finite

    @property
    def seconds(self) -> float:
        """From asking for the data, on CUDA from there or the step before's end, to this step's end."""
        return self.timed()

    @property
    def loss(self) -> float:
        """Loss per scored cell."""
        return self._mean(0)

    @property
    def parts(self) -> dict[str, float]:
        """The learner's named parts per scored cell."""
        return {name: self._mean(_FIXED + index) for index, name in enumerate(self.names)}

    @property
    def grad_norm(self) -> float:
        """Norm of the global gradient before clipping."""
        return self.norm.item()

    @property
    def audio_seconds(self) -> float:
        """Seconds of audio learned from, over all ranks."""
        return self.totals[2].item() / SAMPLE_RATE

    @property
    def padding(self) -> float:
        """Share of the batches that was padding, 0–1."""
        return 1 - (self.totals[2] / self.totals[3]).item()

    def row(self) -> dict[str, int | float]:
        """Return a line of metrics.jsonl.

        Raises:
            TrainingError: The step was not finite, which on CUDA nobody has been told yet.
        """
        self.settle()
        figures = {"step": self.step, "seconds": self.seconds, "waited": self.waited, "loss": self.loss, "lr": self.lr}
        return figures | {
            "grad_norm": self.grad_norm,
            "audio_seconds": self.audio_seconds,
            "hours_per_second": self.audio_seconds / self.seconds / 3600,
            "padding": self.padding,
            **self.parts,
        }

    def _mean(self, index: int) -> float:
        values = self.totals.tolist()
        return values[index] / values[1] if values[1] else 0.0


class Run:
    """A learner on its way from step 0 to the last.

    Attributes:
        learner: What is trained, on the run's device.
        step: Steps done.
        optimiser: Moments and gradients.
    """

    class Config(Table):
        """Defaults are Mockingjay's: Adam, warm-up over 7 % of 500 000 steps to 4e-4, then down to 0 (section 3.1)."""

        steps: int = Field(default=500_000, ge=1)
        """Optimiser steps in all; the schedule ends there."""
        learning_rate: float = Field(default=4e-4, gt=0, le=10)
        """Peak learning rate."""
        warmup: float = Field(default=0.07, ge=0, le=1)
        """Share of the steps in which the learning rate rises."""
        schedule: Schedule = "linear"
        """After warm-up: fall linearly to 0, stay constant, or fall with the inverse square root of the step or
        along half a cosine."""
        clip: float = Field(default=1.0, gt=0)
        """Largest global gradient norm (code)."""
        accumulate: int = Field(default=1, ge=1)
        """Micro-batches per step and rank; more need less memory and change nothing else."""
        optimiser: Optimiser.Config = Optimiser.Config()
        """AdamW."""
        precision: Precision = "auto"
        """float32, bfloat16 (matrix products only), or auto: bfloat16 on CUDA, float32 on a CPU."""
        compile: Literal["auto", "off", "on"] = "auto"
        """Compile each of the network's Transformer blocks with torch.compile; auto: where that is known to gain, which
        is on no device yet."""
        seed: int = Field(default=0, ge=0, lt=2**63)
        """Addresses masks and dropout."""

    def __init__(
        self, learner: Learner, config: Config, device: torch.device | str = "cpu", group: Group | None = None
    ) -> None:
        self.device = torch.device(device)
        self.learner = learner.to(self.device)
        self.config = config
        self.group = group or Group(device=self.device)
        self.optimiser = Optimiser(learner, config.optimiser)
        self.step = 0
        self._autocast = autocast(config.precision, self.device)
        norms = filter(follows_batches, learner.modules())
        self._followed = [value for norm in norms for value in norm.buffers()]  # all that a forward pass changes
        self._watch = _Watch(self.device, self.group.ranks)
        if config.compile == "on":
            _compile(learner)

    def ticks(self, batches: Iterable[Sequence[Batch]]) -> Iterator[Tick]:
        """Take optimiser steps until the last one or until the data end.

        Args:
            batches: For each step from `self.step` on, this rank's micro-batches.

        Raises:
            TrainingError: A loss or gradient is not finite. Weights and buffers are those before the step; the weights
                alone on CUDA, where it is told a step later, or before that by the tick's row.
        """
        source = iter(batches)
        while self.step < self.config.steps:
            stopwatch = _Stopwatch(self.device)
            micro_batches = next(source, None)
            if micro_batches is None:
                break
            yield self._take(micro_batches, stopwatch, stopwatch.waited())
        self._watch.settle()

    def checkpoint(self, **notes: object) -> Checkpoint:
        """Gather what a resumed run needs; `notes` are the caller's own, of JSON's types.

        Raises:
            TrainingError: The last step turned out not to be finite.
        """
        self._watch.settle()
        return Checkpoint(self.step, dict(self.learner.state_dict()), self.optimiser.tensors(), notes)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint.

        Raises:
            CheckpointError: It is of another model.
        """
        own = {name: value.shape for name, value in self.learner.state_dict().items()}
        saved = {name: value.shape for name, value in checkpoint.model.items()}
        if own != saved:
            name = next(name for name in {**own, **saved} if own.get(name) != saved.get(name))
            raise CheckpointError(
                f"model.safetensors: {name} is {_shape(saved.get(name))}, expected {_shape(own.get(name))}; "
                "use the config in the run's folder"
            )
        self.learner.load_state_dict(checkpoint.model)
        self.optimiser.restore(checkpoint.optimiser)
        self.step = checkpoint.step

    def _take(self, micro_batches: Sequence[Batch], stopwatch: "_Stopwatch", waited: float) -> Tick:
        config = self.config
        progress = self.step / config.steps
        torch.manual_seed(address(config.seed, self.step, self.group.rank) & (2**63 - 1))  # for dropout
        self.learner.train()
        self.optimiser.clear()
        # These statistics have seen a step that is not finite before anybody knows.
        before = [value.clone() for value in self._followed] if self.device.type == "cpu" else []
        totals, names = self._accumulate(micro_batches, progress)
        own = totals[0].clone()
        self.group.sum(totals)
        self.group.sum(self.optimiser.gradients)
        # A step in which nothing was scored has sum 0 and gradient 0; it is divided by 1.
        weight = torch.where(totals[1] > 0, totals[1], torch.ones_like(totals[1]))
        norm = torch.linalg.vector_norm(self.optimiser.gradients) / weight
        self._watch.settle()
        try:
            utterances = [each for batch in micro_batches for each in batch.utterances]
            skip = self._watch.look(self.step, totals[0], norm, own, utterances)
        except TrainingError:
            for value, old in zip(self._followed, before):
                value.copy_(old)
            raise
        self.optimiser.gradients *= (config.clip / (norm + 1e-6)).clamp(max=1) / weight
        lr = config.learning_rate * SCHEDULES[config.schedule](self.step, config.steps, config.warmup)
        self.optimiser.step(lr, skip)
        self.learner.after_step(progress)
        self.step += 1
        stopwatch.stop()
        return Tick(self.step, lr, waited, totals, norm, names, stopwatch.read, self._watch.settle)

    def _accumulate(
        self, micro_batches: Sequence[Batch], progress: float
    ) -> tuple[Float[Tensor, " totals"], tuple[str, ...]]:
        """Add up gradients in place, and the loss, its weight and its parts."""
        totals, names = [], ()
        for batch in micro_batches:
            draw = Draw(self.config.seed, batch.epoch)
            with self._autocast:
                loss = self.learner(batch.to(self.device), progress, draw)
            loss.sum.backward()
            names = tuple(sorted(loss.parts))
            lengths = batch.waves.lengths
            audio = torch.stack([lengths.sum(), lengths.new_tensor(batch.waves.samples.numel())])
            figures = [loss.sum, loss.weight, *(loss.parts[name] for name in names)]
            figures = torch.stack([each.detach().float() for each in figures])
            audio = audio.to(self.device, torch.float32, non_blocking=True)
            totals.append(torch.cat([figures[:2], audio, figures[2:]]))
        return torch.stack(totals).sum(0), names


def _compile(learner: Learner) -> None:
    """Compile the blocks and not the context around them, whose `forward` half of the objectives never call.

    Raises:
        ConfigError: There is none.
    """
    blocks = [module for module in learner.modules() if isinstance(module, Block)]
    if not blocks:
        raise ConfigError(
            "train.compile: 'on' compiles Transformer blocks, expected a network that has some; set it to off"
        )
    for block in blocks:
        block.compile(dynamic=True)  # in place, so that parameters keep their names


class _Stopwatch:
    """Times one step, from when it is made.

    On CUDA by two events in the device's queue: the host's clock would tell how long it took to say what is to be done.
    The first passes where the work before it is done, so that of two steps in the queue each has its own time.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._began = self._ended = self._mark()

    def waited(self) -> float:
        """Seconds since, by the host's clock."""
        return time.perf_counter() - self._began[0]

    def stop(self) -> None:
        """End the step."""
        self._ended = self._mark()

    def read(self) -> float:
        """Seconds of the step; waits for its end."""
        (began, first), (ended, last) = self._began, self._ended
        if first is None:
            return ended - began
        last.synchronize()
        return first.elapsed_time(last) / 1000

    def _mark(self) -> tuple[float, Any]:
        event = self._stream and self._stream.record_event(torch.cuda.Event(enable_timing=True))
        return time.perf_counter(), event


class _Watch:
    """Sees that every step is finite.

    On a CPU at once. On CUDA the step is made harmless on the device and reported one step later, so that the host
    never waits.
    """

    def __init__(self, device: torch.device, ranks: int) -> None:
        self._cuda, self._ranks = device.type == "cuda", ranks
        self._seen: tuple[int, Tensor, Sequence[Utterance]] | None = None
        self._copied = torch.cuda.Event() if self._cuda else None

    def look(
        self,
        step: int,
        loss: Float[Tensor, ""],
        norm: Float[Tensor, ""],
        own: Float[Tensor, ""],
        utterances: Sequence[Utterance],
    ) -> Float[Tensor, ""] | None:
        """Look at a step before it is taken; what is returned tells the optimiser on CUDA to skip it.

        Args:
            step: Steps done.
            loss: Summed over all ranks, as are the gradients.
            norm: Of the gradients.
            own: The part of the loss that this rank's utterances have.
            utterances: This rank's.
        """
        figures = torch.stack([loss, norm, own])
        self._seen = (step, figures.to("cpu", non_blocking=True), utterances)
        if self._copied is None:
            self.settle()
            return None
        self._copied.record()
        return (~torch.isfinite(figures).all()).float()

    def settle(self) -> None:
        """Report on the step looked at last."""
        if self._seen is None:
            return
        (step, figures, utterances), self._seen = self._seen, None
        if self._copied is not None:
            self._copied.synchronize()
        if not torch.isfinite(figures).all():
            loss, norm, own = figures.tolist()
            raise TrainingError(
                f"step {step + 1}: gradient norm is {norm} and the summed loss {loss} "
                f"(utterances {self._whose(loss, own, utterances)}), expected finite numbers; "
                f"last whole step {step}: look at these recordings or lower the learning rate"
            )

    def _whose(self, loss: float, own: float, utterances: Sequence[Utterance]) -> str:
        """Name the utterances a step may have failed by: not this rank's where the loss of another rank's did it."""
        if math.isfinite(own) and not math.isfinite(loss):
            return "of another rank, which names them"
        named = ", ".join(each.id for each in utterances[:_NAMED])
        more = f" and {len(utterances) - _NAMED} more" if len(utterances) > _NAMED else ""
        perhaps = " or another rank's" if math.isfinite(own) and self._ranks > 1 else ""
        return named + more + perhaps


def _shape(shape: Sequence[int] | None) -> str:
    return "absent" if shape is None else str(tuple(shape))
