"""What a study of attacks is carried out on: bona fide and spoofed speech, features that are attacked, defences.

A representation that reads a spectrum is attacked there and on the waveform. One that hears samples is attacked on the
waveform alone, for it shares no features with the undefended countermeasure, which then reads the published ones.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mockingjay.core.config import Config as Table
from mockingjay.core.draw import Draw, address
from mockingjay.core.errors import RepresentationError
from mockingjay.core.representation import Representation
from mockingjay.core.types import SAMPLE_RATE, Utterance, Waves
from mockingjay.data.manifest import Corpus
from mockingjay.data.quarantine import Quarantine
from mockingjay.data.scan import scan
from mockingjay.downstream.countermeasures import LCNN, Decibels, SENet
from mockingjay.downstream.partition import PARTS, Partition, partition
from mockingjay.downstream.spoofing import Stretches, Training, balanced, spoof_task, stretches
from mockingjay.downstream.tasks import Label
from mockingjay.encoders.encoder import Encoder, random_encoder
from mockingjay.encoders.frontends import MFCC, Fbank, Frontend, Linear, LogMel, Stacked
from mockingjay.representations.features import Features
from mockingjay.studies.attack.defence import Defence, Rebuilding, behind, hears, rebuilt, simple_defences, states
from mockingjay.studies.attack.vocoded import COPIES, source, with_copies

SPECTRAL = (LogMel, Fbank, Linear, MFCC)
SHORTEST = 0.1  # seconds; shorter utterances are left out
UNTRAINED = "untrained network"

Place = Literal["features", "waveform"]
Count = Annotated[int, Field(ge=0)]


class Config(Table):
    """Defaults are the published countermeasures and features (code)."""

    lcnn: LCNN.Config = LCNN.Config()
    """The first countermeasure."""
    senet: SENet.Config = SENet.Config()
    """The second."""
    features: Decibels.Config = Decibels.Config()
    """What both read where no representation is tried."""
    seconds: float = Field(default=4.866875, gt=0, le=60)
    """Of every example; 600 frames of the published features."""
    crops: int = Field(default=2, ge=1, le=16)
    """Stretches of each utterance of train and dev (ours; the code draws a new one every epoch)."""
    most: tuple[Count, Count, Count] = (0, 0, 0)
    """Utterances of train, dev and test, half of each class where it has as many; 0: all there are."""
    memory: float = Field(default=64.0, gt=0)
    """GiB of pictures that countermeasures learn from and are tested on, all held at once."""
    training: Training = Training()
    """Of every countermeasure."""


# For two CPU cores: some of the speech, the code's small LCNN (509 072 parameters on its own features), 257 bins, two
# seconds. It has hundreds of updates where the code has 150 000, in which it learns nothing under the published dropout
# (ours).
SMALL = Config(
    lcnn=LCNN.Config(channels=(8, 12, 12, 4, 4, 32), dropout=0.2),
    senet=SENet.Config(batch=32),
    features=Decibels.Config(window=512, fft=512, hop=160),
    seconds=2.0,
    crops=4,
    most=(1200, 160, 480),
)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is tried as a defence.

    Attributes:
        name: As it is called in rows and on the page; of features alone, theirs.
        representation: Of sound; none: the published features alone.
        rebuild: Hides some of the frames that the encoder reads and rebuilds them, where its head is at hand.
        heard: Ids of the utterances it was trained on.
    """

    name: str
    representation: Representation | None = None
    rebuild: Rebuilding | None = None
    heard: frozenset[str] = frozenset()


