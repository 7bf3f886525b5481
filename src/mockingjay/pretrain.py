"""Pre-training: settings, a corpus and a folder in; a trained encoder and the record of how it came about out.

The same call again continues where the last whole checkpoint stands. A time budget is measured once, turned into a
number of steps and written into the run's config, so that from then on the run is a function of its config again.
"""

import itertools
import json
import math
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from mockingjay.audio import AudioError
from mockingjay.audio.write import write
from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError, DataError, TrainingError
from mockingjay.core.files import writing
from mockingjay.core.types import SAMPLE_RATE, Batch, Utterance, Waves
from mockingjay.data.batches import BatchPlan, Loader, Once
from mockingjay.data.manifest import Corpus, amount, write_manifest
from mockingjay.data.quarantine import Quarantine, Refusal
from mockingjay.data.scan import Health, check_reads, scan
from mockingjay.data.splits import hold_out
from mockingjay.downstream.recognise import teach
from mockingjay.encoders.encoder import Encoder, random_encoder
from mockingjay.encoders.frontends import Recogniser
from mockingjay.objectives import build_objective
from mockingjay.objectives.objective import Objective
from mockingjay.open import encoder_folder, open_representation
from mockingjay.rounds import recognise, resolved, rounds
from mockingjay.settings import Settings
from mockingjay.train import checkpoint, ledger
from mockingjay.train.collapse import Monitor
from mockingjay.train.distributed import Group, alone, joined, leads
from mockingjay.train.estimate import Estimate, estimate
from mockingjay.train.loop import Run, Tick
from mockingjay.train.pace import Pace, clock
from mockingjay.train.precision import autocast
from mockingjay.train.signals import Stop, listening
from mockingjay.train.validation import validate

OVERHEAD = 0.1  # share of a budget kept for validation, checkpoints and a machine that slows down
TRIAL = 4  # steps that are timed before a run, at least; the first is not counted
PATIENCE = 0.02  # share of a budget spent on timing, because a shared machine's speed is not one number


@dataclass(frozen=True, slots=True)
class Pretrained:
    """What a run came to; `stopped` is a signal's exit code where it was asked to leave early, else 0."""

    folder: Path
    encoder: Encoder
    settings: Settings
    steps: int
    stopped: int = 0
    picture: dict[str, Any] | None = None


def examine(corpus: Corpus, chosen: Settings, out: Path, say: Callable[[str], None]) -> Health:
    """Look at a corpus as `examined` does, whose errors it raises, and let the folder go."""
    with examined(corpus, chosen, out, say) as health:
        return health


@contextmanager
def examined(corpus: Corpus, chosen: Settings, out: Path, say: Callable[[str], None]) -> Iterator[Health]:
    """Decode everything once; what is refused is named in quarantine.jsonl and must stay within its budget.

    The folder is held for as long as this is open.

    Raises:
        ConfigError: The folder holds a run with other settings.
        DataError: Nothing can be used, or too little.
        MachineError: The folder cannot be written, or another process is writing there.
    """
    chosen = resolved(chosen)
    recognise(chosen, out)
    encoder = random_encoder(chosen.objective.encoder, 0)
    least, crop = encoder.receptive / SAMPLE_RATE, chosen.batches.crop
    if crop < least:
        raise ConfigError(f"batches.crop: {crop:g} s is all that is read, expected {least:g} or more; raise it")
    # Under torchrun every rank looks for itself and one of them writes. There the folder is locked only where the ranks
    # have met, for one that failed before could not tell the others.
    with writing(out, 0):
        out.mkdir(parents=True, exist_ok=True)
    with ledger.locked(out) if alone() else nullcontext():
        yield _scanned(corpus, chosen, out, say, least, encoder.reads)


def _scanned(
    corpus: Corpus, chosen: Settings, out: Path, say: Callable[[str], None], least: float, reads: int | None
) -> Health:
    wanted = chosen.batches.minimum
    health = scan(corpus, least, cache=out / "scan.jsonl", wanted_seconds=wanted, keep=leads())
    # A run that has begun keeps its list, for what it refused while training must stay refused.
    path = out / "quarantine.jsonl" if leads() and not ledger.begun(out) else None
    quarantine = Quarantine(path, chosen.upkeep.refused, anew=True)
    for refusal in health.corpus.refused:
        say(refusal.text)
        # Audio whose labels cannot be read is audio all the same, and what a protocol leaves out is not spoilt.
        if refusal.kind not in ("alignment", "protocol"):
            quarantine.add(refusal)
    quarantine.check(len(health.corpus.utterances) + len(health.left_out) + len(quarantine))
    if health.left_out:
        say(f"{amount(health.left_out)}, left out as shorter than batches.minimum ({wanted:g} s)")
    if not health.corpus.utterances:
        mend = "lower batches.minimum" if health.left_out else f"see the refusals in {out}/quarantine.jsonl"
        raise DataError(f"{corpus.name}: no utterance can be used, expected speech; {mend}")
    check_reads((each.path for each in health.corpus.utterances), reads)
    speakers = len(health.corpus.speakers) or "unknown"
    say(f"{corpus.name}: {amount(health.corpus.utterances)}, {speakers} speakers")
    return health


