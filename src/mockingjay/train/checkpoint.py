"""A checkpoint is a folder that becomes true in one rename, and is believed only while every byte is as it was written.

checkpoints/step-001200/ {model.safetensors, optimizer.safetensors, state.json, MANIFEST.json}

It is written into a temporary sibling, file by file to the disk, the manifest of SHA-256 sums last; then the folder is
renamed, read back, and only then are older ones retired. Whenever the machine stops, the old checkpoint or the new one
is whole.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor, nn

from mockingjay.core.errors import CheckpointError, MachineError
from mockingjay.core.files import sync_folder, writing
from mockingjay.core.untrusted import parse_record, parse_tensors

FORMAT = 1
_FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
_MANIFEST = "MANIFEST.json"
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything a resumed run needs: data order, learning rate and randomness are functions of the step."""

    step: int  # steps done
    model: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    notes: dict[str, Any] = field(default_factory=dict)  # the caller's, of JSON's types


def save(folder: Path, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Write a checkpoint and retire the older ones.

    Args:
        folder: The run's `checkpoints` folder.
        checkpoint: What to write.
        keep: How many whole ones stay, at least 2.

    Raises:
        MachineError: The disk is full, read-only or not ours to write; older checkpoints are as they were.
        CheckpointError: What was written does not read back.
    """
    assert keep >= 2
    target = folder / _name(checkpoint.step)
    if target.is_dir() and not damage(target):
        return target
    temporary = _temporary(folder)
    with writing(target, _bytes(checkpoint)):
        try:
            temporary.mkdir(parents=True)
            _fill(temporary, checkpoint)
            if target.exists():  # a damaged one of the same step
                target.rename(_temporary(folder))
            temporary.rename(target)
            sync_folder(folder)
        except BaseException:
            # Also on a second Ctrl-C. What cannot be removed, say on a read-only disk, is swept at the next start.
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    if fault := damage(target):
        raise CheckpointError(
            f"{target}: {fault}, right after it was written, expected what was saved; look after the disk"
        )
    with writing(folder, 0):
        _retire(folder, keep, target)
    return target


def load(path: Path) -> Checkpoint:
    """Read one checkpoint folder.

    Raises:
        CheckpointError: A file is missing, cut or altered.
    """
    contents: dict[str, bytes] = {}
    if fault := damage(path, contents):
        raise CheckpointError(
            f"{path}: {fault}, expected the file that was saved; remove this folder to use an older one"
        )
    # A manifest says that nobody altered the files by chance; who made both could have written anything.
    model, optimiser = (parse_tensors(contents[name], path / name) for name in _FILES[:2])
    state = parse_record(contents["state.json"], path / "state.json")
    step, notes = state.get("step"), state.get("notes")
    if not isinstance(step, int) or step < 0 or not isinstance(notes, dict):
        raise CheckpointError(f"{path}/state.json: no step and notes, expected the file that was saved; copy it again")
    return Checkpoint(step, model, optimiser, notes)


def load_latest(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """Read the newest whole checkpoint; None where there is none at all.

    Args:
        folder: The run's `checkpoints` folder.
        warn: Told one sentence for each damaged checkpoint that is passed over.

    Raises:
        CheckpointError: There are checkpoints, and none is whole.
    """
    faults = []
    for path in _newest_first(folder):
        try:
            checkpoint = load(path)
        except CheckpointError as error:
            faults.append(str(error))
            continue
        for fault in faults:
            warn(f"{fault}; going on from {path.name}")
        return checkpoint
    if faults:
        raise CheckpointError(f"{faults[0]}; none of the {len(faults)} checkpoints is whole")
    return None


def fingerprint_of(tensors: Mapping[str, Tensor]) -> str:
    """Name tensors by the SHA-256 of the file they would be."""
    digest = hashlib.sha256()
    for chunk in _stream(tensors):
        digest.update(chunk)
    return digest.hexdigest()


def sweep(run: Path, keep: int = 2) -> None:
    """Remove what a killed writer left anywhere in a run's folder, and the checkpoint it had no time to retire.

    Only for whom holds the run's lock.
    """
    for path in run.rglob(".tmp-*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if len(_newest_first(run / "checkpoints")) > keep:
        _retire(run / "checkpoints", keep)


def damage(path: Path, contents: dict[str, bytes] | None = None) -> str | None:
    """Say what is wrong with a checkpoint folder; None where it is whole.

    The manifest is compared with the one the files would have now, byte for byte, so that it needs no sum of its own.

    Args:
        path: The checkpoint's folder.
        contents: Filled with the bytes that were looked at, so that what is loaded is what was verified.
    """
    entries = {}
    for name in _FILES:
        try:
            content = (path / name).read_bytes()
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        entries[name] = _entry(content)
        if contents is not None:
            contents[name] = content
    try:
        written = (path / _MANIFEST).read_bytes()
    except OSError as error:
        return f"{_MANIFEST} cannot be read ({error.strerror})"
    if written == _manifest(path.name, entries):
        return None
    return _blame(written, entries)


def estimate_bytes(learner: nn.Module, keep: int = 2) -> int:
    """Estimate the room that a run's checkpoints take: weights, two moments, and one more checkpoint than are kept."""
    weights = sum(value.nbytes for value in learner.state_dict().values())
    moments = 2 * sum(each.nbytes for each in learner.parameters() if each.requires_grad)
    return (weights + moments) * (keep + 1)


def check_room(folder: Path, need: int) -> None:
    """Find out before the first step whether checkpoints can be written; those that lie there will make room.

    Args:
        folder: The run's `checkpoints` folder; made if need be.
        need: Bytes, from `estimate_bytes`.

    Raises:
        MachineError: There is too little room, or no permission.
    """
    probe = _temporary(folder)
    with writing(folder, need):
        folder.mkdir(parents=True, exist_ok=True)
        probe.mkdir()
        try:
            _write(probe / "probe", [b"mockingjay"])
            sync_folder(probe)
        finally:
            shutil.rmtree(probe, ignore_errors=True)
        free = shutil.disk_usage(folder).free
        need -= sum(file.stat().st_size for file in folder.glob("step-*/*"))
    if free < need:
        raise MachineError(
            f"{folder}: {need / 1e6:.1f} MB needed for checkpoints, {free / 1e6:.1f} MB free; free some space or "
            "choose another --out"
        )


def _fill(folder: Path, checkpoint: Checkpoint) -> None:
    state = {"step": checkpoint.step, "notes": checkpoint.notes}
    streams = {
        "model.safetensors": _stream(checkpoint.model),
        "optimizer.safetensors": _stream(checkpoint.optimiser),
        "state.json": [(json.dumps(state, indent=2, allow_nan=False) + "\n").encode()],
    }
    entries = {name: _write(folder / name, stream) for name, stream in streams.items()}
    _write(folder / _MANIFEST, [_manifest(_name(checkpoint.step), entries)])
    sync_folder(folder)


def _write(path: Path, chunks: Iterable[bytes | memoryview]) -> dict[str, Any]:
    """Write a file through to the disk; return its entry in the manifest."""
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def _stream(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """Serialise as safetensors, one tensor at a time, so that a save needs no second copy of the model in memory.

    Length of the header in 8 bytes, the header in JSON padded to 8, the tensors' bytes; wide types first keeps all
    aligned.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header, at = {}, 0
    for name in names:
        end = at + tensors[name].nbytes
        kind = _TYPES[tensors[name].dtype]
        header[name] = {"dtype": kind, "shape": list(tensors[name].shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy().data


def _entry(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _manifest(name: str, entries: Mapping[str, Any]) -> bytes:
    return (json.dumps({"checkpoint": name, "format": FORMAT, "files": entries}, indent=2) + "\n").encode()


def _blame(manifest: bytes, entries: Mapping[str, Any]) -> str:
    """Name the file that is not as the manifest says; the manifest itself where all are."""
    try:
        recorded = parse_record(manifest, Path(_MANIFEST))
        files, version = recorded["files"], recorded["format"]
        for name, entry in entries.items():
            if entry["bytes"] < files[name]["bytes"]:
                return f"{name} is cut at {entry['bytes']} of {files[name]['bytes']} bytes"
            if entry != files[name]:
                return f"{name} does not match its SHA-256"
        if version != FORMAT:
            return f"{_MANIFEST} has format {version}, this version writes {FORMAT}"
    except (CheckpointError, KeyError, TypeError):
        pass  # what cannot be read as a manifest is damaged itself
    return f"{_MANIFEST} is damaged"


def _retire(folder: Path, keep: int, verified: Path | None = None) -> None:
    """Remove all but the newest `keep` whole ones; renamed first, so that none is ever seen half gone.

    Args:
        folder: The run's `checkpoints` folder.
        keep: How many stay.
        verified: One that has just been read back.
    """
    whole = 0
    for path in _newest_first(folder):
        if whole < keep and (path == verified or damage(path) is None):
            whole += 1
            continue
        gone = _temporary(folder)
        path.rename(gone)
        shutil.rmtree(gone)


def _newest_first(folder: Path) -> list[Path]:
    """Order by the step in the name; clocks may jump."""
    found = {}
    for path in folder.glob("step-*"):
        with suppress(ValueError):
            found[int(path.name.removeprefix("step-"))] = path
    return [found[step] for step in sorted(found, reverse=True)]


def _name(step: int) -> str:
    return f"step-{step:06d}"


def _temporary(folder: Path) -> Path:
    return folder / f".tmp-{os.getpid()}-{uuid4().hex[:8]}"


def _bytes(checkpoint: Checkpoint) -> int:
    return sum(value.nbytes for tensors in (checkpoint.model, checkpoint.optimiser) for value in tensors.values())