@dataclass(slots=True)
class Scene:
    """Speech, features and defences.

    Attributes:
        data: Name of the speech.
        features: What is attacked, in words.
        defences: What is tried, the undefended first.
        frontend: Makes the frames that are attacked; none: samples are.
        place: Where an attacker who knows a defence goes through it.
        sets: Utterances of train, dev and test that are used.
        parts: All that they were chosen from.
        notes: What a reader must know, a sentence each.
        facts: Numbers for the page.
    """

    data: str
    features: str
    defences: tuple[Defence, ...]
    frontend: Frontend | None
    place: Place
    device: torch.device
    config: Config
    task: Label
    sets: Mapping[str, tuple[Utterance, ...]]
    parts: Partition
    seed: int
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def prepare(
        cls,
        subject: Subject,
        corpus: Corpus,
        out: Path,
        config: Config,
        seed: int,
        device: torch.device,
        say: Callable[[str], None],
    ) -> "Scene":
        """Divide and check the speech, and put the defences up.

        Raises:
            RepresentationError: The subject cannot be attacked.
            DataError: Too little can be used.
            MachineError: The folder cannot be written.
        """
        frontend, factor, words = attacked_frontend(subject, config)
        for frozen in (frontend, subject.representation, subject.rebuild):
            if frozen is not None:
                frozen.to(device).eval().requires_grad_(False)
        notes: list[str] = []
        if frontend is None:
            defences = _of_samples(subject, config, seed, device, notes)
        else:
            defences = _of_frames(subject, factor, seed, device, notes)
        task, sets, parts = _divided(corpus, out, config.most, seed, notes, say)
        heard = sum(source(each) in subject.heard for each in sets["test"])
        if heard:
            notes.append(f"{subject.name} heard {heard} of {len(sets['test'])} test utterances in its pre-training.")
        facts = {f"{name} utterances": len(chosen) for name, chosen in sets.items()}
        facts |= {f"{name} utterances in all": len(getattr(parts, name)) for name in PARTS}
        place: Place = "waveform" if frontend is None else "features"
        data = corpus.name
        return cls(data, words, defences, frontend, place, device, config, task, sets, parts, seed, notes, facts)

    @property
    def fingerprint(self) -> str:
        """Name the speech."""
        return f"{address(json.dumps([[each.id for each in self.sets[name]] for name in PARTS])):016x}"

    @property
    def most(self) -> int:
        """How many examples pass every defence once."""
        return (len(self.sets["train"]) + len(self.sets["dev"])) * self.config.crops + len(self.sets["test"])

    @property
    def samples(self) -> int:
        """Length of an example."""
        return round(self.config.seconds * SAMPLE_RATE)

    def part(self, name: str) -> Stretches:
        """Read the examples of a part, those of train and dev at places drawn.

        Raises:
            DataError: A file cannot be used.
        """
        crops, seed = (1, None) if name == "test" else (self.config.crops, self.seed)
        return self._moved(stretches(self.sets[name], self.task, self.samples, crops, seed))

    def attacked(self, count: int) -> Stretches:
        """Read the test examples that are attacked, bona fide and spoofed in turn.

        Raises:
            DataError: A file cannot be used.
        """
        chosen = balanced(self.sets["test"], self.task, count, even=True)
        half = len(chosen) // 2
        turns = [each for pair in zip(chosen[:half], chosen[half:]) for each in pair]
        return self._moved(stretches(turns, self.task, self.samples))

    def frames(self, samples: Float[Tensor, "examples samples"]) -> Float[Tensor, "examples time dim"]:
        """Compute what defences read: the features that are attacked, or samples as frames of one value."""
        return samples[:, :, None] if self.frontend is None else _frames(self.frontend, samples)

    def decibels(self, samples: Float[Tensor, "examples samples"]) -> Float[Tensor, "examples time bins"]:
        """Compute the published features, in whose units bounds are given."""
        return _frames(Decibels(self.config.features).to(self.device), samples)

    def _moved(self, found: Stretches) -> Stretches:
        return Stretches(found.samples.to(self.device), found.answers.to(self.device), found.ids)


def attacked_frontend(subject: Subject, config: Config) -> tuple[Frontend | None, int, str]:
    """Find the frontend whose frames are attacked, how many of them the network reads at once, and words for it.

    No frontend where the subject reads no spectrum: then the samples that it hears are attacked.

    Raises:
        RepresentationError: The subject hears no sound.
    """
    representation = subject.representation
    if representation is None:
        return Decibels(config.features), 1, "decibels of a power spectrum"
    if representation.reads is not None:
        raise RepresentationError(
            f"{subject.name}: reads files of features, expected a representation of sound, which can be attacked; "
            "choose another"
        )
    frontend = representation.frontend if isinstance(representation, Encoder | Features) else None
    inner = frontend.inner if isinstance(frontend, Stacked) else frontend
    if not isinstance(inner, SPECTRAL):
        return None, 1, f"samples, which {subject.name} hears"
    factor = frontend.config.factor if isinstance(frontend, Stacked) else 1
    return inner, factor, f"{inner.config.kind} frames of {inner.dim} values, as {subject.name} reads them"