def pretrain(
    chosen: Settings,
    utterances: Sequence[Utterance],
    out: Path,
    *,
    budget: float | None = None,
    device: str = "auto",
    start: Encoder | Objective | None = None,
    say: Callable[[str], None] = lambda line: None,
    hold: Callable[[Path], AbstractContextManager[Any]] = ledger.locked,
) -> Pretrained:
    """Train an objective, or continue the run in `out`, in as many rounds as the settings say.

    Args:
        chosen: Resolved settings.
        utterances: What to learn from, scanned; a part is held out.
        out: The run's folder.
        budget: Seconds the training may take, shared equally among rounds; sets `train.steps` where each begins.
        device: "auto", "cpu", "cuda" or "cuda:<index>".
        start: What the first round goes on from instead of random weights: an encoder, or an objective with its heads.
        say: Told a line at a time.
        hold: Holds the folder meanwhile; `nullcontext` where the caller does, as within `examined`.

    Raises:
        ConfigError: The folder holds another run, or the settings contradict each other.
        DataError: The corpus cannot feed the plan.
        CheckpointError: No checkpoint of the run is whole.
        MachineError: No room, no permission, or another process is writing here.
        TrainingError: A step was not finite, or the representation has collapsed.
    """
    listed = rounds(resolved(chosen), out)
    with ExitStack() as stack:
        group = stack.enter_context(joined(device))
        if group.writes:
            stack.enter_context(hold(out))
        stop = stack.enter_context(listening())
        for number, (each, folder) in enumerate(listed, 1):
            if group.any(folder != out and encoder_folder(folder) is not None):  # and all wait for who writes
                recognise(each, folder, utterances)
                continue
            if len(listed) > 1 and group.writes:
                say(f"round {number} of {len(listed)}, in {folder}")
            session = _Session(each, utterances, folder, group, stop, say)
            trained = session.pretrain(budget and budget / len(listed), start if number == 1 else None)
            if trained.stopped:
                break
    return trained


