"""Features as they are: a frontend as a representation of one layer, the baseline every encoder is held against."""

from mockingjay.core.representation import Representation
from mockingjay.core.types import Hidden, Waves
from mockingjay.encoders.frontends.frontend import Frontend


class Features(Representation):
    """A frontend's frames, read as hidden states."""

    def __init__(self, frontend: Frontend):
        super().__init__()
        self.frontend = frontend
        self.dim, self.depth = frontend.dim, 1
        self.grid, self.receptive, self.reads = frontend.grid, frontend.receptive, frontend.reads

    def forward(self, waves: Waves) -> Hidden:
        """Compute the frames of a batch.

        Raises:
            DataError: An utterance has fewer than `receptive` samples.
        """
        frames = self.frontend(waves)
        return Hidden((frames.values,), frames.lengths)
