"""The only place where a name becomes a representation; downstream and studies are handed objects."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mockingjay.core.config import read_toml, validate
from mockingjay.core.errors import ConfigError, RepresentationError
from mockingjay.core.representation import Representation
from mockingjay.core.types import SAMPLE_RATE, Utterance
from mockingjay.data.batches import Once
from mockingjay.data.manifest import read_manifest
from mockingjay.encoders.encoder import Encoder, random_encoder
from mockingjay.encoders.frontends import FrontendConfig, Precomputed, build_frontend
from mockingjay.encoders.frontends.fbank import Fbank
from mockingjay.encoders.frontends.linear import Linear
from mockingjay.encoders.frontends.log_mel import MOCKINGJAY_160, TERA_80
from mockingjay.encoders.frontends.mfcc import MFCC
from mockingjay.objectives import OBJECTIVES, ObjectiveConfig, build_objective
from mockingjay.objectives.masked_reconstruction import MaskedReconstruction
from mockingjay.objectives.objective import Objective
from mockingjay.representations.features import Features
from mockingjay.settings import Settings, settings
from mockingjay.train.checkpoint import load_latest

FEATURES: Mapping[str, FrontendConfig] = {
    "mel": TERA_80,
    "mel160": MOCKINGJAY_160,
    "fbank": Fbank.Config(),
    "linear": Linear.Config(),
    "mfcc": MFCC.Config(),
}

NAMES = (
    *FEATURES,
    "precomputed:<values a frame>",
    "random:<objective>[/<preset>]",
    "random:<run or encoder folder>",
    "<run or encoder folder>",
)


def open_representation(name: str, seed: int = 0, utterances: Sequence[Utterance] = ()) -> Representation:
    """Open a representation by name, in evaluation mode on the CPU.

    Args:
        name: Features as they are (`mel`, `mel160`, `fbank`, `linear`, `mfcc`; `precomputed:40` reads files that hold
            40 values a frame), a run or encoder folder, or `random:` before an objective (with `/preset`) or a folder:
            the same encoder, untrained.
        seed: Of a random encoder's weights, where the name does not end in `@<seed>`.
        utterances: What an untrained encoder of no run measures where its frontend keeps statistics of a corpus.

    Raises:
        RepresentationError: Nothing of that name is known.
        CheckpointError: The folder holds a damaged encoder.
    """
    features = named_frontend(name)
    if features is not None:
        return Features(build_frontend(features)).eval()
    scheme, _, rest = name.partition(":")
    if scheme in _SCHEMES and rest:
        return _SCHEMES[scheme](rest, seed, utterances)
    folder = encoder_folder(Path(name))
    if folder is None:
        known = ", ".join(NAMES)
        raise RepresentationError(
            f"{name}: no such representation, expected one of {known}; check the spelling or path"
        )
    return Encoder.load(folder)


def open_objective(run: Path, say: Callable[[str], None]) -> tuple[Objective, Settings] | None:
    """Open a run's objective with its heads as of its last whole checkpoint, in evaluation mode, and its settings.

    Args:
        run: The run's folder, finished or not.
        say: Told of each damaged checkpoint that is passed over.

    Returns:
        None where the folder holds no run that has begun.

    Raises:
        ConfigError: Its config.toml is damaged.
        CheckpointError: None of its checkpoints is whole.
    """
    if not (run / "config.toml").is_file():
        return None
    chosen = validate(Settings, read_toml(run / "config.toml"), str(run / "config.toml"))
    saved = load_latest(run / "checkpoints", say)
    if saved is None:
        return None
    learner = build_objective(chosen.objective)
    learner.listen(open_representation)
    learner.load_state_dict(saved.model)
    return learner.eval(), chosen


def open_start(name: str, chosen: ObjectiveConfig, say: Callable[[str], None]) -> Encoder | Objective:
    """Open what pre-training goes on from: an encoder, or what adapts a run's network all of its objective.

    Args:
        name: A run or encoder folder.
        chosen: The objective that is to go on.
        say: Told of each damaged checkpoint that is passed over.

    Raises:
        ConfigError: There is no encoder of ours, or not the head that rests in adaptation.
        RepresentationError: Nothing of that name is known.
        CheckpointError: The folder holds a damaged encoder, or none of the run's checkpoints is whole.
    """
    encoder = open_representation(name)
    if not isinstance(encoder, Encoder):
        raise ConfigError(f"--init {name}: not an encoder of ours, expected a run or encoder folder; choose one")
    if not (isinstance(chosen, MaskedReconstruction.Config) and chosen.adapts):
        return encoder
    run, _ = run_of(name)
    opened = open_objective(run, say) if run is not None else None
    if opened is None or not isinstance(opened[0], MaskedReconstruction):
        raise ConfigError(
            f"--init {name}: an encoder without the head that was trained with it and rests in adaptation, "
            f"expected a run of {chosen.kind} with its checkpoints; name its folder"
        )
    return opened[0]


def run_of(name: str) -> tuple[Path | None, frozenset[str]]:
    """Find the run that a name belongs to, and the ids of the utterances it has trained on; none of what is no run.

    Raises:
        DataError: Its corpus.jsonl is damaged.
    """
    folder = encoder_folder(Path(name))
    run = folder.parent if folder is not None and folder.name == "encoder" else folder
    if run is None or not (run / "corpus.jsonl").is_file():
        return run, frozenset()
    return run, frozenset(each.id for each in read_manifest(run / "corpus.jsonl").utterances if each.split == "train")


def lasting_name(name: str, seed: int = 0) -> str:
    """Write a name so that it opens the same from another working folder, and without a seed beside it."""
    if named_frontend(name) is not None:
        return name
    scheme, _, rest = name.partition(":")
    if scheme in _SCHEMES and rest:
        bare, seed = _seeded(rest, seed)
        return f"{scheme}:{bare if encoder_folder(Path(bare)) is None else Path(bare).absolute()}@{seed}"
    return str(Path(name).absolute())


def kept_name(representation: Representation, name: str, seed: int, folder: Path) -> str:
    """Give a name by which just this representation opens again.

    That is its lasting name, but for an untrained encoder that has measured a corpus: it is saved in the folder, for
    its name does not tell which corpus that was.

    Raises:
        MachineError: The folder cannot be written.
    """
    scheme, _, rest = name.partition(":")
    measured = isinstance(representation, Encoder) and representation.frontend.state_dict()
    if scheme != "random" or not measured or encoder_folder(Path(_seeded(rest, seed)[0])) is not None:
        return lasting_name(name, seed)
    assert isinstance(representation, Encoder)
    representation.save(folder / "untrained")
    return str((folder / "untrained").absolute())


def named_frontend(name: str) -> FrontendConfig | None:
    """Find the frontend of a name such as `mel` or `precomputed:40`; None where the name is no frontend's."""
    scheme, _, dim = name.partition(":")
    if scheme == "precomputed" and dim.isdecimal():
        return validate(Precomputed.Config, {"dim": int(dim)}, name)
    return FEATURES.get(name)


