"""Files → samples; what makes a file bad, and its name."""

from mockingjay.audio.decode import header, load, read
from mockingjay.audio.faults import KINDS, AudioError, Kind, fault, shown
from mockingjay.audio.headers import Header
from mockingjay.audio.matrices import FRAME, holds_features, located, matrices

__all__ = [
    "FRAME",
    "KINDS",
    "AudioError",
    "Header",
    "Kind",
    "fault",
    "header",
    "holds_features",
    "load",
    "located",
    "matrices",
    "read",
    "shown",
]
