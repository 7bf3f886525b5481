"""A countermeasure behind every defence: trained once, kept, and given a threshold on dev."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mockingjay.core.draw import Draw, address
from mockingjay.core.errors import ConfigError
from mockingjay.core.files import write_atomically
from mockingjay.downstream.countermeasures import LCNN, Countermeasure, SENet
from mockingjay.downstream.detection import curve, detection
from mockingjay.downstream.spoofing import scored, train
from mockingjay.studies.attack import adversary
from mockingjay.studies.attack.defence import NONE, Defence, undefended
from mockingjay.studies.attack.subject import Config, Scene

HARDEST = 8.0  # decibels; bounds that adversarial training draws from (ours)
_STRIDE = 1.25  # step of the attack in adversarial training, in bounds (E. Wong et al. 2020, arXiv 2001.03994)
_SLICE = 64  # examples that pass a defence at once

Examples = dict[str, tuple[Tensor, Tensor]]  # part → pictures and answers


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A defence and the countermeasure behind it.

    Attributes:
        family: Of the countermeasure.
        defence: In front.
        model: In evaluation mode.
        threshold: What scores no less is let in.
    """

    family: str
    defence: Defence
    model: Countermeasure
    threshold: float

    def scores(self, frames: Float[Tensor, "batch time dim"], draw: Draw) -> Float[Tensor, " batch"]:
        """Score features by how bona fide they look."""
        return self.model.scores(self.defence.view(frames, draw))

    def losses(
        self,
        answers: Int[Tensor, " batch"],
        seed: int,
        draws: int = 1,
        before: Callable[[Tensor], Tensor] | None = None,
    ) -> adversary.Losses:
        """Make what an attacker raises: log odds against the truth, over draws where the defence is random (EOT).

        Args:
            answers: The truth.
            seed: Of the attacker's draws.
            draws: Over which it averages (A. Athalye et al. 2018, arXiv 1707.07397).
            before: Turns what is attacked into features.
        """
        signs = 1 - 2.0 * answers
        draws = draws if self.defence.random else 1

        def losses(altered: Tensor, call: int) -> Tensor:
            frames = altered if before is None else before(altered)
            each = [self.scores(frames, Draw(seed, call * draws + number)) for number in range(draws)]
            return signs * torch.stack(each).mean(0)

        return losses


