"""Countermeasures: networks that tell bona fide speech from spoofed."""

from collections.abc import Mapping

from mockingjay.downstream.countermeasures.countermeasure import BONAFIDE, SPOOF, Countermeasure
from mockingjay.downstream.countermeasures.decibels import Decibels
from mockingjay.downstream.countermeasures.lcnn import LCNN
from mockingjay.downstream.countermeasures.senet import SENet

FAMILIES: Mapping[str, type[Countermeasure]] = {"LCNN": LCNN, "SENet": SENet}

__all__ = ["BONAFIDE", "FAMILIES", "LCNN", "SPOOF", "Countermeasure", "Decibels", "SENet"]
