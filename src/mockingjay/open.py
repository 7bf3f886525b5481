"""The only place where a name becomes a representation; downstream and studies are handed objects."""

from collections.abc import Callable, Mapping
from pathlib import Path

from mockingjay.core.errors import RepresentationError
from mockingjay.core.representation import Representation
from mockingjay.encoders.encoder import Encoder, random_encoder
from mockingjay.encoders.frontends import FrontendConfig, build_frontend
from mockingjay.encoders.frontends.fbank import Fbank
from mockingjay.encoders.frontends.linear import Linear
from mockingjay.encoders.frontends.log_mel import MOCKINGJAY_160, TERA_80
from mockingjay.encoders.frontends.mfcc import MFCC
from mockingjay.objectives import OBJECTIVES
from mockingjay.representations.features import Features
from mockingjay.settings import settings

FEATURES: Mapping[str, FrontendConfig] = {
    "mel": TERA_80,
    "mel160": MOCKINGJAY_160,
    "fbank": Fbank.Config(),
    "linear": Linear.Config(),
    "mfcc": MFCC.Config(),
}

NAMES = (*FEATURES, "random:<objective>[/<preset>]", "random:<run or encoder folder>", "<run or encoder folder>")


def open_representation(name: str, seed: int = 0) -> Representation:
    """Open a representation by name, in evaluation mode on the CPU.

    Args:
        name: Features as they are (`mel`, `mel160`, `fbank`, `linear`, `mfcc`), a run or encoder folder, or `random:`
            before an objective (with `/preset`) or a folder: the same encoder, untrained.
        seed: Of a random encoder's weights, where the name does not end in `@<seed>`.

    Raises:
        RepresentationError: Nothing of that name is known.
        CheckpointError: The folder holds a damaged encoder.
    """
    if name in FEATURES:
        return Features(build_frontend(FEATURES[name])).eval()
    scheme, _, rest = name.partition(":")
    if scheme in _SCHEMES and rest:
        return _SCHEMES[scheme](rest, seed)
    folder = encoder_folder(Path(name))
    if folder is None:
        known = ", ".join(NAMES)
        raise RepresentationError(
            f"{name}: no such representation, expected one of {known}; check the spelling or path"
        )
    return Encoder.load(folder)


def lasting_name(name: str, seed: int = 0) -> str:
    """Write a name so that it opens the same from another working folder, and without a seed beside it."""
    if name in FEATURES:
        return name
    scheme, _, rest = name.partition(":")
    if scheme in _SCHEMES and rest:
        bare, seed = _seeded(rest, seed)
        return f"{scheme}:{bare if encoder_folder(Path(bare)) is None else Path(bare).absolute()}@{seed}"
    return str(Path(name).absolute())


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


def _random(rest: str, seed: int) -> Representation:
    rest, seed = _seeded(rest, seed)
    folder = encoder_folder(Path(rest))
    if folder is not None:
        return random_encoder(Encoder.load(folder).config, seed)
    objective, _, preset = rest.partition("/")
    if objective not in OBJECTIVES:
        known = ", ".join(OBJECTIVES)
        raise RepresentationError(
            f"random:{rest}: neither an encoder folder nor an objective, expected one of {known}; "
            "check the spelling or path"
        )
    return random_encoder(settings(objective, preset or None).objective.encoder, seed)


_SCHEMES: Mapping[str, Callable[[str, int], Representation]] = {"random": _random}
