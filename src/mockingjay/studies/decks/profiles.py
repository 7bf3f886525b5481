"""A profile says how large the decks' experiments are run: which encoders, on what speech, asked what and how.

`talking` runs on the embedded corpus in minutes, `real` on a folder of real speech in about an hour, `full` is the
published setting. A profile of one's own is a TOML file of the same keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from pydantic import Field, model_validator

from mockingjay.core import config
from mockingjay.core.errors import ConfigError, DataError
from mockingjay.core.types import Utterance
from mockingjay.data.corpora import open_corpus
from mockingjay.data.manifest import Corpus
from mockingjay.data.talking import talking
from mockingjay.downstream import fit
from mockingjay.downstream.questions import Question, question
from mockingjay.settings import Settings, settings

ENCODERS = ("base", "large", "apc")
COLUMNS = ("phone", "speaker", "sentiment")


class Recipe(config.Config):
    """How an encoder is pre-trained."""

    objective: str
    """As `mockingjay list` names it."""
    preset: str
    """A preset's name or a TOML file."""
    minutes: float | None = Field(default=None, gt=0)
    """Time for training; none: `train.steps` of the settings."""
    changes: tuple[str, ...] = ()
    """Single settings, as `path=value`."""


class Asked(config.Config):
    """What a column of the table asks."""

    task: str
    """phone, or label:<column>."""
    data: tuple[str, ...] = ()
    """Of a folder of several corpora those to ask; none: all."""
    fold: bool = True
    """Whether phones are folded to TIMIT's 39 or to 41 without stress; the deck has 72."""
    least: int = Field(default=1, ge=1)
    """Utterances that a class must have."""
    classes: int | None = Field(default=None, ge=2)
    """How many classes there must be."""
    utterances: int | None = Field(default=None, ge=8)
    """Most of them that are asked: half to learn from, an eighth to choose on, the rest to be tested on."""


class Sweep(config.Config):
    """Fewer and fewer labels."""

    shares: tuple[float, ...] = Field(default=(1.0, 0.125, 0.05, 0.01, 0.005, 0.001), min_length=2)
    """Of the seconds of labelled speech, the largest first; the deck's figure (released plots name them)."""
    seeds: int = Field(default=3, ge=1)
    """Draws of the labels, each with a head of its own."""
    columns: tuple[str, ...] = ("phone",)
    """What is asked; the deck asks for phones alone."""

    @model_validator(mode="after")
    def _falling(self) -> "Sweep":
        if list(self.shares) != sorted(set(self.shares), reverse=True) or not 0 < self.shares[-1] < self.shares[0] <= 1:
            raise ValueError("shares should fall from 1 or less and stay above 0")
        if not self.columns or not set(self.columns) <= set(COLUMNS):
            raise ValueError(f"columns should be some of {', '.join(COLUMNS)}")
        return self