def _of_frames(subject: Subject, factor: int, seed: int, device: torch.device, notes: list[str]) -> tuple[Defence, ...]:
    """Put up what reads the frames that are attacked."""
    encoder = subject.representation
    if not isinstance(encoder, Encoder):
        notes.append("No pre-trained network was given: only filters and adversarial training are tried.")
        return simple_defences()
    untrained = random_encoder(encoder.config, seed).to(device).requires_grad_(False)
    defences = states(UNTRAINED, untrained, factor), states(subject.name, encoder, factor)
    if subject.rebuild is None:
        notes.append(f"{subject.name} cannot rebuild what it reads: its head is not at hand.")
        return *simple_defences(), *defences
    return *simple_defences(), *defences, rebuilt(subject.name, subject.rebuild, factor)


def _of_samples(
    subject: Subject, config: Config, seed: int, device: torch.device, notes: list[str]
) -> tuple[Defence, ...]:
    """Put up what hears the samples that are attacked; in front of what needs no network stand published features.

    Raises:
        RepresentationError: No gradient reaches the samples.
    """
    representation, decibels = subject.representation, Decibels(config.features).to(device).eval()
    assert representation is not None
    samples = torch.randn(1, round(config.seconds * SAMPLE_RATE), 1, device=device, requires_grad=True)
    own = hears(subject.name, representation)
    if not own.view(samples, Draw(0)).requires_grad:
        raise RepresentationError(
            f"{subject.name}: no gradient reaches the samples it hears, expected a representation that lets it "
            "through; choose another"
        )
    notes.append(
        f"{subject.name} hears samples: attacks are made on the waveform alone, and what would be attacked on features "
        "is left out. Without it countermeasures read the published features."
    )
    defences = [behind(lambda samples: _frames(decibels, samples), each) for each in simple_defences()]
    if isinstance(representation, Encoder):
        untrained = random_encoder(representation.config, seed).to(device).requires_grad_(False)
        defences.append(hears(UNTRAINED, untrained))
    return *defences, own


def _divided(
    corpus: Corpus, out: Path, most: tuple[int, int, int], seed: int, notes: list[str], say: Callable[[str], None]
) -> tuple[Label, Mapping[str, tuple[Utterance, ...]], Partition]:
    """Find or make spoofs, divide, and decode what is chosen once; the last is all that there is to choose from."""
    utterances: Sequence[Utterance] = corpus.utterances
    task = spoof_task(utterances)
    if task is None:
        notes.append(
            f"Nothing in {corpus.name} is labelled as spoof: the spoofs are copies of its utterances, made from 40 mel "
            "bands by Griffin and Lim's method. No figure can be held against one of a corpus of spoofs."
        )
        say(notes[-1])
        utterances = with_copies(utterances, out / "copies", sum(most) // 4 if all(most) else COPIES, say)
        notes.append(f"{len(utterances) // 2} of its {len(corpus.utterances)} utterances were copied.")
        task = Label(Label.Config(column="spoof"))
    parts = partition(utterances, task, seed)
    there = {name: getattr(parts, name) for name in PARTS}
    chosen = {name: balanced(there[name], task, count or 2 * len(there[name])) for name, count in zip(PARTS, most)}
    health = scan(Corpus(corpus.name, sum(chosen.values(), ())), SHORTEST, cache=out / "scan.jsonl")
    quarantine = Quarantine(out / "quarantine.jsonl", anew=True)
    for refusal in health.corpus.refused:
        say(refusal.text)
        quarantine.add(refusal)
    quarantine.check(sum(map(len, chosen.values())))
    whole = {each.id: each for each in health.corpus.utterances}
    sets = {name: tuple(whole[each.id] for each in some if each.id in whole) for name, some in chosen.items()}
    used = ", ".join(f"{len(sets[name])} of {len(there[name])} of {name}" for name in PARTS)
    notes.append(f"Utterances used: {used}.")
    return task, sets, parts


def _frames(frontend: Frontend, samples: Float[Tensor, "examples samples"]) -> Float[Tensor, "examples time dim"]:
    lengths = torch.full((len(samples),), samples.shape[1], device=samples.device)
    return frontend(Waves(samples, lengths)).values
