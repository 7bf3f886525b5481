"""Training of countermeasures: which utterances, which stretch of each, and updates that see both classes as often.

Adam with AMSGrad and class-balanced sampling are the code's of arXiv 1910.08716. Differs from it: every example is a
stretch of samples of one length, repeated where the utterance is shorter, so that features, hidden states and attacks
on the waveform see the same; training utterances give a few stretches drawn once; the best on dev is kept, and dev is
not the training list.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from mockingjay import audio
from mockingjay.core.config import Config as Table
from mockingjay.core.draw import Draw, address
from mockingjay.core.errors import DataError
from mockingjay.core.types import Utterance
from mockingjay.downstream.countermeasures import BONAFIDE, Countermeasure
from mockingjay.downstream.tasks import Label

COLUMNS = ("spoof", "label")  # where corpora say it
CLASSES = {"bonafide": ("bonafide", "bona-fide", "bona fide"), "spoof": ("spoof",)}

Harden = Callable[[Countermeasure, Tensor, Tensor, int], Tensor]  # model, pictures, answers, update → pictures


@dataclass(frozen=True, slots=True)
class Stretches:
    """Examples of one length."""

    samples: Float[Tensor, "examples samples"]
    answers: Int[Tensor, " examples"]
    ids: tuple[str, ...]  # of their utterances

    @property
    def bonafide(self) -> Bool[Tensor, " examples"]:
        """What is no spoof."""
        return self.answers == BONAFIDE


class Training(Table):
    """Defaults are the code's, but for its 100 epochs: updates are counted, and cut to the time there is."""

    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Of Adam."""
    weight_decay: float = Field(default=1e-3, ge=0)
    """Added to the gradient, not decoupled."""
    eps: float = Field(default=1e-9, gt=0)
    """Added to the root of the second moment."""
    patience: int = Field(default=5, ge=1)
    """Looks at dev without gain after which training ends."""
    looks: int = Field(default=12, ge=1)
    """Looks at dev (ours; the code looks once an epoch)."""


def spoof_task(utterances: Sequence[Utterance]) -> Label | None:
    """Find the column that says which utterances are spoofs; None where there is none."""
    for column in COLUMNS:
        task = Label(Label.Config(column=column, classes=CLASSES))
        if {name for each in utterances for name in task.names(each)} == set(CLASSES):
            return task
    return None


def balanced(utterances: Sequence[Utterance], task: Label, count: int, even: bool = False) -> tuple[Utterance, ...]:
    """Draw some utterances, half of each class where there are as many.

    Args:
        utterances: With labels.
        task: Reads them.
        count: How many at most.
        even: Draw no more of one class than of the other.
    """
    order = sorted(utterances, key=lambda each: (address("spoofing", each.id), each.id))
    classes = [[each for each in order if task.names(each) == (name,)] for name in CLASSES]
    most = min(count // 2, *map(len, classes)) if even else count // 2
    return tuple(each for members in classes for each in members[:most])


def stretches(
    utterances: Sequence[Utterance], task: Label, samples: int, crops: int = 1, seed: int | None = None
) -> Stretches:
    """Read a stretch of each utterance, or several.

    Args:
        utterances: With labels.
        task: Reads them.
        samples: Length of a stretch; shorter utterances are repeated.
        crops: Stretches of each utterance.
        seed: Draws where they begin; none: at the utterance's beginning.

    Raises:
        DataError: A file cannot be used.
    """
    taken, answers, ids = [], [], []
    for each in utterances:
        wave = audio.read(each.path, each.start, each.seconds)
        wave = wave.repeat(-(-samples // len(wave))) if len(wave) < samples else wave
        room = len(wave) - samples + 1
        draws = [0.0] * crops if seed is None else Draw(seed).uniform([each.id], "stretch", crops)[0].tolist()
        for draw in draws if room > 1 else draws[:1]:
            taken.append(wave[int(draw * room) :][:samples])
            answers.append(BONAFIDE if task.names(each) == ("bonafide",) else 1 - BONAFIDE)
            ids.append(each.id)
    if len(set(answers)) < 2:
        raise DataError(
            f"task {task.name}: {len(ids)} stretches of one class only, expected bona fide and spoofed ones; "
            "give more of the other"
        )
    return Stretches(torch.stack(taken), torch.tensor(answers), tuple(ids))


def train(
    model: Countermeasure,
    learn: tuple[Float[Tensor, "examples time dim"], Int[Tensor, " examples"]],
    dev: tuple[Float[Tensor, "others time dim"], Int[Tensor, " others"]],
    config: Training,
    updates: int,
    seed: int,
    harden: Harden | None = None,
) -> None:
    """Train a countermeasure and leave it in evaluation mode at its best on dev: accuracy, then cross-entropy.

    Args:
        model: Untrained.
        learn: Pictures and answers.
        dev: Others, on which the best is chosen.
        config: How.
        updates: At most.
        seed: Of the order and of dropout.
        harden: Alters what is learned from, for adversarial training.
    """
    pictures, answers = learn
    model.scale.fit(pictures)
    members = [(answers == name).nonzero()[:, 0] for name in range(2)]
    optimiser = torch.optim.Adam(
        model.parameters(), lr=config.learning_rate, eps=config.eps, weight_decay=config.weight_decay, amsgrad=True
    )
    every, best, since = max(1, updates // config.looks), None, 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(address("countermeasure", seed) & (2**63 - 1))
        for update in range(updates):
            chosen = _draw(members, model.batch, seed, update)
            given, wanted = pictures[chosen], answers[chosen]
            if harden is not None:
                given = harden(model.eval(), given, wanted, update)
            model.train()
            optimiser.zero_grad()
            model.losses(given, wanted, update).mean().backward()
            optimiser.step()
            if (update + 1) % every == 0:
                seen = _look(model.eval(), *dev)
                best, since = (
                    ((seen, {name: value.clone() for name, value in model.state_dict().items()}), 0)
                    if best is None or seen > best[0]
                    else (best, since + 1)
                )
                if since == config.patience:
                    break
    assert best is not None
    model.load_state_dict(best[1])
    model.eval().requires_grad_(False)


@torch.no_grad()
def scored(model: Countermeasure, pictures: Float[Tensor, "examples time dim"]) -> Float[Tensor, " examples"]:
    """Score examples, a few at a time."""
    return torch.cat([model.scores(some) for some in pictures.split(64)])


def _draw(members: Sequence[Int[Tensor, " _"]], batch: int, seed: int, update: int) -> Int[Tensor, " batch"]:
    """Draw each example's class with even odds, then one of the class (code)."""
    classes, places = Draw(seed, update).uniform(["class", "place"], "sample", batch)
    taken = [
        members[int(name < 0.5)][int(place * len(members[int(name < 0.5)]))]
        for name, place in zip(classes.tolist(), places.tolist())
    ]
    return torch.stack(taken)


def _look(
    model: Countermeasure, pictures: Float[Tensor, "examples time dim"], answers: Int[Tensor, " examples"]
) -> tuple[float, float]:
    """Accuracy with both classes weighing the same, and the negated loss."""
    scores = scored(model, pictures)
    signs = 2.0 * answers - 1
    right = (signs * scores > 0).double()
    accuracy = torch.stack([right[answers == name].mean() for name in range(2)]).mean()
    return float(accuracy), -float(F.softplus(-signs * scores).mean())
