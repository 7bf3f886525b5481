"""Other people's checkpoints → our encoders: s3prl's Mockingjay, TERA and Audio ALBERT, and BERT-like folders.

A `states-*.ckpt` is a pickle, which can be a program. Here is the only place that opens one, for `mockingjay import`
alone, and torch builds nothing from it but tensors and plain values; of the objects that the releases left in their
files, inert stand-ins take the place. There is no second, more trusting attempt. What is kept is checked tensor by
tensor and saved as safetensors, so this happens once.

Both layouts are BERT's (s3prl, upstream/mockingjay/model.py; code): post-norm layers with separate query, key and value
matrices behind an input projection and sinusoidal positions.
"""

import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # the name of what torch raises, nothing more
from typing import Any

import torch
from torch import Tensor

from mockingjay.core import config
from mockingjay.core.errors import CheckpointError
from mockingjay.core.untrusted import check_finite, parse_tensors, printable, read_record
from mockingjay.encoders.contexts import SharedTransformer
from mockingjay.encoders.encoder import Encoder, shapes
from mockingjay.encoders.frontends import FrontendConfig
from mockingjay.representations.releases import Shape, context_of, frontend_of, table


class StandIn:
    """Takes the place of an object of a foreign class, and keeps nothing of it."""

    def __new__(cls, *arguments: object) -> "StandIn":
        """Make one of whatever arguments."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Forget the state."""


_MODULES = ("optimizers", "s3prl.optimizers", "transformer.optimization", "mockingjay.optimization")
_SCHEDULES = ("WarmupLinearSchedule", "WarmupConstantSchedule", "WarmupCosineSchedule", "ConstantLR")
STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (StandIn, "argparse.Namespace"),  # the command line of those who trained it
    *((StandIn, f"{module}.{name}") for module in _MODULES for name in _SCHEDULES),
]

# What torch raises where a file is not what it should be.
_TORN = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, EOFError, ArithmeticError,
    MemoryError, ImportError, struct.error, zipfile.BadZipFile,
)  # fmt: skip

_BELOW = re.compile(r"(?:\w+\.)?((?:encoder\.layer|input_representations|embeddings|feature_projection)\..+)")
_PROJECTIONS = ("input_representations.spec_transform", "embeddings.projection", "feature_projection.projection")
_NORMS = ("input_representations.LayerNorm", "embeddings.LayerNorm", "feature_projection.layer_norm")
_ASKERS = tuple(f"attention.self.{name}" for name in ("query", "key", "value"))
_INSIDE = {  # theirs inside a layer → ours
    "attention.output.dense": "attention.out",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "widen",
    "output.dense": "narrow",
    "output.LayerNorm": "feedforward_norm",
}


@dataclass(frozen=True, slots=True)
class Foreign:
    """A foreign checkpoint, read and checked.

    Attributes:
        encoder: What it is here.
        names: Our name of each tensor → theirs; query, key and value become one.
        left: What was not taken over.
    """

    encoder: Encoder
    names: Mapping[str, tuple[str, ...]]
    left: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """What a file holds: settings of the transformer and of the features, tensors by the releases' names, the rest."""

    sizes: Mapping[str, Any]
    features: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    left: tuple[str, ...]


def read_foreign(path: Path, frontend: FrontendConfig | None = None) -> Foreign:
    """Read a foreign checkpoint into an encoder.

    Args:
        path: s3prl's `states-*.ckpt`, or a folder with a BERT-like config.json and model.safetensors.
        frontend: What makes the frames it reads; None: as its settings say.

    Raises:
        CheckpointError: It is none of these, holds more than weights and plain values, or is damaged.
        ConfigError: Its settings are wrong.
    """
    found = _read_folder(path) if path.is_dir() else _read_states(path)
    shape = context_of(found.sizes, str(path))
    names = _names(shape, found.tensors, path)
    width = ([0, *found.tensors[names["context.project.weight"][0]].shape])[-1]
    chosen = frontend_of(frontend, found.features, found.sizes, width, str(path))
    settings = config.validate(
        Encoder.Config, {"frontend": chosen.model_dump(), "context": shape.model_dump()}, str(path)
    )
    expected = shapes(settings, str(path))
    taken = {name: _join([found.tensors[each] for each in theirs]) for name, theirs in names.items()}
    for name, theirs in names.items():
        if taken[name].shape != expected[name]:
            raise CheckpointError(
                f"{path}: {' + '.join(theirs)} has shape {tuple(taken[name].shape)}, expected {tuple(expected[name])} "
                "by its settings; ask its author for the file that belongs to them"
            )
    check_finite(taken, path)
    encoder = Encoder(settings)
    encoder.load_state_dict(taken)
    return Foreign(encoder.eval(), names, found.left)