class _Session:
    """One process's part in a run: the pieces that steps, validation and checkpoints share."""

    def __init__(
        self,
        chosen: Settings,
        utterances: Sequence[Utterance],
        out: Path,
        group: Group,
        stop: Stop,
        say: Callable[[str], None],
    ) -> None:
        self.settings, self.out, self.group, self.stop = chosen, out, group, stop
        self.say = say if group.writes else lambda line: None
        self.parts = hold_out(utterances, chosen.upkeep.held_out, chosen.batches.seed)
        self.plan = BatchPlan(self.parts["train"], chosen.batches, group.ranks * chosen.train.accumulate)
        self.held, self.counted = self._held_batches()
        self.monitor = Monitor(self.held, group)
        self.quarantine = Quarantine(out / "quarantine.jsonl", chosen.upkeep.refused)  # every rank adds to it
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(chosen.train.seed)
            self.learner: Objective = build_objective(chosen.objective)
        self.learner.listen(open_representation)
        self.learner.to(group.device)
        self.cost = Estimate(math.inf, 0)  # until it is measured

    def pretrain(self, budget: float | None, start: Encoder | Objective | None) -> Pretrained:
        """Begin or continue, train, and write the encoder."""
        folder = self.out / "checkpoints"
        if self.plan.left_out:
            self.say(f"{amount(self.plan.left_out)}, left out as shorter than batches.minimum")
        saved = checkpoint.load_latest(folder, self.say)
        if saved is None:
            self.learner.check_start(start)
            if isinstance(self.learner.encoder.frontend, Recogniser):
                teach(self.learner.encoder.frontend, open_representation)
            self.learner.prepare(Once(self.plan.utterances, self.plan.config, self.group.device))
            if start is not None:
                self.learner.go_on_from(start)
            spent = self._label()
            budget = budget and max(budget - spent, budget / 10)
        self._settle_steps(budget, begun=saved is not None)
        if self.group.writes:
            checkpoint.sweep(self.out, self.settings.upkeep.keep)
            ledger.claim(self.out, self.settings, self.plan.fingerprint, ledger.beginning(start))
            checkpoint.check_room(folder, checkpoint.estimate_bytes(self.learner, self.settings.upkeep.keep))
            named = [(name, each) for name, part in self.parts.items() for each in part]
            write_manifest(self.out / "corpus.jsonl", [replace(each, split=name) for name, each in named])
        run = Run(self.learner, self.settings.train, self.group.device, self.group)
        if saved is not None:
            run.restore(saved)
            self._label()
            self.monitor.restore(saved.notes.get("collapse"))
            self.say(f"resuming {self.out} at step {run.step} of {self.settings.train.steps}")
        if self.cost.flops is None and self.cost.seconds == math.inf:
            self.cost = self._estimate(1)
        self._train(run, folder)
        encoder = self.learner.encoder.eval()
        if self.group.writes and not self.stop.requested:
            encoder.save(self.out / "encoder", self._card(run.step))
        return Pretrained(self.out, encoder, self.settings, run.step, self.stop.exit_code, self._picture())

    def _label(self) -> float:
        """Let the learner write down what its steps will ask of whole utterances; return the seconds it took."""
        began = monotonic()
        whole = [*self.plan.utterances, *self.parts["valid"]]
        self.learner.eval().label(whole, self.out, self.group.rank, self.group.ranks)
        self.group.any(False)  # until all have written their share
        return self.group.agree(monotonic() - began)

    def _settle_steps(self, budget: float | None, begun: bool) -> None:
        """Turn a budget into steps, once; a resumed run keeps what its config says."""
        first = self.out / "config.toml"
        if budget is not None and first.is_file():
            steps = config.read_toml(first).get("train", {}).get("steps", self.settings.train.steps)
            self._set_steps(steps)
            self.say(f"{self.out}: {steps} steps, as settled at its first start; --budget no longer changes that")
            begun = True
        if begun:
            return
        self.cost = cost = self._estimate(TRIAL)
        if budget is not None:
            self.cost = cost = self._estimate(max(TRIAL, min(100, cost.steps(PATIENCE * budget))))
            self._set_steps(int(self.group.agree(float(cost.steps(budget * (1 - OVERHEAD))))))
        steps, plan = self.settings.train.steps, self.plan
        hours = steps / plan.steps_per_epoch * plan.seconds_per_epoch / 3600
        self.say(
            f"{steps} steps of {cost.seconds:.2f} s: about {clock(steps * cost.seconds)}; "
            f"{cost.memory / 2**30:.1f} GiB of memory; "
            f"{hours:.1f} h of audio seen, {steps / plan.steps_per_epoch:.1f} times the corpus"
        )

    def _set_steps(self, steps: int) -> None:
        self.settings = config.overlay(self.settings, {"train": {"steps": steps}})

    def _estimate(self, count: int) -> Estimate:
        count, loader = int(self.group.agree(float(count))), self._loader()
        samples = SAMPLE_RATE * sum(each.seconds for each in self.plan.utterances)
        if 2 * samples < self.settings.upkeep.cache * 2**30:  # after the first epoch all of it comes from memory
            with closing(loader.steps()) as steps:
                for _ in itertools.islice(steps, count):
                    pass
        with closing(loader.steps()) as steps:
            # Read while the trial runs, as in training: reading costs the processor something too.
            trial = itertools.islice(steps, count)
            return estimate(self.learner, self.settings.train, trial, self.group.device, self.group)

    def _loader(self) -> Loader:
        upkeep, cuda = self.settings.upkeep, self.group.device.type == "cuda"
        return Loader(
            self.plan,
            rank=self.group.rank,
            ranks=self.group.ranks,
            workers=upkeep.workers if upkeep.workers is not None else 2 * cuda,
            cache=int(upkeep.cache * 2**30),
            refuse=self._refuse,
            refused=[each.id for each in self.plan.utterances if each.id in self.quarantine],
            pin=cuda,
        )

    def _refuse(self, utterance: Utterance, error: DataError) -> None:
        assert isinstance(error, AudioError)
        refusal = Refusal.of(error, utterance.id)
        self.say(refusal.text)
        self.quarantine.add(refusal)
        self.quarantine.check(len(self.plan.utterances))

    def _train(self, run: Run, folder: Path) -> None:
        upkeep, steps = self.settings.upkeep, self.settings.train.steps
        validate_every = upkeep.validate_every or max(1, steps // 20)
        log_every = upkeep.log_every or max(1, steps // 500)
        pace = Pace(self.say, steps, run.step)
        with ExitStack() as stack:
            metrics = ledger.Metrics(self.out / "metrics.jsonl", run.step) if self.group.writes else None
            if metrics is not None:
                stack.enter_context(closing(metrics))
            if run.step == 0:
                validation, _ = self._validate(0)  # all ranks together
                if metrics is not None:
                    metrics.append({"step": 0, **validation})
            for tick in stack.enter_context(closing(self._ticks(run, folder, metrics))):
                leaving = self.group.any(self.stop.requested)
                if leaving:  # perhaps another rank was asked
                    self.stop.signal = self.stop.signal or signal.SIGTERM
                last = tick.step == steps or leaving
                due = tick.step % log_every == 0 or tick.step % validate_every == 0 or last
                row: dict[str, Any] | None = tick.row() if due else None
                if row is not None and (used := self.cost.utilisation(tick)) is not None:
                    row["mfu"] = used
                wrong = None
                if row is not None and (tick.step % validate_every == 0 or tick.step == steps):
                    validation, wrong = self._validate(tick.step)
                    row |= validation
                if row is not None and metrics is not None:
                    metrics.append(row)
                self._heed(wrong)
                if metrics is not None and (last or pace.save_due(tick.step, upkeep.save_every)):
                    metrics.sync()
                    checkpoint.save(folder, run.checkpoint(collapse=self.monitor.notes), upkeep.keep)
                pace.tell(tick, row, last)
                if leaving:
                    break

    def _ticks(self, run: Run, folder: Path, metrics: ledger.Metrics | None) -> Generator[Tick, None, None]:
        """Take steps; where one of them fails, what was well before it is saved."""
        with closing(self._loader().steps(run.step)) as steps:
            try:
                yield from run.ticks(steps)
            except TrainingError:
                # On CUDA it is told a step later, when a moving average may have gone on.
                if metrics is not None and self.group.device.type == "cpu":
                    metrics.sync()
                    checkpoint.save(folder, run.checkpoint(collapse=self.monitor.notes), self.settings.upkeep.keep)
                raise

    def _held_batches(self) -> tuple[list[Batch], float]:
        """Read this rank's share of the held-out utterances, in batches of like lengths; 1 where it counts, else 0."""
        plan = BatchPlan(self.parts["valid"], self.settings.batches.model_copy(update={"minimum": 0.0}))
        # A rank for which none is left scores the first, for nothing, so that all ranks sum up the same parts.
        own = range(self.group.rank, plan.steps_per_epoch, self.group.ranks)
        loader = Loader(plan, workers=0, refuse=lambda utterance, error: None)
        return [next(loader.steps(step))[0] for step in own or range(1)], float(len(own) > 0)

    def _validate(self, step: int) -> tuple[dict[str, Any], str | None]:
        """Score the held-out part and look for collapse there; what is wrong, after the warm-up, is said in words."""
        draw, train = Draw(self.settings.batches.seed), self.settings.train
        with autocast(train.precision, self.group.device):  # as in training
            scores = validate(self.learner, self.held, self.counted, draw, self.group)
            figures = self.monitor.look(self.learner.encoder, self.learner.codes)
        wrong = self.monitor.judge(figures, step) if step > train.warmup * train.steps else None
        return {"validation": scores} | ({"collapse": figures} if figures else {}), wrong

    def _heed(self, wrong: str | None) -> None:
        """Say what is wrong, and stop where that has been said at the validation before."""
        if wrong is not None:
            self.say(wrong)
        if self.settings.upkeep.collapsed == "stop":
            self.monitor.refuse(wrong)

    def _picture(self) -> dict[str, Any] | None:
        """Show a held-out utterance true, altered and rebuilt, and write reconstruction.wav where a method sounds."""
        self.learner.eval()
        batch = self.held[0]
        wave = Waves(batch.waves.samples[:1, : int(batch.waves.lengths[0])], batch.waves.lengths[:1])
        first = Batch(wave, batch.utterances[:1], starts=batch.starts[:1]).to(self.group.device)
        if self.group.writes and not self.stop.requested:
            sound = self.learner.reconstruct(first, Draw(self.settings.batches.seed))
            if sound is not None:
                write(self.out / "reconstruction.wav", sound.samples[0, : int(sound.lengths[0])])
        picture = self.learner.picture(first, Draw(self.settings.batches.seed))
        if picture is None:
            return None
        panels = {"true": picture.true, "masked": picture.altered, "rebuilt": picture.rebuilt, "hidden": picture.hidden}
        return {**{name: panel.cpu() for name, panel in panels.items()}, "hop_seconds": picture.hop / SAMPLE_RATE}

    def _card(self, step: int) -> str:
        encoder = self.learner.encoder
        parameters = sum(parameter.numel() for parameter in encoder.parameters())
        hours = self.plan.seconds_per_epoch / 3600
        return (
            f"# {self.settings.objective.kind}\n\n"
            f"{parameters:,} parameters; {encoder.depth} layers of width {encoder.dim}, one step every {encoder.hop} "
            f"samples at {SAMPLE_RATE} Hz. Trained {step} steps on {hours:.2f} h of audio.\n\n"
            "Padding changes no valid step by more than 1e-5.\n\n"
            '```python\nimport mockingjay\nencoder = mockingjay.open_representation("path/of/this/folder")\n```\n\n'
            f"```json\n{json.dumps(self.settings.model_dump(mode='json'), indent=2)}\n```\n"
        )