class Bulwark:
    """Trains countermeasures, or reads back those that were trained."""

    def __init__(self, scene: Scene, config: Config, updates: int, unit: float, folder: Path, seed: int) -> None:
        self.scene, self.config, self.updates, self.folder, self.seed = scene, config, updates, folder, seed
        self.unit = unit  # of features to a decibel
        self._seen: tuple[str, Examples] | None = None  # behind one defence: all would not fit

    @staticmethod
    def fresh(config: Config, family: str, defence: Defence, frames: Tensor, seed: int) -> Countermeasure:
        """Make an untrained countermeasure that fits what a defence makes of such features.

        Raises:
            ConfigError: It is too small a picture.
        """
        with torch.no_grad():
            _, time, dim = defence.view(frames[:1], Draw(0)).shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(address("countermeasure", family, seed) & (2**63 - 1))
            model = LCNN(config.lcnn, time, dim) if family == "LCNN" else SENet(config.senet, time, dim)
        # Channels last: on a CPU convolutions of few channels take a quarter less time so.
        model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (torch's stub lacks it)
        return model.to(frames.device).eval()

    def raised(self, family: str, defence: Defence, say: Callable[[str], None]) -> tuple[Pipeline, dict[str, Any]]:
        """Put a countermeasure behind a defence.

        Args:
            family: Of the countermeasure.
            defence: In front of it.
            say: Told of every training.

        Returns:
            Both as one, and what is known of it: threshold, ids, answers and scores of test utterances, error rates.

        Raises:
            ConfigError: More pictures than are allowed to be held.
            DataError: A file cannot be used.
            MachineError: The folder cannot be written.
        """
        name = f"{slug(family)}-{slug(defence.name)}"
        card, weights = self.folder / f"{name}.json", self.folder / f"{name}.safetensors"
        trial = self.scene.frames(self.scene.attacked(2).samples)
        seed = self.seed + (defence.training == "again")
        model = self.fresh(self.config, family, defence, trial, seed)
        if not card.is_file():
            known = self._trained(model, defence, seed)
            tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
            write_atomically(weights, safetensors.torch.save(tensors))
            write_atomically(card, json.dumps(known, allow_nan=False).encode())
            say(f"{family}, {defence.name}: EER on test {100 * known['measured']['EER'][0]:.1f} %")
        known = json.loads(card.read_text("utf-8"))
        model.load_state_dict(safetensors.torch.load_file(weights, device=str(trial.device)))
        return Pipeline(family, defence, model.requires_grad_(False), known["threshold"]), known

    def _trained(self, model: Countermeasure, defence: Defence, seed: int) -> dict[str, Any]:
        sets = self._examples(defence)
        harden = self._harden() if defence.training == "hardened" else None
        train(model, sets["train"], sets["dev"], self.config.training, self.updates, seed, harden)
        pictures, answers = sets["dev"]
        threshold = curve(scored(model, pictures).double().cpu().numpy(), answers.cpu().numpy() == 1).threshold
        pictures, answers = sets["test"]
        scores = scored(model, pictures).double().cpu().numpy()
        ids = [each.id for each in self.scene.sets["test"]]
        known = {"threshold": threshold, "ids": ids, "answers": answers.tolist(), "scores": scores.tolist()}
        return known | {"measured": detection(scores, answers.cpu().numpy() == 1, self.seed)}

    @torch.no_grad()
    def _examples(self, defence: Defence) -> Examples:
        """Compute what countermeasures read behind a defence, once for both families."""
        key = defence.name if defence.training == "plain" else NONE  # all others read what is undefended
        if self._seen is None or self._seen[0] != key:
            self._check_memory(defence)
            sets: Examples = {}
            for part in ("train", "dev", "test"):
                found, pictures = self.scene.part(part), []
                for number, some in enumerate(found.samples.split(_SLICE)):
                    draw = Draw(address(self.seed, "training", part), number)
                    pictures.append(defence.view(self.scene.frames(some), draw))
                sets[part] = torch.cat(pictures), found.answers
            self._seen = key, sets
        return self._seen[1]

    def _check_memory(self, defence: Defence) -> None:
        picture = defence.view(self.scene.frames(self.scene.attacked(2).samples[:1]), Draw(0))
        needed, allowed = self.scene.most * picture.nbytes / 2**30, self.config.memory
        if needed > allowed:
            raise ConfigError(
                f"attack: pictures of {self.scene.most} examples take {needed:.3g} GiB, expected at most memory="
                f"{allowed:g}; use fewer utterances with --set most=[1200,160,480], or raise it with --set memory="
            )

    def _harden(self) -> Callable[[Countermeasure, Tensor, Tensor, int], Tensor]:
        """Attack what is learned from by one long step from a random place, within a bound drawn for each update."""

        def harden(model: Countermeasure, pictures: Tensor, answers: Tensor, update: int) -> Tensor:
            generator = Draw(self.seed).generator("harden", update)
            epsilon = float(torch.rand((), generator=generator)) * HARDEST * self.unit
            losses = Pipeline("", undefended(), model, 0.0).losses(answers, 0)
            return adversary.projected_gradient(
                losses, pictures, epsilon, steps=1, step=_STRIDE * epsilon, restarts=1, generator=generator
            )

        return harden


def slug(name: str) -> str:
    """Write a name for files; names that differ stay apart."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[-40:]
    return words if words == name.lower() else f"{words}-{address(name) & 0xFFFF:04x}"
