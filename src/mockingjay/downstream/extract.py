"""Write a representation's hidden states, one file per utterance, for whatever comes next.

A file depends on its utterance alone: not on the order, on its batch-mates or on the shard. It appears whole or not at
all, so the same command again does only what is missing. `index.jsonl` says which file holds which utterance and where
its steps lie in time. A long recording is read, represented and written in stretches.
"""

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.numpy
import torch
from jaxtyping import Float

from mockingjay import audio
from mockingjay.core.draw import address
from mockingjay.core.errors import ConfigError, DataError
from mockingjay.core.files import write_atomically
from mockingjay.core.representation import Representation
from mockingjay.core.types import SAMPLE_RATE, Hidden, Utterance
from mockingjay.data.quarantine import Quarantine, Refusal
from mockingjay.data.scan import check_reads
from mockingjay.downstream.features import device_of, fingerprint, represent
from mockingjay.downstream.heads import masked_mean
from mockingjay.downstream.recordings import is_long, represent_long
from mockingjay.downstream.rows import Format, pyarrow, write_table, writing_rows

Pool = Literal["none", "mean"]


@dataclass(frozen=True, slots=True)
class Extracted:
    """What an extraction did."""

    written: int  # utterances
    kept: int  # utterances, whole from before
    short: tuple[str, ...]  # ids of those that do not give one step
    refused: int  # files that cannot be used; quarantine.jsonl names them


def extract(
    representation: Representation,
    utterances: Sequence[Utterance],
    out: Path,
    layers: str = "last",
    pool: Pool = "none",
    format: Format = "npy",
    shard: str = "1/1",
    name: str = "",
) -> Extracted:
    """Write float32 features: [time, dim] for one layer, [layers, time, dim] for several, without time where pooled.

    Args:
        representation: What is extracted.
        utterances: With ids of their own.
        out: Folder; may hold an earlier part of the same extraction.
        layers: `last`, `all`, or indices such as `0,3`.
        pool: `mean` averages over an utterance's own steps.
        format: `npy`; `safetensors` with one tensor `hidden`; `parquet` with one row per layer and step.
        shard: `k/n` takes every n-th utterance by id, from the k-th of n.
        name: Of the representation; another one is refused in the same folder, and so are other weights of that name.

    Raises:
        ConfigError: A setting is wrong, or the folder holds features of other settings.
        DataError: Two utterances share an id, a file is bad, or sound where features are read or the reverse.
        MachineError: The folder cannot be written, or pyarrow is missing for parquet.
    """
    chosen = layers_of(layers, representation.depth)
    part = _shard(utterances, shard)
    check_reads((each.path for each in part), representation.reads)
    settings = {"representation": name, "layers": chosen, "pool": pool, "format": format, "dim": representation.dim}
    _agree(out, {**settings, "weights": fingerprint(representation)})
    short = tuple(each.id for each in part if round(each.seconds * SAMPLE_RATE) < representation.receptive)
    gone = set(short)
    whole = [each for each in part if each.id not in gone]
    shapes = {each.id: _shape(out / file_of(each.id, format), format) for each in whole}
    missing = [each for each in whole if shapes[each.id] is None]
    quarantine = Quarantine(out / f"quarantine{_part(shard)}.jsonl", anew=True)
    for id, shape in _write(representation, missing, out, chosen, pool, format, quarantine):
        shapes[id] = shape
        quarantine.check(len(part))
    quarantine.check(len(part))
    done = {id: shape for id, shape in shapes.items() if shape is not None}
    _write_index(out, shard, format, representation, done)
    return Extracted(len(done) - (len(whole) - len(missing)), len(whole) - len(missing), short, len(whole) - len(done))


def read_index(out: Path) -> dict[str, dict[str, Any]]:
    """Read what is in a folder of features: id → file, shape, hop and time of the first step's centre in seconds."""
    lines = (line for index in sorted(out.glob("index*.jsonl")) for line in index.read_text("utf-8").splitlines())
    return {row["id"]: row for row in map(json.loads, lines)}


def file_of(id: str, format: Format = "npy") -> Path:
    """Name the file of an utterance: what is safe of its id, for the eye, and a hash of all of it, for the rest."""
    digest = f"{address('features', id):016x}"
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", id)[:60].strip("-")
    return Path(digest[:2]) / f"{safe}-{digest}.{format}"


