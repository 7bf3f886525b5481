"""Modified CPC: unsupervised pre-training transfers well across languages.

M. Rivière, A. Joulin, P.-E. Mazaré, E. Dupoux, "Unsupervised Pretraining Transfers Well Across Languages", ICASSP 2020,
arXiv 2002.02848.

CPC with three changes: a norm over the channels of each step takes the place of batch normalisation, by which the past
knew of the future; a Transformer layer per distance that of the linear maps; an LSTM that of the GRU. Each is a choice
of its own here: `encoder.frontend.norm`, `predictors.kind` and `encoder.context.cell`; the presets `batch-norm`,
`linear` and `gru` undo one of them each, `original` all three, and `tiny-batch-norm` and so on at size tiny.

Differs from the paper: nothing we know of; sizes are the code's. Differs from the code: the loss is the mean over the
distances and not their sum, what linear maps foretell is scored by inner products as in CPC and not by their mean, and
batches are not sorted by speaker, so that the same speaker's negatives are as a rule the utterance's own; see also
moves/contrast and moves/predict.
"""

from typing import Literal

from pydantic import Field

from mockingjay.core import config
from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Batch, Loss
from mockingjay.encoders.contexts import Recurrent
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends.waveform import MODIFIED_CPC_256
from mockingjay.moves.contrast import Negatives, compare, draw_negatives, info_nce
from mockingjay.moves.foresee import require_causal
from mockingjay.moves.predict import PredictorsConfig, TransformerPredictors, build_predictors
from mockingjay.objectives.objective import Objective


class ModifiedCPC(Objective):
    """Tell later frames from others, with networks that see further."""

    class Config(config.Config):
        """Defaults are the code's, with all three changes."""

        kind: Literal["modified-cpc"] = "modified-cpc"
        encoder: Encoder.Config = Encoder.Config(
            frontend=MODIFIED_CPC_256, context=Recurrent.Config(cell="lstm", layers=1, dim=256, residual=False)
        )
        """What is kept after training; its context must be causal."""
        predictors: PredictorsConfig = TransformerPredictors.Config()
        """What foretells, a network per distance: Transformer layers, or as in CPC linear maps."""
        steps: int = Field(default=12, ge=1)
        """Distances foretold, from one frame on."""
        negatives: Negatives = Negatives(count=128, source="speaker")
        """What true frames are told from."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        require_causal(self.encoder.context, config.encoder.context.kind)
        self.draws_from = config.negatives.draws_from
        _require_width(config.predictors, self.encoder)
        self.predictors = build_predictors(config.predictors, self.encoder.dim, self.encoder.frontend.dim, config.steps)

    def forward(self, batch: Batch, progress: float, draw: Draw) -> Loss:
        frames = self.encoder.frontend(batch.waves)
        told = self.predictors(self.encoder.context(frames).last)
        negatives = draw_negatives(self.config.negatives, frames, draw, batch.utterances)
        return info_nce(compare(told, frames, negatives), trivial=not self.training)

    def picture(self, batch: Batch, draw: Draw) -> None:
        return None


def _require_width(predictors: PredictorsConfig, encoder: Encoder) -> None:
    """Refuse widths that a Transformer layer cannot keep.

    Raises:
        ConfigError: Frames and hidden states are not of one width, or the heads do not divide it.
    """
    if isinstance(predictors, TransformerPredictors.Config) and (
        encoder.dim != encoder.frontend.dim or encoder.dim % predictors.heads
    ):
        raise ConfigError(
            f"objective.encoder: frames of width {encoder.frontend.dim} and hidden states of width {encoder.dim}, "
            f"expected one width for both that {predictors.heads} heads divide, for Transformer predictors keep it; "
            "set frontend.channels and context.dim alike, or predictors.kind to 'linear'"
        )
