"""A probe on disk: probe.json says what it is and of which representation, probe.safetensors holds what was trained.

The card is written last and holds the weights' SHA-256, so a folder without a card is not a probe, and a card with
other weights is refused. A frozen representation is not stored but opened again by its name; a fine-tuned one is stored
with the head. Of a frozen one the card holds a fingerprint, for another encoder may come to lie under the name.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch

from mockingjay.core import config
from mockingjay.core.errors import CheckpointError
from mockingjay.core.files import write_atomically
from mockingjay.core.representation import Representation
from mockingjay.core.untrusted import Hollow, check_finite, parse_tensors, read_record
from mockingjay.downstream.features import fingerprint
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.tasks import build_task

FORMAT = 1


def save_probe(probe: Probe, folder: Path, name: str, row: Mapping[str, Any] | None = None) -> None:
    """Write a probe.

    Args:
        probe: As trained.
        folder: Made where it is missing.
        name: By which the representation is opened again.
        row: What the probe reached, kept on the card.

    Raises:
        MachineError: The folder cannot be written.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in probe.weights().items()}
    weights = safetensors.torch.save(tensors)
    card = {
        "format": FORMAT,
        "representation": name,
        "dim": probe.representation.dim,
        "depth": probe.representation.depth,
        "parameters": fingerprint(probe.representation) if probe.config.tune == "head" else None,
        "task": probe.task.config.model_dump(mode="json"),
        "outputs": probe.task.outputs,
        "probe": probe.config.model_dump(mode="json"),
        "layers": dict(zip(map(str, probe.mix.layers), probe.mix.weights.tolist())),
        "row": row,
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    write_atomically(folder / "probe.safetensors", weights)
    write_atomically(folder / "probe.json", (json.dumps(card, indent=1, ensure_ascii=False) + "\n").encode())


def load_probe(folder: Path, open_representation: Callable[[str], Representation]) -> Probe:
    """Rebuild a probe, in evaluation mode.

    Args:
        folder: What `save_probe` wrote.
        open_representation: Turns the stored name into the representation.

    Raises:
        CheckpointError: A file is missing, altered, or does not fit the representation.
    """
    card, weights = _read(folder)
    representation = open_representation(card["representation"])
    if (representation.dim, representation.depth) != (card["dim"], card["depth"]):
        raise CheckpointError(
            f"{folder}/probe.json: {card['representation']} has {representation.depth} layers of "
            f"{representation.dim}, expected "
            f"{card['depth']} of {card['dim']} as when the probe was trained; open the same "
            "representation or probe again"
        )
    parameters = card.get("parameters")  # older cards have none; of a fine-tuned probe they lie beside it
    if parameters and parameters != fingerprint(representation):
        raise CheckpointError(
            f"{folder}/probe.json: {card['representation']} has other weights than when the probe was trained, "
            "expected the same; put them back or probe again"
        )
    where = f"{folder}/probe.json"
    task = build_task(card["task"], tuple(card["outputs"]), where)
    settings = config.validate(Probe.Config, card["probe"], where)
    tensors = parse_tensors(weights, folder / "probe.safetensors")
    with Hollow():  # a stranger's card may ask for any size; the file holds what it holds
        own = {name: value.shape for name, value in Probe(representation, task, settings).weights().items()}
    if {name: value.shape for name, value in tensors.items()} != own:
        raise CheckpointError(
            f"{folder}/probe.safetensors: its tensors do not fit probe.json, expected {len(own)} of "
            "its shapes; probe again"
        )
    check_finite(tensors, folder / "probe.safetensors")
    probe = Probe(representation, task, settings)
    probe.load_state_dict(tensors, strict=False)
    return probe.eval()


def _read(folder: Path) -> tuple[dict[str, Any], bytes]:
    try:
        card = read_record(folder / "probe.json")
        weights = (folder / "probe.safetensors").read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{error.filename}: {error.strerror}, expected a probe's folder with probe.json and "
            "probe.safetensors; check the path"
        ) from None
    kinds = {"representation": str, "dim": int, "depth": int, "task": dict, "outputs": list, "probe": dict}
    whole = all(isinstance(card.get(name), kind) for name, kind in kinds.items())
    if card.get("format") != FORMAT or not whole or not all(isinstance(each, str) for each in card["outputs"]):
        raise CheckpointError(
            f"{folder}/probe.json: not a probe's card of format {FORMAT}; use the mockingjay version that wrote it"
        )
    if hashlib.sha256(weights).hexdigest() != card.get("sha256"):
        raise CheckpointError(
            f"{folder}/probe.safetensors: does not match the SHA-256 in probe.json, expected the file that was saved; "
            "copy it again or probe again"
        )
    return card, weights
