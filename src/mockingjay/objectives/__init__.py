"""The table of objectives: one published name, one file, one line."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from mockingjay.objectives.apc import APC
from mockingjay.objectives.audio_albert import AudioALBERT
from mockingjay.objectives.decoar import DeCoAR
from mockingjay.objectives.masked_reconstruction import MaskedReconstruction
from mockingjay.objectives.mockingjay import Mockingjay
from mockingjay.objectives.mpc import MPC
from mockingjay.objectives.multi_target_apc import MultiTargetAPC
from mockingjay.objectives.objective import Objective
from mockingjay.objectives.slu_bert import SLUBERT
from mockingjay.objectives.speech_xlnet import SpeechXLNet
from mockingjay.objectives.tera import TERA

OBJECTIVES: Mapping[str, type[Objective]] = {
    "apc": APC,
    "multi-target-apc": MultiTargetAPC,
    "decoar": DeCoAR,
    "slu-bert": SLUBERT,
    "speech-xlnet": SpeechXLNet,
    "masked-reconstruction": MaskedReconstruction,
    "mpc": MPC,
    "mockingjay": Mockingjay,
    "tera": TERA,
    "audio-albert": AudioALBERT,
}

ObjectiveConfig = Annotated[
    APC.Config
    | MultiTargetAPC.Config
    | DeCoAR.Config
    | SLUBERT.Config
    | SpeechXLNet.Config
    | Mockingjay.Config
    | MaskedReconstruction.Config
    | MPC.Config
    | TERA.Config
    | AudioALBERT.Config,
    Field(discriminator="kind"),
]


def build_objective(config: ObjectiveConfig) -> Objective:
    """Build the objective a config describes."""
    return OBJECTIVES[config.kind](config)
