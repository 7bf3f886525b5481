"""What the self-attention of a trained network does, which heads it needs, and how alike its layers are.

Measures and scores are taken on utterances that the network was not trained on. Heads, layers, settings and orders of
removing are chosen on others than those on which they are scored (`material.py`). How much is asked follows once from
the time there is, is written down, and is then the same on every start; what is known is kept part by part, so that the
same call goes on where it was.
"""

import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.numpy
import torch
from jaxtyping import Float

from mockingjay import audio
from mockingjay.core.draw import address
from mockingjay.core.errors import ConfigError
from mockingjay.core.files import write_atomically
from mockingjay.core.representation import Representation
from mockingjay.core.types import SAMPLE_RATE, Waves
from mockingjay.data.manifest import Corpus
from mockingjay.data.quarantine import Quarantine
from mockingjay.data.scan import check_reads
from mockingjay.encoders.attention import limit, prune
from mockingjay.studies import noise
from mockingjay.studies.attention import heads, layers
from mockingjay.studies.attention.material import Material, gather
from mockingjay.studies.attention.passes import heads_of, looks, reach
from mockingjay.studies.attention.plan import CANDIDATES, FEWEST, TRIED, Plan, allot
from mockingjay.studies.attention.pruning import WHOLE, Bench, Pretext, area, common, curve, levels
from mockingjay.studies.attention.segments import segment
from mockingjay.studies.attention.summaries import retest, see
from mockingjay.studies.cards import check_card, write_card
from mockingjay.train.ledger import locked

NOISE = 20.0  # decibels below the speech


@dataclass(frozen=True, slots=True)
class Subject:
    """A representation under study.

    Attributes:
        name: As it is called in rows and on the page.
        representation: With attention.
        heard: Ids of the utterances it was trained on.
        pretext: Its pre-training task, where that is at hand; then `representation` is the one inside the learner.
    """

    name: str
    representation: Representation
    heard: frozenset[str] = frozenset()
    pretext: Pretext | None = None


@dataclass(slots=True)
class Study:
    """What is known so far.

    Attributes:
        data: Name of the speech.
        names: Of the representations.
        findings: By name, then by part: plan, seen, segments, noise, cost, asked, layers, pruning, spans.
        maps: By name, then by utterance, a few attention maps.
        absent: What could not be measured, a sentence each.
        finished: Whether every part of every representation is known.
    """

    data: str
    names: tuple[str, ...]
    seed: int
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)
    maps: dict[str, dict[str, Float[np.ndarray, "layers heads query key"]]] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    finished: bool = False


def attention(
    subjects: Sequence[Subject],
    corpus: Corpus,
    out: Path,
    *,
    budget: float,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Study]:
    """Study attention and layers; what is known is handed out several times for each representation.

    Args:
        subjects: What is studied, each under a name of its own.
        corpus: As `open_corpus` read it; aligned phones and speakers are used where it has them.
        out: The study's folder.
        budget: Seconds for all of it.
        seed: Of divisions, probes, random orders and intervals.
        say: Told a line at a time.

    Raises:
        RepresentationError: A representation has no attention.
        ConfigError: Two have one name, or the folder holds another study.
        DataError: Too little speech that none of them was trained on, or files that cannot be read.
        MachineError: The folder cannot be written, or another process is writing there.
    """
    names = tuple(subject.name for subject in subjects)
    if len(set(names)) < len(names):
        raise ConfigError(f"attention: {', '.join(names)}: named twice, expected each once; leave one out")
    for subject in subjects:
        heads_of(subject.representation, subject.name)
        check_reads((each.path for each in corpus.utterances), subject.representation.reads)
    absent: list[str] = []
    heard = frozenset().union(*(subject.heard for subject in subjects))
    material = gather(corpus, heard, max(each.representation.receptive for each in subjects), seed, absent)
    if all(subject.pretext is None for subject in subjects):
        absent.append("No pre-training task is at hand: its loss under pruning is left out.")
    for sentence in absent:
        say(sentence)
    study = Study(material.data, names, seed, absent=absent)
    with locked(out):
        ours = _ours(names, material, budget, seed)
        check_card(out / "study.json", ours, "a study")
        write_card(out / "study.json", ours)
        for number, subject in enumerate(subjects, 1):
            say(f"{subject.name}: {number} of {len(subjects)}")
            folder = out / f"{Path(subject.name).name.replace(':', '-')}-{address(subject.name) & 0xFFFFFFFF:08x}"
            sitting = _Sitting(subject, material, folder, budget / len(subjects), seed, study, say)
            for _ in sitting.parts():
                study.finished = sitting.finished and number == len(subjects)
                yield study


