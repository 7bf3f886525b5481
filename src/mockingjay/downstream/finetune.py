"""Train through the representation with the loop that trains everything: fine-tuning.

FT2 is Mockingjay's fine-tuning of encoder and fresh head together for two epochs (section 2.3). One learning rate moves
both, as published; 4e-4 is the released LARGE configuration's note for fine-tuning. An epoch is every training
utterance once. Where labels are few, the updates are as many as with all of them, in more passes over the few.
"""

import copy
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from pydantic import Field
from torch import Tensor

from mockingjay.audio import AudioError
from mockingjay.core import config
from mockingjay.core.draw import address
from mockingjay.core.errors import DataError
from mockingjay.core.representation import Representation
from mockingjay.core.types import Utterance
from mockingjay.data.batches import BatchPlan, Loader
from mockingjay.data.quarantine import Quarantine, Refusal
from mockingjay.downstream.features import cache, device_of, represent, unlabelled
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.tasks import Task
from mockingjay.downstream.training import Counts, Trained, Training
from mockingjay.train.loop import Run

STATISTICS = 256  # utterances that the standardisation is measured on before training


class LiveTraining(Training):
    """Whole epochs of `Run`; dev is looked at after each, and the best is kept."""

    class Config(config.Config):
        """Two epochs, as FT2."""

        epochs: int = Field(default=2, ge=1)
        """Passes over the training utterances, each of them once a pass; FT2 has 2."""
        learning_rates: tuple[float, ...] = Field(default=(4e-4,), min_length=1)
        """Peak rates to choose from on dev, each at the cost of a whole training; the sources disagree between 4e-4
        and 4e-3. Of one rate alone dev chooses no more than the epoch."""
        seconds: float = Field(default=72.0, gt=0)
        """Seconds of audio per step; the paper's 6 utterances of 12 s."""
        warmup: float = Field(default=0.07, ge=0, le=1)
        """Share of the steps in which the rate rises (code)."""
        workers: int = Field(default=0, ge=0)
        """Threads that read ahead."""

    def __init__(
        self,
        representation: Representation,
        task: Task,
        probe: Probe.Config,
        config: Config,
        sets: Mapping[Literal["train", "dev", "test"], Sequence[Utterance]],
        quarantine: Quarantine | None = None,
    ) -> None:
        self.representation = representation
        self.task = task
        self.probe = probe
        self.config = config
        self.sets = sets
        self.heard = sets["train"]
        self.quarantine = quarantine

    @property
    def kind(self) -> Literal["live"]:
        return "live"

    @property
    def rates(self) -> tuple[float, ...]:
        return self.config.learning_rates

    def train(self, rate: float, seed: int) -> Trained:
        plan = self._plan(self.sets["train"], seed)
        epoch = self._plan(self.heard, seed).steps_per_epoch  # fewer utterances are trained on for as many steps
        steps = self.config.epochs * epoch
        device = device_of(self.representation)
        probe = self._fresh(seed)
        run = Run(probe, Run.Config(steps=steps, learning_rate=rate, warmup=self.config.warmup, seed=seed), device)
        best: tuple[float, dict[str, Tensor]] | None = None
        known = [each.id for each in plan.utterances if self.quarantine and each.id in self.quarantine]
        refuse = self._refuse if self.quarantine is not None else None
        loader = Loader(plan, workers=self.config.workers, refuse=refuse, refused=known)
        with closing(loader.steps()) as source:
            for tick in run.ticks(source):
                if tick.step % epoch == 0:
                    merit = self.task.merit(self.measure(probe, "dev").value)
                    if best is None or merit > best[0]:
                        best = merit, {name: tensor.clone() for name, tensor in probe.weights().items()}
        assert best is not None
        probe.load_state_dict(best[1], strict=False)
        return Trained(probe.eval(), self.task.merit(best[0]), rate, seed)

    def fewer(self, train: Sequence[Utterance]) -> "Training":
        fewer = copy.copy(self)
        fewer.sets = {**self.sets, "train": tuple(train)}
        return fewer

    @torch.no_grad()
    def measure(self, probe: Probe, name: Literal["train", "dev", "test"], task: Task | None = None) -> Counts:
        utterances, task = self.sets[name], task or self.task
        earned, total = np.zeros(len(utterances)), np.zeros(len(utterances))
        probe.eval()
        for indices, hidden in represent(probe.representation, utterances, self.quarantine):
            stack, lengths = probe.head.thin(probe.mix.take(hidden), hidden.lengths)
            logits = probe.answer(stack, lengths)
            targets = probe.targets([utterances[index] for index in indices], hidden.lengths, logits)
            earned[indices] = task.earned(logits, targets, lengths).sum(-1).cpu().numpy()
            total[indices] = task.total(targets).sum(-1).cpu().numpy()
        if not total.any():
            raise unlabelled(len(utterances))
        return Counts(earned, total)

    def steps(self) -> Int[np.ndarray, " utterances"]:
        utterances = self.sets["train"]
        steps = np.zeros(len(utterances), dtype=np.int64)
        for indices, hidden in represent(self.representation, utterances, self.quarantine):
            steps[indices] = hidden.lengths.cpu().numpy()
        return steps

    def _fresh(self, seed: int) -> Probe:
        torch.manual_seed(address("probe", seed) & (2**63 - 1))
        representation = copy.deepcopy(self.representation)
        probe = Probe(representation, self.task, self.probe).to(device_of(representation))
        sample = sorted(self.heard, key=lambda each: address("statistics", each.id))[:STATISTICS]
        probe.mix.fit(cache(probe, sample, quarantine=self.quarantine).stack)
        return probe

    def _plan(self, utterances: Sequence[Utterance], seed: int) -> BatchPlan:
        # Whole utterances: labels are timed from their beginning, so nothing may be cropped.
        longest = max(each.seconds for each in utterances)
        seconds = max(self.config.seconds, longest)
        return BatchPlan(utterances, BatchPlan.Config(seconds=seconds, crop=longest, minimum=0.0, seed=seed))

    def _refuse(self, utterance: Utterance, error: DataError) -> None:
        assert isinstance(error, AudioError) and self.quarantine is not None
        self.quarantine.add(Refusal.of(error, utterance.id))
