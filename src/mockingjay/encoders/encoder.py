"""An encoder is a frontend and a context: what survives pre-training, rebuilt from its own config wherever it goes."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from mockingjay.core import config
from mockingjay.core.errors import CheckpointError
from mockingjay.core.files import write_atomically
from mockingjay.core.representation import Representation
from mockingjay.core.types import Grid, Hidden, Waves
from mockingjay.encoders.contexts import ContextConfig, Transformer, build_context
from mockingjay.encoders.frontends import FrontendConfig, LogMel, build_frontend

FORMAT = 1  # of an encoder folder


class Encoder(Representation):
    """Frontend + context; both storeys are public, so that an objective can hide something between them."""

    class Config(config.Config):
        """Defaults are Mockingjay BASE."""

        frontend: FrontendConfig = LogMel.Config()
        """Samples → frames."""
        context: ContextConfig = Transformer.Config()
        """Frames → hidden states."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.frontend = build_frontend(config.frontend)
        self.context = build_context(config.context, self.frontend.dim)
        self.dim, self.depth = self.context.dim, self.context.depth
        below, stride = self.frontend.grid, self.context.stride
        self.grid = Grid(below.hop * stride, below.centre + below.hop * (stride - 1) / 2)
        self.receptive = self.frontend.receptive + below.hop * (stride - 1)

    def forward(self, waves: Waves) -> Hidden:
        return self.context(self.frontend(waves))

    def save(self, folder: Path, card: str = "") -> None:
        """Write the folder that others load: config.json, model.safetensors and a README.md with the card's text.

        Raises:
            MachineError: The folder cannot be written.
        """
        weights = safetensors.torch.save({name: value.contiguous() for name, value in self.state_dict().items()})
        record = {
            "model_type": "mockingjay",
            "format": FORMAT,
            "mockingjay_version": version("mockingjay-speech"),
            "sha256": hashlib.sha256(weights).hexdigest(),
            "encoder": self.config.model_dump(mode="json"),
        }
        write_atomically(folder / "model.safetensors", weights)
        write_atomically(folder / "README.md", card.encode())
        write_atomically(folder / "config.json", (json.dumps(record, indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> "Encoder":
        """Rebuild an encoder from the folder `save` wrote.

        Raises:
            CheckpointError: A file is missing, altered, or not of this format.
        """
        record, weights = _read(folder)
        if record.get("format") != FORMAT:
            raise CheckpointError(
                f"{folder}/config.json: format {record.get('format')!r}, expected {FORMAT}; "
                "use the mockingjay version that wrote it"
            )
        if hashlib.sha256(weights).hexdigest() != record.get("sha256"):
            raise CheckpointError(
                f"{folder}/model.safetensors: does not match the SHA-256 in config.json, "
                "expected the file that was saved; copy it again"
            )
        encoder = cls(config.validate(cls.Config, record["encoder"], f"{folder}/config.json"))
        tensors = safetensors.torch.load(weights)
        shapes = {name: value.shape for name, value in encoder.state_dict().items()}
        if {name: value.shape for name, value in tensors.items()} != shapes:
            raise CheckpointError(
                f"{folder}/model.safetensors: its tensors do not fit config.json, "
                f"expected {len(shapes)} of the config's shapes; save the encoder again"
            )
        encoder.load_state_dict(tensors)
        return encoder.eval()


def _read(folder: Path) -> tuple[dict, bytes]:
    try:
        record = json.loads((folder / "config.json").read_text("utf-8"))
        return record, (folder / "model.safetensors").read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{error.filename}: {error.strerror}, expected an encoder folder with config.json and model.safetensors; "
            "check the path"
        ) from None
    except ValueError:
        raise CheckpointError(
            f"{folder}/config.json: not JSON, expected what `save` wrote; copy the folder again"
        ) from None


def random_encoder(config: Encoder.Config, seed: int) -> Encoder:
    """Make an untrained encoder, the control that every table needs; the caller's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(config).eval()
