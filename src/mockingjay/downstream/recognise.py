"""A phone probe becomes what SLU BERT listens to: its settings fill in the frontend's, its weights are taken over."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mockingjay.core import config
from mockingjay.core.errors import ConfigError
from mockingjay.core.representation import Representation
from mockingjay.downstream.heads import Pointwise
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.storage import load_probe
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends import Frontend
from mockingjay.encoders.frontends.recogniser import INNER, Recogniser
from mockingjay.representations.features import Features

Opener = Callable[[str], Representation]


def filled_in(chosen: Recogniser.Config, open_representation: Opener) -> Recogniser.Config:
    """Fill in what a recogniser's settings leave to its probe; nothing where that has been done.

    Raises:
        ConfigError: No probe is named, or it is none whose answers are phone probabilities of an encoder of ours.
        CheckpointError: Its folder holds no whole probe.
    """
    if chosen.phones:
        return chosen
    probe = _probe(chosen.probe, open_representation)
    heard = probe.representation
    assert isinstance(heard, Encoder | Features)
    values = {
        "probe": str(Path(chosen.probe).absolute()),
        "phones": probe.task.outputs,
        "layers": probe.mix.layers,
        "frontend": _settings(heard.frontend).model_dump(),
        "context": heard.config.context.model_dump() if isinstance(heard, Encoder) else None,
        "window": heard.config.window if isinstance(heard, Encoder) else None,
    }
    return config.overlay(chosen, values, "objective.encoder.frontend")


@torch.no_grad()
def teach(frontend: Recogniser, open_representation: Opener) -> None:
    """Give a recogniser its probe's weights.

    Raises:
        CheckpointError: The probe's folder holds no whole probe.
        ConfigError: It is another probe than when the settings were filled in.
    """
    name = frontend.config.probe
    probe = _probe(name, open_representation)
    if filled_in(frontend.config.model_copy(update={"phones": ()}), open_representation) != frontend.config:
        raise ConfigError(
            f"{name}: another probe than the settings were filled in from, expected the same; choose another --out"
        )
    heard, head = probe.representation, probe.head
    assert isinstance(heard, Encoder | Features) and isinstance(head, Pointwise)
    last = head.layers[0]
    assert isinstance(last, torch.nn.Linear)
    # The scale and shift that standardise what the head reads become part of its map.
    empty = torch.zeros(len(probe.mix.layers), 1, 1, heard.dim)
    mixed = probe.mix(empty)
    frontend.take(
        heard.frontend.state_dict(),
        heard.context.state_dict() if isinstance(heard, Encoder) else None,
        probe.mix.weights,
        last.weight * mixed.scale,
        last.bias + last.weight @ mixed.shift,
    )


def _settings(frontend: Frontend) -> Any:
    return frontend.config


def _probe(name: str, open_representation: Opener) -> Probe:
    where = "objective.encoder.frontend.probe"
    if not name:
        raise ConfigError(f"{where}: none, expected the folder of a phone probe; make one with `probe --task phone`")
    probe = load_probe(Path(name), open_representation)
    read, heard = probe.config, probe.representation
    if probe.task.config.model_dump().get("kind") != "phone" or read.head != "linear" or read.normalise:
        what = f"a probe of {probe.task.name} with a {read.head} head"
        raise ConfigError(f"{where}: {name} is {what}, expected one of phones with a linear head; probe so")
    if not isinstance(heard, Encoder | Features) or _settings(heard.frontend).kind not in INNER:
        raise ConfigError(f"{where}: {name} reads no encoder or features of ours, expected one; probe one of them")
    return probe
