"""An encoder is a frontend and a context: what survives pre-training, rebuilt from its own config wherever it goes."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import safetensors.torch
import torch
from pydantic import Field

from mockingjay.core import config
from mockingjay.core.errors import CheckpointError, ConfigError
from mockingjay.core.files import write_atomically
from mockingjay.core.representation import Representation
from mockingjay.core.types import Grid, Hidden, Waves
from mockingjay.core.untrusted import Hollow, check_finite, parse_tensors, read_record
from mockingjay.encoders.contexts import ContextConfig, Transformer, build_context
from mockingjay.encoders.frontends import FrontendConfig, LogMel, build_frontend
from mockingjay.encoders.windows import read

FORMAT = 1  # of an encoder folder


class Encoder(Representation):
    """Frontend + context; both storeys are public, so that an objective can hide something between them."""

    class Config(config.Config):
        """Defaults are Mockingjay BASE."""

        frontend: FrontendConfig = LogMel.Config()
        """Samples → frames."""
        context: ContextConfig = Transformer.Config()
        """Frames → hidden states."""
        window: int | None = Field(default=None, ge=2)
        """Frames read at once, longer utterances in overlapping windows; None: all (ours, see encoders/windows.py)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.frontend = build_frontend(config.frontend)
        self.context = build_context(config.context, self.frontend.dim)
        self.dim, self.depth = self.context.dim, self.context.depth
        below, stride = self.frontend.grid, self.context.stride
        self.grid = Grid(below.hop * stride, below.centre + below.hop * (stride - 1) / 2)
        self.receptive = self.frontend.receptive + below.hop * (stride - 1)
        self.reads = self.frontend.reads
        if config.window is not None and config.window % (2 * stride):
            raise ConfigError(
                f"objective.encoder.window: {config.window} frames, expected a multiple of {2 * stride}; "
                "windows overlap by half and begin at whole steps"
            )

    def forward(self, waves: Waves) -> Hidden:
        return read(self.context, self.frontend(waves), self.config.window)

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
            CheckpointError: A file is missing, altered, not finite, or not of this format.
            ConfigError: The config's keys or values are wrong.
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
        described = record.get("encoder")
        if not isinstance(described, dict):
            raise CheckpointError(f"{folder}/config.json: no encoder in it, expected its config; copy the folder again")
        settings = config.validate(cls.Config, described, f"{folder}/config.json")
        tensors = parse_tensors(weights, folder / "model.safetensors")
        expected = shapes(settings, f"{folder}/config.json")
        if {name: value.shape for name, value in tensors.items()} != expected:
            raise CheckpointError(
                f"{folder}/model.safetensors: its tensors do not fit config.json, "
                f"expected {len(expected)} of the config's shapes; save the encoder again"
            )
        check_finite(tensors, folder / "model.safetensors")
        encoder = cls(settings)
        encoder.load_state_dict(tensors)
        return encoder.eval()


def shapes(config: Encoder.Config, where: str) -> dict[str, torch.Size]:
    """Name an encoder's tensors and their shapes without making them: a stranger's config may ask for any size.

    Raises:
        CheckpointError: It asks for more than can be addressed.
    """
    try:
        with Hollow():
            return {name: value.shape for name, value in Encoder(config).state_dict().items()}
    except RuntimeError:
        raise CheckpointError(
            f"{where}: an encoder larger than any memory, expected what its weights fill; correct the config"
        ) from None


def _read(folder: Path) -> tuple[dict, bytes]:
    try:
        return read_record(folder / "config.json"), (folder / "model.safetensors").read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{error.filename}: {error.strerror}, expected an encoder folder with config.json and model.safetensors; "
            "check the path"
        ) from None


def random_encoder(config: Encoder.Config, seed: int) -> Encoder:
    """Make an untrained encoder, the control that every table needs; the caller's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(config).eval()
