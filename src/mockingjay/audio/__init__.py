"""Files → samples; what makes a file bad, and its name."""

from mockingjay.audio.decode import load, read
from mockingjay.audio.faults import KINDS, AudioError, Kind, fault, shown
from mockingjay.audio.headers import Header, header

__all__ = ["KINDS", "AudioError", "Header", "Kind", "fault", "header", "load", "read", "shown"]