def import_foreign(
    path: Path, out: Path, frontend: FrontendConfig | None = None, say: Callable[[str], None] = lambda line: None
) -> Encoder:
    """Write a foreign checkpoint as an encoder folder, and say which tensor became which.

    Raises:
        CheckpointError: As `read_foreign`.
        ConfigError: As `read_foreign`.
        MachineError: The folder cannot be written.
    """
    found = read_foreign(path, frontend)
    encoder, own = found.encoder, found.encoder.state_dict()
    for name, theirs in found.names.items():
        say(f"{' + '.join(theirs)} -> {name} {tuple(own[name].shape)}")
    if found.left:
        say(f"left behind: {', '.join(found.left)}")
    encoder.save(
        out,
        f"# Imported from {path.name}\n\n{len(found.names)} tensors, checked for shape and finiteness; {encoder.depth} "
        f"layers of width {encoder.dim}, one step every {encoder.hop} samples.\n",
    )
    return encoder


def _read_folder(path: Path) -> _Found:
    try:
        sizes = read_record(path / "config.json")
        content = (path / "model.safetensors").read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{error.filename}: {error.strerror}, expected config.json and model.safetensors; check the path"
        ) from None
    tensors = parse_tensors(content, path / "model.safetensors")
    # Heads stand beside the encoder under names of their own; the encoder may stand below its family's name.
    ours = {name: found[1] for name in tensors if (found := _BELOW.fullmatch(name))}
    taken = {short: tensors[name] for name, short in ours.items()}
    if len(taken) < len(ours):
        raise CheckpointError(f"{path}/model.safetensors: two encoders, expected one; save it by itself")
    return _Found(sizes, {}, taken, tuple(map(printable, sorted(tensors.keys() - ours.keys()))))


def _read_states(path: Path) -> _Found:
    states = _load(path)
    if not isinstance(states, dict) or not isinstance(
        weights := states.get("Transformer", states.get("Mockingjay")), dict
    ):
        raise CheckpointError(
            f"{path}: no table 'Transformer' of weights, expected s3prl's states of Mockingjay, TERA or Audio ALBERT; "
            "choose such a file"
        )
    room = path.stat().st_size
    for name, value in weights.items():
        if not isinstance(name, str) or not _is_dense(value, room):
            raise CheckpointError(
                f"{path}: {name!r:.80} is no dense tensor whose values are in the file, expected weights; "
                "ask its author for another copy"
            )
    # The first releases kept TensorFlow's names for the parts of a LayerNorm.
    tensors = {re.sub("gamma$", "weight", re.sub("beta$", "bias", name)): value for name, value in weights.items()}
    # Settings stand beside the weights: the upstream's own, the runner's, or in the first releases under "Settings".
    tables = [table(states, "Upstream_Config"), table(states, "Config"), table(table(states, "Settings"), "Config")]
    settings = next((each for each in tables if "transformer" in each or "mockingjay" in each), {})
    return _Found(
        sizes=table(settings, "transformer") or table(settings, "mockingjay"),
        features=table(settings, "audio") or table(settings, "online"),
        tensors=tensors,
        left=tuple(printable(name) for name in states if name not in ("Transformer", "Mockingjay")),
    )


