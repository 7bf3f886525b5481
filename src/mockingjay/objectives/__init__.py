"""The table of objectives: one published name, one file, one line."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from mockingjay.objectives.apc import APC
from mockingjay.objectives.audio2vec import Audio2Vec
from mockingjay.objectives.audio_albert import AudioALBERT
from mockingjay.objectives.autoencoder import Autoencoder
from mockingjay.objectives.best_rq import BestRQ
from mockingjay.objectives.bidirectional_cpc import BidirectionalCPC
from mockingjay.objectives.cpc import CPC
from mockingjay.objectives.data2vec import Data2Vec
from mockingjay.objectives.decoar import DeCoAR
from mockingjay.objectives.hubert import HuBERT
from mockingjay.objectives.masked_reconstruction import MaskedReconstruction
from mockingjay.objectives.mockingjay import Mockingjay
from mockingjay.objectives.modified_cpc import ModifiedCPC
from mockingjay.objectives.mpc import MPC
from mockingjay.objectives.multi_target_apc import MultiTargetAPC
from mockingjay.objectives.npc import NPC
from mockingjay.objectives.objective import Objective
from mockingjay.objectives.phase import Phase
from mockingjay.objectives.slu_bert import SLUBERT
from mockingjay.objectives.speech_xlnet import SpeechXLNet
from mockingjay.objectives.temporal_gap import TemporalGap
from mockingjay.objectives.tera import TERA
from mockingjay.objectives.vq_apc import VQAPC
from mockingjay.objectives.vq_wav2vec import VQWav2Vec
from mockingjay.objectives.wav2vec import Wav2Vec
from mockingjay.objectives.wav2vec2 import Wav2Vec2

OBJECTIVES: Mapping[str, type[Objective]] = {
    "cpc": CPC,
    "wav2vec": Wav2Vec,
    "vq-wav2vec": VQWav2Vec,
    "modified-cpc": ModifiedCPC,
    "bidirectional-cpc": BidirectionalCPC,
    "apc": APC,
    "multi-target-apc": MultiTargetAPC,
    "vq-apc": VQAPC,
    "npc": NPC,
    "decoar": DeCoAR,
    "autoencoder": Autoencoder,
    "audio2vec": Audio2Vec,
    "temporal-gap": TemporalGap,
    "phase": Phase,
    "slu-bert": SLUBERT,
    "speech-xlnet": SpeechXLNet,
    "masked-reconstruction": MaskedReconstruction,
    "mpc": MPC,
    "mockingjay": Mockingjay,
    "tera": TERA,
    "audio-albert": AudioALBERT,
    "best-rq": BestRQ,
    "data2vec": Data2Vec,
    "wav2vec2": Wav2Vec2,
    "hubert": HuBERT,
}

ObjectiveConfig = Annotated[
    CPC.Config
    | Wav2Vec.Config
    | VQWav2Vec.Config
    | ModifiedCPC.Config
    | BidirectionalCPC.Config
    | APC.Config
    | MultiTargetAPC.Config
    | VQAPC.Config
    | NPC.Config
    | DeCoAR.Config
    | Autoencoder.Config
    | Audio2Vec.Config
    | TemporalGap.Config
    | Phase.Config
    | SLUBERT.Config
    | SpeechXLNet.Config
    | Mockingjay.Config
    | MaskedReconstruction.Config
    | MPC.Config
    | TERA.Config
    | AudioALBERT.Config
    | BestRQ.Config
    | Data2Vec.Config
    | Wav2Vec2.Config
    | HuBERT.Config,
    Field(discriminator="kind"),
]


def build_objective(config: ObjectiveConfig) -> Objective:
    """Build the objective a config describes."""
    return OBJECTIVES[config.kind](config)