class Profile(config.Config):
    """One size of the decks' experiments."""

    about: str = ""
    """What it is, for the page."""
    confirm: bool = False
    """Whether paths are checked and hours foretold first, and nothing more happens without --go."""
    minutes: float | None = Field(default=None, gt=0)
    """Of embedded corpus, which stands in where no --data is given; none: --data must be given."""
    paths: dict[str, str] = Field(default_factory=dict)
    """Corpus → its path below --data; none: --data is opened as it is."""
    heard: tuple[str, ...] = ()
    """The corpora to pre-train on; none: all."""
    mel: str = "mel"
    """The features of the first row."""
    base: Recipe
    """BASE."""
    large: Recipe
    """LARGE."""
    apc: Recipe
    """APC, as wide as BASE."""
    phone: Asked
    """The first column."""
    speaker: Asked
    """The second column."""
    sentiment: Asked
    """The third column."""
    frame: fit.Config = fit.Config(unseen="drop")
    """How frames are probed; what a row reads and trains is the row's own."""
    utterance: fit.Config = fit.Config(unseen="drop")
    """How utterances are probed."""
    labels: Sweep = Sweep()
    """How labels are made fewer."""

    def settings(self, encoder: str, seed: int) -> Settings:
        """Resolve an encoder's settings.

        Raises:
            ConfigError: A name, key or value is wrong.
        """
        recipe: Recipe = getattr(self, encoder)
        return settings(recipe.objective, recipe.preset, recipe.changes, seed)

    def budget(self, encoder: str) -> float | None:
        """Seconds of pre-training; None where steps are set."""
        minutes = getattr(self, encoder).minutes
        return None if minutes is None else 60 * minutes

    def questions(self, corpus: Corpus, seed: int) -> dict[str, Question]:
        """Put the question of every column.

        Raises:
            DataError: A corpus is not there, or its labels do not allow a question.
        """
        return {column: self._question(column, corpus, seed) for column in COLUMNS}

    def hears(self, utterance: Utterance) -> bool:
        """Whether an utterance may be pre-trained on, as far as its corpus goes."""
        return not self.heard or utterance.label("corpus") in self.heard

    def _question(self, column: str, corpus: Corpus, seed: int) -> Question:
        wanted: Asked = getattr(self, column)
        asked = question(corpus, wanted.task, wanted.data, seed=seed, fold=wanted.fold, least=wanted.least)
        found = len(asked.task.learn(asked.parts.train).outputs)
        if wanted.classes not in (None, found):
            raise DataError(
                f"{asked.data}: {column} has {found} classes, expected {wanted.classes}; mend the labels, or the "
                "profile's number of classes"
            )
        return asked if wanted.utterances is None else asked.at_most(wanted.utterances)


def profile_names() -> list[str]:
    """List the profiles that come with the package."""
    folder = files("mockingjay") / "presets" / "profiles"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_profile(name: str, changes: Sequence[str] = ()) -> Profile:
    """Read a profile by its name or from a TOML file, and change single values.

    Raises:
        ConfigError: There is no such profile, or a key or value is wrong.
    """
    path = Path(str(files("mockingjay") / "presets" / "profiles" / f"{name}.toml"))
    path = path if path.is_file() else Path(name)
    if not path.is_file():
        known = ", ".join(profile_names())
        raise ConfigError(
            f"--profile {name}: no such profile, expected one of {known} or a TOML file; check the spelling"
        )
    profile = config.validate(Profile, config.read_toml(path), path.name)
    return config.overlay(profile, config.assignments(changes))


def open_profile(profile: Profile, data: Path | None) -> Corpus:
    """Open the speech a profile is about.

    Raises:
        ConfigError: It needs a path.
        DataError: A corpus is not there; all that are missing are named.
        MachineError: The embedded corpus cannot be made.
    """
    if data is None and profile.minutes is None:
        raise ConfigError("--data: not given, expected the folder of speech that this profile is about; name it")
    if data is None:
        return replace(open_corpus(talking(minutes=profile.minutes or 0.0, workers=2)), name="talking")
    if not profile.paths:
        return open_corpus(data)
    return _joined(data, profile.paths)


def _joined(data: Path, paths: Mapping[str, str]) -> Corpus:
    """Open several corpora as one; each utterance is labelled with its corpus, and ids stay apart."""
    missing = [str(data / path) for path in paths.values() if not (data / path).exists()]
    if missing:
        raise DataError(
            f"{data}: lacks {', '.join(missing)}, expected {len(paths)} corpora; unpack them there, or write a profile "
            "with other paths"
        )
    opened = {name: open_corpus(data / path) for name, path in paths.items()}
    utterances = tuple(
        replace(each, id=f"{name}/{each.id}", labels={**each.labels, "corpus": name})
        for name, corpus in opened.items()
        for each in corpus.utterances
    )
    refused = tuple(each for corpus in opened.values() for each in corpus.refused)
    return Corpus(data.absolute().name, utterances, refused)