def _load(path: Path) -> Any:
    """Have torch read tensors and plain values, and nothing else whatever happens."""
    mend = "ask its author for safetensors"
    if not path.is_file():  # a pipe would never end
        raise CheckpointError(f"{path}: no such file, expected a checkpoint or a folder with one; check the path")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                packed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise CheckpointError(f"{path}: {packed[0]!r} is compressed, expected a file of torch.save; {mend}")
        with torch.serialization.safe_globals(STAND_INS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on what is refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}, expected a checkpoint; check the path") from None
    except UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"asks for {wanted[1]}, which might run code" if wanted else "holds more than weights and plain values"
        raise CheckpointError(f"{path}: {what}, expected tensors alone; {mend}") from None
    except _TORN as error:
        reason = printable(error) or type(error).__name__
        raise CheckpointError(f"{path}: cannot be read ({reason}), expected a file of torch.save; {mend}") from None


def _is_dense(value: object, room: int) -> bool:
    """Whether a value is a tensor of floats whose every element lies in the file: no few bytes seen as billions."""
    if not isinstance(value, Tensor) or type(value) not in (Tensor, torch.nn.Parameter):
        return False
    dense = value.layout == torch.strided and value.device.type == "cpu" and value.is_floating_point()
    return dense and value.nbytes <= min(room, value.untyped_storage().nbytes())


def _names(shape: Shape, tensors: Mapping[str, Tensor], path: Path) -> dict[str, tuple[str, ...]]:
    """Map our names to theirs; every one of theirs is used, and none is missing.

    Raises:
        CheckpointError: One is missing, or unknown.
    """
    names: dict[str, tuple[str, ...]] = {}
    parts = ("weight", "bias")
    for ours, candidates in {"project": _PROJECTIONS, "norm": _NORMS}.items():
        theirs = next((each for each in candidates if f"{each}.weight" in tensors), candidates[0])
        names |= {f"context.{ours}.{part}": (f"{theirs}.{part}",) for part in parts}
    shared = isinstance(shape, SharedTransformer.Config)
    # No more layers than could be there, whatever the settings say.
    for layer in range(1 if shared else min(shape.layers, len(tensors))):
        below, ours = f"encoder.layer.{layer}", "context.block" if shared else f"context.blocks.{layer}"
        for part in parts:
            names[f"{ours}.attention.query_key_value.{part}"] = tuple(f"{below}.{each}.{part}" for each in _ASKERS)
            names |= {f"{ours}.{mine}.{part}": (f"{below}.{each}.{part}",) for each, mine in _INSIDE.items()}
    used = {each for theirs in names.values() for each in theirs}
    copies = _copies(shape.layers, tensors, path) if shared else set()
    lacking, strange = sorted(used - tensors.keys()), sorted(tensors.keys() - used - copies)
    if lacking or strange:
        what = f"lacks {lacking[0]!r}" if lacking else f"holds {strange[0]!r} besides"
        raise CheckpointError(
            f"{path}: {what} ({len(lacking)} names missing, {len(strange)} unknown), expected {len(used)} tensors: "
            "a post-norm transformer of the settings' layers behind an input projection; choose such a file"
        )
    return names


def _copies(layers: int, tensors: Mapping[str, Tensor], path: Path) -> set[str]:
    """List the further copies of a shared layer.

    Raises:
        CheckpointError: One differs.
    """
    copies = set()
    for name, value in tensors.items():
        layer = re.fullmatch(r"encoder\.layer\.(\d{1,4})\.(.+)", name)
        if layer is None or not 0 < int(layer[1]) < layers:
            continue
        original = tensors.get(f"encoder.layer.0.{layer[2]}")
        if original is None or not torch.equal(value, original):
            raise CheckpointError(
                f"{path}: {name!r} is not as in layer 0, expected one layer shared by all; "
                "ask its author for the settings that belong to it"
            )
        copies.add(name)
    return copies


def _join(parts: list[Tensor]) -> Tensor:
    """Put query, key and value on top of each other; what does not fit together is left to be named by its shape."""
    fits = len({part.shape for part in parts}) == 1 and parts[0].dim() > 0
    return torch.cat([part.detach().float() for part in parts]) if fits else parts[0].detach().float()