def _write(
    representation: Representation,
    utterances: Sequence[Utterance],
    out: Path,
    layers: Sequence[int],
    pool: Pool,
    format: Format,
    quarantine: Quarantine,
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Write the files of utterances, and yield the id of each with what shape it has."""
    at_once = [each for each in utterances if not is_long(each)]
    for indices, hidden in represent(representation, at_once, quarantine):
        for index, array in zip(indices, _arrays(hidden, layers, pool)):
            id = at_once[index].id
            write_atomically(out / file_of(id, format), _encode(array, format, representation, pool))
            yield id, array.shape
    for utterance in filter(is_long, utterances):
        path = out / file_of(utterance.id, format)
        try:
            yield utterance.id, _write_long(representation, utterance, path, layers, pool, format)
        except audio.AudioError as error:
            quarantine.add(Refusal.of(error, utterance.id))


def _write_long(
    representation: Representation, utterance: Utterance, path: Path, layers: Sequence[int], pool: Pool, format: Format
) -> tuple[int, ...]:
    """Write a long recording's file stretch by stretch; return its shape."""
    steps, stretches = represent_long(representation.eval(), utterance, device_of(representation))
    stacks = (torch.stack([each.layers[layer][0].float() for layer in layers]).cpu() for each in stretches)
    if pool == "mean":
        total = torch.zeros(len(layers), representation.dim, dtype=torch.float64)
        for stack in stacks:
            total += stack.sum(1, dtype=torch.float64)
        mean = (total / steps).float().numpy()
        mean = mean[0] if len(layers) == 1 else mean
        write_atomically(path, _encode(mean, format, representation, pool))
        return mean.shape
    shape = (*([len(layers)] if len(layers) > 1 else []), steps, representation.dim)
    with writing_rows(path, format, shape, representation.grid) as append:
        for stack in stacks:
            append(stack.numpy())
    return shape


def _arrays(hidden: Hidden, layers: Sequence[int], pool: Pool) -> Iterator[Float[np.ndarray, "..."]]:
    """Cut a batch into its utterances' own lengths."""
    stack = torch.stack([hidden.layers[layer].float() for layer in layers])
    if pool == "mean":
        stack = masked_mean(stack, hidden.lengths)
    values = stack.cpu().numpy()
    for place, steps in enumerate(hidden.lengths.tolist()):
        array = values[:, place, 0] if pool == "mean" else values[:, place, :steps]
        yield array[0] if len(layers) == 1 else array


def layers_of(text: str, depth: int) -> tuple[int, ...]:
    """Read `last`, `all`, or indices such as `0,3`.

    Raises:
        ConfigError: It is none of them, or there is no such layer.
    """
    if text in ("last", "all"):
        return (depth - 1,) if text == "last" else tuple(range(depth))
    chosen = [int(part) if part.strip().isdecimal() else depth for part in text.split(",")]
    if max(chosen) >= depth:
        raise ConfigError(
            f"--layers {text}: expected last, all, or indices from 0 to {depth - 1} such as "
            f"0,{depth - 1}; choose among them"
        )
    return tuple(chosen)


def _shard(utterances: Sequence[Utterance], shard: str) -> list[Utterance]:
    """Every n-th utterance in the order of ids."""
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise ConfigError(f"--shard {shard}: expected k/n with k from 1 to n; write for example --shard 1/4")
    ordered = sorted(utterances, key=lambda each: each.id)
    twice = sorted({first.id for first, second in pairwise(ordered) if first.id == second.id})
    if twice:
        raise DataError(
            f"corpus: {len(twice)} ids occur twice (first {', '.join(map(repr, twice[:5]))}), "
            "expected one utterance each; "
            "rename them"
        )
    return ordered[number - 1 :: count]


def _agree(out: Path, settings: Mapping[str, Any]) -> None:
    """Refuse to mix features of different settings in one folder."""
    path = out / "extract.json"
    text = json.dumps(settings, indent=1) + "\n"
    if not path.exists():
        return write_atomically(path, text.encode())
    if path.read_text("utf-8") != text:
        raise ConfigError(
            f"{out}: holds features of other settings (extract.json), expected "
            f"{json.dumps(settings)}; choose another --out"
        )
    return None


def _encode(array: Float[np.ndarray, "..."], format: Format, representation: Representation, pool: Pool) -> bytes:
    array = np.ascontiguousarray(array)
    if format == "safetensors":
        return safetensors.numpy.save({"hidden": array})
    buffer = io.BytesIO()
    if format == "npy":
        np.save(buffer, array, allow_pickle=False)
        return buffer.getvalue()
    steps = 1 if pool == "mean" else array.shape[-2]
    write_table(buffer, iter([array.reshape(-1, array.shape[-1])]), array.shape, steps, representation.grid)
    return buffer.getvalue()


def _shape(path: Path, format: Format) -> tuple[int, ...] | None:
    """Look what shape a file holds; None where it is missing or torn."""
    try:
        if format == "npy":
            return np.load(path, mmap_mode="r", allow_pickle=False).shape
        if format == "safetensors":
            with safetensors.safe_open(path, "numpy") as file:
                return tuple(file.get_slice("hidden").get_shape())
        _, parquet = pyarrow()
        return tuple(json.loads(parquet.read_schema(path).metadata[b"shape"]))
    except (OSError, ValueError, EOFError, safetensors.SafetensorError):
        return None


def _write_index(
    out: Path, shard: str, format: Format, representation: Representation, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    grid = representation.grid
    times = {"hop": grid.hop / SAMPLE_RATE, "first": grid.centre / SAMPLE_RATE}  # seconds
    rows = [
        {"id": id, "file": file_of(id, format).as_posix(), "shape": list(shape), **times}
        for id, shape in sorted(shapes.items())
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(out / f"index{_part(shard)}.jsonl", text.encode())


def _part(shard: str) -> str:
    """Tell the lists of shards apart, for they may be written at the same time."""
    return "" if shard == "1/1" else f"-{shard.replace('/', '-of-')}"
