"""Batches by seconds of audio: which utterances, which stretch of each, and in what order.

The order is a pure function of (seed, epoch) and a crop of (seed, epoch, utterance). A resume at any step, another
number of workers, or another split of the batch over ranks and accumulation steps therefore changes nothing and needs
no saved position.
"""

import hashlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int32, Int64
from pydantic import Field
from torch import Tensor

from mockingjay import audio
from mockingjay.core.config import Config as Table
from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError, DataError, MachineError
from mockingjay.core.types import SAMPLE_RATE, Batch, Utterance, Waves

WHOLE = 2.0  # crops; a longer utterance is read only where it is cropped, a shorter one whole (see Loader)
STALL = 120.0  # seconds; a batch that takes longer to read is a disk or mount that hangs


class BatchPlan:
    """Says for every optimiser step which utterances it learns from.

    An epoch sorts the corpus by duration, disturbed by up to `bucket`, so that batch-mates are of similar length and
    yet others in every epoch; cuts that row into equal shares of seconds, so that no small batch is left over; and
    shuffles the shares.

    Attributes:
        utterances: What is learned from.
        left_out: Utterances shorter than the minimum.
        steps_per_epoch: Optimiser steps that see every utterance once; the same in every epoch.
        slots: Micro-batches per optimiser step, over ranks and accumulation.
    """

    class Config(Table):
        """Defaults hold about as much as the paper's batch: 6 utterances of LibriSpeech, 12 s on average."""

        seconds: float = Field(default=72.0, gt=0)
        """Seconds of audio per optimiser step, over all ranks and accumulation steps."""
        crop: float = Field(default=15.0, ge=0.01)
        """Longest stretch of an utterance in seconds; longer ones are cropped at random (code of TERA: 1500 frames)."""
        minimum: float = Field(default=0.1, ge=0)
        """Utterances shorter than this many seconds are left out (ours; the code of TERA: 2 s)."""
        bucket: float = Field(default=0.1, ge=0, le=1)
        """Width of a duration bucket as a share of the duration; wider mixes more and pads more (ours)."""
        seed: int = Field(default=0, ge=0, lt=2**63)
        """Addresses the order and the crops."""

    def __init__(self, utterances: Sequence[Utterance], config: Config, slots: int = 1) -> None:
        self.config = config
        self.slots = slots
        self.crop = round(config.crop * SAMPLE_RATE)
        self.utterances = tuple(each for each in utterances if each.seconds >= config.minimum)
        self.left_out = tuple(each for each in utterances if each.seconds < config.minimum)
        whole = np.array([round(each.seconds * SAMPLE_RATE) for each in self.utterances], dtype=np.int64)
        self._samples = np.clip(whole, 1, self.crop)
        self._check(len(utterances))
        total = int(self._samples.sum())
        # A share of at least `slots` times the longest utterance holds at least `slots` utterances, wherever it is cut.
        most = total // (slots * int(self._samples.max()))
        self.steps_per_epoch = max(1, min(round(total / (config.seconds * SAMPLE_RATE)), most))
        self._epoch = lru_cache(maxsize=2)(self._arrange)  # two, because prefetching reaches into the next epoch

    @property
    def seconds_per_epoch(self) -> float:
        """Seconds of audio an epoch learns from, after cropping."""
        return int(self._samples.sum()) / SAMPLE_RATE

    @property
    def fingerprint(self) -> str:
        """Name the corpus by its ids and lengths in their order; a resumed run must find the same."""
        digest = hashlib.sha256()
        for each in self.utterances:
            digest.update(f"{each.id}\x1f{round(each.seconds * SAMPLE_RATE)}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def step(self, step: int) -> tuple[int, tuple[Utterance, ...]]:
        """Return the epoch and the utterances of a global optimiser step."""
        epoch, index = divmod(step, self.steps_per_epoch)
        order, edges, batches = self._epoch(epoch)
        chosen = batches[index]
        return epoch, tuple(self.utterances[i] for i in order[edges[chosen] : edges[chosen + 1]])

    def stretch(self, utterance: Utterance, epoch: int) -> tuple[int, int]:
        """Return the first sample and the number of samples of an utterance that an epoch uses.

        A file of features is cut between its frames.
        """
        samples = round(utterance.seconds * SAMPLE_RATE)
        if samples <= self.crop:
            return 0, samples
        where = Draw(self.config.seed, epoch).uniform([utterance.id], "crop", 1).item()
        if not audio.holds_features(utterance.path):
            return int(where * (samples - self.crop + 1)), self.crop
        frames, kept = samples // audio.FRAME, max(1, self.crop // audio.FRAME)
        return int(where * (frames - kept + 1)) * audio.FRAME, kept * audio.FRAME

    def _check(self, given: int) -> None:
        count, config = len(self.utterances), self.config
        if count < self.slots:
            raise DataError(
                f"corpus: {count} of {given} utterances last {config.minimum:g} s or longer, expected at least "
                f"{self.slots} "
                "(ranks × accumulation); add audio or lower the minimum"
            )
        longest = float(self._samples.max()) / SAMPLE_RATE
        if config.seconds < self.slots * longest and count > self.slots:
            raise ConfigError(
                f"batches.seconds: {config.seconds:g} s per step cannot hold {self.slots} micro-batches of an "
                "utterance of "
                f"{longest:g} s, expected at least {self.slots * longest:g}; raise batches.seconds or lower "
                "batches.crop"
            )

    def _arrange(
        self, epoch: int
    ) -> tuple[Int32[np.ndarray, " utterances"], Int64[np.ndarray, " edges"], Int64[np.ndarray, " steps"]]:
        draw = Draw(self.config.seed, epoch)
        disturbance = draw.uniform(["corpus"], "order", len(self.utterances))[0].numpy()
        order = np.argsort(np.log(self._samples) + self.config.bucket * disturbance, kind="stable").astype(np.int32)
        ends = np.cumsum(self._samples[order])
        middles = 2 * ends - self._samples[order]  # in half samples, so that they stay whole numbers
        shares = np.arange(self.steps_per_epoch + 1) * (2 * int(ends[-1]) / self.steps_per_epoch)
        edges = np.searchsorted(middles, shares).astype(np.int64)
        batches = np.argsort(draw.uniform(["corpus"], "batches", self.steps_per_epoch)[0].numpy(), kind="stable")
        return order, edges, batches


Refuse = Callable[[Utterance, DataError], None]
_Task = tuple[int, int, tuple[Utterance, ...]]  # step, epoch, a micro-batch's utterances
_Loaded = tuple[Batch, list[tuple[Utterance, DataError]]]  # and what was refused


class Loader:
    """Reads a plan's batches ahead of the training, in the plan's order.

    Threads rather than worker processes: libsndfile and soxr release Python's lock while they decode, so threads scale
    over cores, and there is no shared memory to run out, no fork after threads, no worker to be killed or to inherit
    random state.

    What is read must not depend on what happens to be cached, or a resumed run could differ in the last bit where a
    crop is cut from a resampled file. So by one rule utterances up to `WHOLE` crops are always read whole, and only
    these are cached.

    Args:
        plan: What to read.
        rank: This process's number.
        ranks: How many processes share the plan; ranks × accumulation must be the plan's slots.
        workers: Reading threads; 0 reads when asked.
        cache: Bytes of decoded audio to keep in memory, as int16 where that is exact.
        refuse: Called in the plan's order with each utterance that cannot be read; it is then left out of its batch.
        None
            stops at the first such utterance. A micro-batch that lost all its utterances is replaced by the next
            readable utterance of the plan, so that all ranks keep step.
        refused: Ids that are left out without being read, from an earlier part of the run.
        pin: Return page-locked memory, from which copies to CUDA overlap with computation.
    """

    def __init__(
        self,
        plan: BatchPlan,
        *,
        rank: int = 0,
        ranks: int = 1,
        workers: int = 2,
        cache: int = 0,
        refuse: Refuse | None = None,
        refused: Iterable[str] = (),
        pin: bool = False,
    ) -> None:
        assert plan.slots % ranks == 0 and 0 <= rank < ranks
        self.plan = plan
        self.accumulate = plan.slots // ranks
        self.rank = rank
        self.workers = workers
        self.refuse = refuse
        self.refused = set(refused)
        self.pin = pin
        self._cache = _Cache(cache)

    def steps(self, start: int = 0) -> Generator[tuple[Batch, ...]]:
        """Yield this rank's micro-batches of every optimiser step from `start` on, without end.

        Raises:
            DataError: Nothing can be read, or an utterance cannot be and there is no `refuse`.
            MachineError: The disk does not answer.
        """
        with closing(self._loaded(self._tasks(start))) as loaded:
            while True:
                batches = []
                for batch, refused in itertools.islice(loaded, self.accumulate):
                    self._report(refused)
                    batches.append(batch)
                yield tuple(batches)

    def _tasks(self, start: int) -> Iterator[_Task]:
        for step in itertools.count(start):
            epoch, utterances = self.plan.step(step)
            for micro in range(self.accumulate):
                yield step, epoch, utterances[self.rank * self.accumulate + micro :: self.plan.slots]

    def _loaded(self, tasks: Iterator[_Task]) -> Generator[_Loaded, None, None]:
        if not self.workers:
            yield from itertools.starmap(self._load, tasks)
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="reader")
        try:
            ahead = deque(pool.submit(self._load, *task) for task in itertools.islice(tasks, 2 * self.workers))
            while True:
                try:
                    loaded = ahead.popleft().result(timeout=STALL)
                except TimeoutError:
                    raise MachineError(
                        f"corpus: a batch is not read after {STALL:g} s, expected milliseconds; look whether the disk "
                        "or mount hangs"
                    ) from None
                ahead.append(pool.submit(self._load, *next(tasks)))
                yield loaded
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _load(self, step: int, epoch: int, utterances: tuple[Utterance, ...]) -> _Loaded:
        kept: list[Utterance] = []
        waves: list[Tensor] = []
        starts: list[int] = []
        refused: list[tuple[Utterance, DataError]] = []
        later = (each for ahead in range(1, self.plan.steps_per_epoch + 1) for each in self.plan.step(step + ahead)[1])
        for number, utterance in enumerate(itertools.chain(utterances, later)):
            if number >= len(utterances) and waves:
                break
            if utterance.id in self.refused:
                continue
            try:
                first, samples = self.plan.stretch(utterance, epoch)
                waves.append(self._wave(utterance, first, samples))
                kept.append(utterance)
                starts.append(first)
            except DataError as error:
                if self.refuse is None:
                    raise
                refused.append((utterance, error))
        if not waves:
            raise DataError(
                f"corpus: none of its {len(self.plan.utterances)} utterances can be read, expected audio; see the "
                "refusals above"
            )
        batch = Waves.pad(waves)
        if self.pin:
            batch = Waves(batch.samples.pin_memory(), batch.lengths.pin_memory())
        return Batch(batch, tuple(kept), epoch, tuple(starts)), refused

    def _report(self, refused: list[tuple[Utterance, DataError]]) -> None:
        for utterance, error in refused:
            if self.refuse is not None and utterance.id not in self.refused:
                self.refused.add(utterance.id)
                self.refuse(utterance, error)

    def _wave(self, utterance: Utterance, first: int, samples: int) -> Float[Tensor, " samples"]:
        if utterance.seconds > WHOLE * self.plan.config.crop:
            return audio.read(utterance.path, utterance.start + first / SAMPLE_RATE, samples / SAMPLE_RATE)
        kept = self._cache.get(utterance.id, first, samples)
        if kept is not None:
            return kept
        wave = audio.read(utterance.path, utterance.start, utterance.seconds)
        self._cache.put(utterance.id, wave)
        return wave[first : first + samples]