def _ours(names: Sequence[str], material: Material, budget: float, seed: int) -> dict[str, Any]:
    """Say what a study is a function of."""
    parts = {"measured on": material.measured, "tested on": material.tested}
    ids = {name: f"{address(json.dumps([each.id for each in part])):016x}" for name, part in parts.items()}
    return {"representations": list(names), "budget": budget, "seed": seed, **ids}


class _Sitting:
    """The study of one representation, part by part."""

    def __init__(
        self,
        subject: Subject,
        material: Material,
        folder: Path,
        budget: float,
        seed: int,
        study: Study,
        say: Callable[[str], None],
    ) -> None:
        self.subject, self.material, self.folder = subject, material, folder
        self.budget, self.seed, self.study, self.say = budget, seed, study, say
        self.representation = subject.representation
        self.depth, self.each = heads_of(self.representation, subject.name)
        self.quarantine = Quarantine()
        self.found = study.findings.setdefault(subject.name, {})
        self.finished = False

    def parts(self) -> Iterator[None]:
        """Find out one part after the other; pauses where there is something new to read."""
        self.plan = Plan.read(self._keep("plan", lambda: asdict(self._planned())))
        self._keep("seen", self._see)
        maps = safetensors.numpy.load_file(self.folder / "maps.safetensors")
        self.study.maps[self.subject.name] = {name.partition(" ")[2]: maps[name] for name in sorted(maps)}
        if self.material.phone is not None:
            self._keep("segments", self._segment)
        for sentence in self._keep("noise", self._noise).get("silent", ()):  # earlier studies have none
            self.study.absent.append(f"{self.subject.name}: {sentence}")
        self._keep("cost", self._cost)
        yield
        refused = self._keep("asked", lambda: self._bench(self.plan.asked, self.plan.seeds).begin())["refused"]
        for sentence in refused.values():
            self.say(sentence)
            self.study.absent.append(sentence)
        self.bench = self._bench(self.plan.asked, self.plan.seeds, refused)
        if self.bench.questions:
            self._keep("layers", self._layers)
        if self.bench.questions or self.bench.pretext is not None:
            self._keep("pruning", self._prune)
            self._keep("spans", self._limit)
        self.finished = True
        yield

    def _keep(self, part: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        place = self.folder / f"{part}.json"
        if not place.is_file():
            began = time.monotonic()
            found = compute()
            write_atomically(place, json.dumps(found, allow_nan=False).encode())
            self.say(f"{part}: {time.monotonic() - began:.1f} s")
        self.found[part] = json.loads(place.read_text("utf-8"))
        return self.found[part]

    def _see(self) -> dict[str, Any]:
        phone = self.material.phone
        task = phone.task.learn(phone.parts.train) if phone is not None else None
        measured, tested = (part[: self.plan.looked] for part in (self.material.measured, self.material.tested))
        found, shown = see(self.representation, measured, task, self.seed, self.quarantine)
        found |= retest(self.representation, tested, task, found.get("picked", ()), self.seed, self.quarantine)
        self.quarantine.check(len(measured) + len(tested))
        named = {f"{number:02d} {id}": np.ascontiguousarray(maps) for number, (id, maps) in enumerate(shown.items())}
        write_atomically(self.folder / "maps.safetensors", safetensors.numpy.save(named))
        return {**found, "layers": self.depth, "heads": self.each, "hop": self.representation.hop / SAMPLE_RATE}

    def _segment(self) -> dict[str, Any]:
        assert self.material.phone is not None
        values = torch.tensor(self.found["seen"]["measures"])
        candidates = values[2].argsort(descending=True)[:CANDIDATES].tolist()
        dev = self.material.phone.parts.dev[: self.plan.tuned]
        test = self.material.tested[: self.plan.looked]
        return segment(self.representation, dev, test, candidates, self.seed, self.quarantine)

    def _noise(self) -> dict[str, Any]:
        """LNSR of every layer, the input included, under white noise."""
        clean, noisy = {}, {}
        for id, wave in self._waves(self.plan.looked):
            (clean[id],) = layers.states(self.representation, Waves.pad([wave]))
            altered = Waves.pad([layers.with_noise(wave, NOISE, self.seed, id)])
            (noisy[id],) = layers.states(self.representation, altered)
        below = any(len(each) > self._deep for each in clean.values())
        silent = noise.silent(clean, below=below)
        clean = {id: each for id, each in clean.items() if id not in silent}
        found = {"decibels": NOISE, "utterances": len(clean), "input": below, "silent": list(silent.values())}
        for norm in noise.NORMS:
            found[norm] = asdict(noise.lnsr(noise.ratios(clean, noisy, norm, below=below), self.seed))
        return found

    def _cost(self) -> dict[str, Any]:
        waves = [wave for _, wave in self._waves(1)]
        return {**layers.cost(self.representation, Waves.pad(waves))}

    def _waves(self, count: int) -> Iterator[tuple[str, Any]]:
        longest, left = reach(self.representation), set(self.found["seen"]["ids"][:count])
        for each in self.material.measured:
            if each.id in left:
                yield each.id, audio.read(each.path, each.start, min(each.seconds, longest))

    @property
    def _deep(self) -> int:
        return self.representation.depth

    def _layers(self) -> dict[str, Any]:
        """What a probe on each layer alone knows."""
        reads = [f"layer:{layer}" for layer in range(self._deep)]
        found = [self.bench.ask(f"read-{read.replace(':', '-')}", read=read) for read in reads]
        return {name: {"points": curve(found, name, self.seed), "n": len(found[0][name].ids)} for name in common(found)}

    def _prune(self) -> dict[str, Any]:
        """Remove heads in the order of each measure, and in random orders."""
        seen = self.found["seen"]
        values, strengths = torch.tensor(seen["measures"]), torch.tensor(seen["strengths"])
        removed = levels(len(strengths), self.plan.steps)
        found = {
            order: [self._without(chosen[:count]) for count in removed]
            for order, chosen in heads.orders(values, strengths, self.plan.randoms, self.seed).items()
        }
        names = common([each for points in found.values() for each in points])
        randoms = [points for order, points in found.items() if order.startswith("random")]
        shares = [count / removed[-1] for count in removed]
        return {
            "removed": list(removed),
            "n": {name: len(found["random 1"][0][name].ids) for name in names},
            "curves": {
                order: {name: curve(points, name, self.seed) for name in names} for order, points in found.items()
            },
            "areas": {
                order: {name: area(points, randoms, shares, name, self.seed) for name in names}
                for order, points in found.items()
                if not order.startswith("random")
            },
        }

    def _without(self, chosen: tuple[int, ...]) -> Any:
        condition = f"without-{address(sorted(chosen)):016x}" if chosen else WHOLE
        return self.bench.ask(condition, partial(prune, self.representation, heads.by_layer(chosen, self.each)))

    def _limit(self) -> dict[str, Any]:
        """Take far keys away, before the softmax and after it: two experiments."""
        places: tuple[Literal["before", "after"], ...] = ("before", "after")
        found = {
            where: [
                self.bench.ask(f"span-{span}-{where}", partial(limit, self.representation, span, where))
                for span in self.plan.spans
            ]
            for where in places
        }
        whole = [self.bench.ask(WHOLE)]
        names = common([*whole, *found["before"], *found["after"]])
        return {
            "spans": list(self.plan.spans),
            "n": {name: len(whole[0][name].ids) for name in names},
            "whole": {name: curve(whole, name, self.seed)[0] for name in names},
            "curves": {
                where: {name: curve(points, name, self.seed) for name in names} for where, points in found.items()
            },
        }

    def _bench(self, asked: int, seeds: int, refused: Collection[str] = ()) -> Bench:
        """Make ready what the representation is asked under every restraint."""
        given = [each for each in (self.material.phone, self.material.speaker) if each is not None]
        chosen = {each.task.name: each.at_most(asked) for each in given if each.task.name not in refused}
        looked = set(self.found.get("seen", {}).get("tested", ()))
        held = [each for each in self.material.tested if each.id in looked]
        place, pretext = self.folder / "asked", self.subject.pretext
        return Bench(self.representation, chosen, pretext, held, seeds, self.seed, place, self.subject.name)

    def _planned(self) -> Plan:
        """Find out what the machine can do, and cut the study to the time there is."""
        trial, longest = self.material.measured[:FEWEST], reach(self.representation)
        audible = sum(min(each.seconds, longest) for each in trial) / len(trial)
        began = time.monotonic()
        for _ in looks(self.representation, trial, self.quarantine):
            pass
        hearing = (time.monotonic() - began) / len(trial)
        began = time.monotonic()
        tasks = max(1, len(self._bench(TRIED, 1).answers()[0]))
        fitting = max(0.1, time.monotonic() - began - tasks * TRIED * hearing)
        return allot(self.budget, hearing=hearing, utterance=audible, fitting=fitting, tasks=tasks, depth=self._deep)
