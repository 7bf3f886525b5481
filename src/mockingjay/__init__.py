"""Self-supervised learning of speech representations.

    import mockingjay
    encoder = mockingjay.open_representation("runs/mockingjay")
    waves = mockingjay.Waves.pad([mockingjay.audio.read("speech.flac")])
    hidden = encoder(waves)  # hidden.layers, hidden.lengths, encoder.grid.times(...)

Names are imported when first used, so that `mockingjay --help` starts without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mockingjay import audio as audio
    from mockingjay.core.representation import Representation as Representation
    from mockingjay.core.types import Frames as Frames
    from mockingjay.core.types import Hidden as Hidden
    from mockingjay.core.types import Waves as Waves
    from mockingjay.encoders.encoder import Encoder as Encoder
    from mockingjay.objectives import OBJECTIVES as OBJECTIVES
    from mockingjay.open import open_representation as open_representation

_HOMES = {
    "Encoder": "mockingjay.encoders.encoder",
    "Frames": "mockingjay.core.types",
    "Hidden": "mockingjay.core.types",
    "OBJECTIVES": "mockingjay.objectives",
    "Representation": "mockingjay.core.representation",
    "Waves": "mockingjay.core.types",
    "open_representation": "mockingjay.open",
}

__all__ = [
    "OBJECTIVES",
    "Encoder",
    "Frames",
    "Hidden",
    "Representation",
    "Waves",
    "audio",
    "open_representation",
]


def __getattr__(name: str) -> Any:
    if name == "audio":
        return importlib.import_module("mockingjay.audio")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mockingjay' has no attribute {name!r}")