def encoder_folder(path: Path) -> Path | None:
    """Find the encoder in a run folder or in the folder itself."""
    for folder in (path / "encoder", path):
        if (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
            return folder
    return None


def _seeded(rest: str, seed: int) -> tuple[str, int]:
    """Take the seed off the end of a name."""
    bare, _, digits = rest.rpartition("@")
    return (bare, int(digits)) if bare and digits.isdecimal() and encoder_folder(Path(rest)) is None else (rest, seed)


def _random(rest: str, seed: int, utterances: Sequence[Utterance]) -> Representation:
    rest, seed = _seeded(rest, seed)
    folder = encoder_folder(Path(rest))
    if folder is not None:
        trained = Encoder.load(folder)
        untrained = random_encoder(trained.config, seed)
        if next(untrained.frontend.parameters(), None) is None:  # what it measured of a corpus is no learning
            untrained.frontend.load_state_dict(trained.frontend.state_dict())
        return untrained
    objective, _, preset = rest.partition("/")
    if objective not in OBJECTIVES:
        known = ", ".join(OBJECTIVES)
        raise RepresentationError(
            f"random:{rest}: neither an encoder folder nor an objective, expected one of {known}; "
            "check the spelling or path"
        )
    chosen = settings(objective, preset or None)
    encoder = random_encoder(chosen.objective.encoder, seed)
    heard = [each for each in utterances if round(each.seconds * SAMPLE_RATE) >= encoder.receptive]
    if heard:
        whole = chosen.batches.model_copy(update={"minimum": 0.0})
        encoder.frontend.fit(batch.waves for batch in Once(heard, whole))
    return encoder


_SCHEMES: Mapping[str, Callable[[str, int, Sequence[Utterance]], Representation]] = {"random": _random}
