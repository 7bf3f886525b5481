"""The rows of the decks' table, and the ground that the table and the sweep over labels share.

Six rows are the decks'; two are controls: BASE as it is before training, and BASE-FT2's training begun from there.
Nothing that a column is tested on is pre-trained on, not even without its labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mockingjay.core import config
from mockingjay.core.errors import ConfigError
from mockingjay.core.representation import Representation
from mockingjay.core.types import SAMPLE_RATE, Utterance
from mockingjay.core.untrusted import read_record
from mockingjay.data.manifest import Corpus
from mockingjay.data.scan import Health
from mockingjay.downstream import fit
from mockingjay.downstream.features import device_of
from mockingjay.downstream.questions import Question, learnable
from mockingjay.encoders.encoder import random_encoder
from mockingjay.open import encoder_folder, open_representation
from mockingjay.pretrain import Pretrained, examine, pretrain
from mockingjay.settings import Settings
from mockingjay.studies.cards import check_card, check_run, extend_card, tested
from mockingjay.studies.decks import statements
from mockingjay.studies.decks.profiles import ENCODERS, Profile
from mockingjay.train.distributed import device_called

EPOCHS = 2  # of fine-tuning: what the 2 in FT2 says


@dataclass(frozen=True, slots=True)
class Contestant:
    """A row: a representation and the way it is used."""

    name: str
    encoder: Literal["mel", "base", "large", "apc"]
    read: Literal["last", "mix"] = "last"
    tune: Literal["head", "all"] = "head"
    trained: bool = True

    @property
    def slug(self) -> str:
        """A name for files."""
        return self.name.lower().replace(" ", "-")

    def fitting(self, profile: Profile, question: Question, seed: int) -> fit.Config:
        """Say how this row is probed: as the profile has it, but for what is read and trained."""
        changes = {"seed": seed, "probe": {"read": self.read, "tune": self.tune}, "live": {"epochs": EPOCHS}}
        if self.tune == "head":
            del changes["live"]
        return config.overlay(getattr(profile, question.task.resolution), changes)


CONTESTANTS = (
    Contestant(statements.MEL, "mel"),
    Contestant(statements.BASE, "base"),
    Contestant(statements.LARGE, "large"),
    Contestant(statements.WS, "large", read="mix"),
    Contestant(statements.FT2, "base", tune="all"),
    Contestant(statements.APC, "apc"),
    Contestant(statements.UNTRAINED, "base", trained=False),
    Contestant(statements.SCRATCH, "base", tune="all", trained=False),
)


@dataclass(frozen=True, slots=True)
class Ground:
    """What everything is measured on.

    Attributes:
        profile: How large it all is.
        health: The corpus, decoded once.
        asked: The question of each column.
        learnt: What is pre-trained on.
        settings: Of each encoder.
        seed: Of everything random.
    """

    profile: Profile
    health: Health
    asked: dict[str, Question]
    learnt: tuple[Utterance, ...]
    settings: dict[str, Settings]
    seed: int

    def encode(self, encoder: str, folder: Path, device: str, say: Callable[[str], None]) -> Pretrained:
        """Pre-train an encoder in its folder below this one, or go on there, or find that it is done."""
        budget = self.profile.budget(encoder)
        return pretrain(self.settings[encoder], self.learnt, folder / encoder, budget=budget, device=device, say=say)

    def opened(
        self, contestant: Contestant, encoders: Path, trained: Pretrained | None, device: str
    ) -> tuple[str, Representation]:
        """Open a row's representation, with the name by which it opens again.

        Args:
            contestant: The row.
            encoders: The folder of the runs.
            trained: The row's encoder; none for features as they are.
            device: Where these go; an untrained encoder goes where the trained one is.
        """
        if trained is None:
            return self.profile.mel, open_representation(self.profile.mel).to(device_called(device))
        run = str((encoders / contestant.encoder).absolute())
        if contestant.trained:
            return run, trained.encoder
        name = f"random:{run}@{self.seed}"
        return name, open_representation(name).to(device_of(trained.encoder))

    def claim(self, out: Path, encoders: Path, card: str, what: str) -> None:
        """Refuse a folder that holds another study, or else make it this one's.

        Args:
            out: The study's folder.
            encoders: The folder of the runs.
            card: Name of the file that says which study is there.
            what: What it is called, such as `a table`.

        Raises:
            ConfigError: It does, or a folder of an encoder holds another run.
            CheckpointError: An encoder there is damaged.
        """
        dumped = self.profile.model_dump(mode="json", exclude={"about", "confirm", "labels"})
        ours = {"seed": self.seed, "profile": dumped, "tested": tested(list(self.asked.values()))}
        check_card(out / card, ours, what)
        for encoder, chosen in self.settings.items():
            check_run(encoders / encoder, chosen, self.learnt, self.profile.budget(encoder))
        extend_card(out / card, ours, what)
        self.recognise(out / card, encoders, what)
        for question in self.asked.values():
            question.parts.write(out / "splits" / f"{question.slug}.json")

    def recognise(self, card: Path, encoders: Path, what: str) -> None:
        """Write on a study's card which weights its encoders have, those that are trained by now; refuse others.

        The same settings may come to other weights: where a budget sets the steps, or on another machine.

        Args:
            card: As `claim` has written it.
            encoders: The folder of the runs.
            what: What the study is called.

        Raises:
            ConfigError: The study has measured others.
            CheckpointError: An encoder is damaged.
        """
        folders = {name: encoder_folder(encoders / name) for name in self.settings}
        extend_card(card, {f"weights of {name}": _weights(each) for name, each in folders.items() if each}, what)


def prepare(profile: Profile, corpus: Corpus, out: Path, seed: int, say: Callable[[str], None]) -> Ground:
    """Decode the corpus once, put the questions, and see that the rows can be compared.

    Raises:
        ConfigError: APC is not as wide as BASE, or a corpus to pre-train on is not there.
        DataError: Nothing can be used, or a question cannot be put.
        MachineError: The folder cannot be written, or another process is writing there.
    """
    chosen = {encoder: profile.settings(encoder, seed) for encoder in ENCODERS}
    shapes = {name: random_encoder(each.objective.encoder, seed) for name, each in chosen.items()}
    if shapes["apc"].dim != shapes["base"].dim:
        raise ConfigError(
            f"apc: {shapes['apc'].dim} wide, expected {shapes['base'].dim} as BASE is, or neither could be told from "
            "its width; choose another preset"
        )
    needs = {name: max(each.batches.minimum, shapes[name].receptive / SAMPLE_RATE) for name, each in chosen.items()}
    health = examine(corpus, chosen[max(needs, key=needs.__getitem__)], out, say)
    missing = set(profile.heard) - {each.label("corpus") for each in health.corpus.utterances}
    if missing:
        raise ConfigError(
            f"heard: no corpus {min(missing)!r} in {health.corpus.name}, expected its own; mend the profile or the path"
        )
    asked = profile.questions(health.corpus, seed)
    return Ground(profile, health, asked, _learnt(profile, health, list(asked.values())), chosen, seed)


def _weights(folder: Path) -> str:
    """Name an encoder's weights: by the hash that it was saved with and is checked against when it is loaded."""
    return str(read_record(folder / "config.json").get("sha256"))


def _learnt(profile: Profile, health: Health, asked: Sequence[Question]) -> tuple[Utterance, ...]:
    return tuple(each for each in learnable(health, asked) if profile.hears(each))