class Once:
    """Utterances once through, for statistics; may be iterated again, and what cannot be read is passed over."""

    def __init__(
        self, utterances: Sequence[Utterance], config: BatchPlan.Config, device: torch.device | str = "cpu"
    ) -> None:
        self.utterances, self.config, self.device = utterances, config, device

    def __iter__(self) -> Iterator[Batch]:
        plan = BatchPlan(self.utterances, self.config)
        with closing(Loader(plan, refuse=lambda utterance, error: None).steps()) as steps:
            for batches in itertools.islice(steps, plan.steps_per_epoch):
                yield batches[0].to(self.device)


class _Cache:
    """Keeps decoded audio up to a budget, exactly; what does not fit any more is read again."""

    def __init__(self, budget: int) -> None:
        self._left = budget  # bytes
        self._waves: dict[str, Tensor] = {}
        self._lock = threading.Lock()

    def get(self, id: str, first: int, samples: int) -> Float[Tensor, " samples"] | None:
        wave = self._waves.get(id)
        if wave is None:
            return None
        stretch = wave[first : first + samples]
        return stretch / 32768 if stretch.dtype == torch.int16 else stretch

    def put(self, id: str, wave: Float[Tensor, " samples"]) -> None:
        if self._left < 2 * len(wave):
            return
        scaled = (wave * 32768).round().clamp(-32768, 32767)
        if torch.equal(scaled / 32768, wave):  # 16-bit files at our own rate come back as they went
            wave = scaled.to(torch.int16)
        size = wave.element_size() * len(wave)
        with self._lock:
            if id not in self._waves and size <= self._left:
                self._waves[id] = wave
                self._left -= size
