"""Attacks on countermeasures, and what Mockingjay in front of them is worth as a defence.

H. Wu, A. T. Liu, H.-y. Lee, Interspeech 2020, arXiv 2006.03214: LCNN and SENet under PGD and FGSM, with and without
the defence. Attacks are made on undefended countermeasures and shown to all, so that an attacker knows the features and
the countermeasure but not what stands between. As that alone would oversell any defence, the same is asked of a
countermeasure merely trained again, of an untrained network and of random noise; attackers that know the defence are
let through it; and attacks are also made on the waveform, for altered features may belong to no sound. What hears
samples is attacked there alone.

Everything that is known is kept: the same call goes on where it was.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mockingjay.core.draw import Draw, address
from mockingjay.core.files import write_atomically
from mockingjay.data.manifest import Corpus
from mockingjay.downstream.countermeasures import FAMILIES
from mockingjay.studies import noise
from mockingjay.studies.attack import adversary
from mockingjay.studies.attack.countermeasures import Bulwark, Pipeline, slug
from mockingjay.studies.attack.defence import AGAIN, NONE
from mockingjay.studies.attack.plan import TRIED, Costs, Plan, outlay
from mockingjay.studies.attack.subject import Config, Place, Scene, Subject
from mockingjay.studies.cards import check_card, write_card
from mockingjay.train.distributed import joined
from mockingjay.train.ledger import locked

NOISE = "noise"
METHODS = ("PGD", "FGSM")
SLICE = 16  # examples at a time
_FULL_SCALE = (-1.0, 1.0)  # of samples


@dataclass(slots=True)
class Study:
    """What is known so far.

    Attributes:
        data: Name of the speech.
        features: What is attacked.
        names: Of the defences.
        seed: Of everything random.
        notes: What a reader must know, a sentence each.
        facts: Numbers: how much was heard, how far features vary.
        plan: How much is done.
        trained: By family and defence: the threshold from dev, and the scores of clean test utterances.
        shown: One for each attack that was made once and shown to all.
        adaptive: One for each attack through a defence.
        finished: Whether nothing is to come.
        place: Where attackers go that know a defence: features, or the waveform where samples alone are attacked.
    """

    data: str
    features: str
    names: tuple[str, ...]
    seed: int
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    plan: Plan | None = None
    trained: dict[str, dict[str, Any]] = field(default_factory=dict)
    shown: list[dict[str, Any]] = field(default_factory=list)
    adaptive: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = False
    place: Place = "features"


def attack(
    subject: Subject,
    corpus: Corpus,
    out: Path,
    *,
    config: Config,
    budget: float,
    device: str = "auto",
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Study]:
    """Study attacks and defences; what is known is handed out several times.

    Args:
        subject: What is tried as a defence.
        corpus: As `open_corpus` read it; where nothing is labelled as spoof, copies are made.
        out: The study's folder.
        config: Countermeasures and features.
        budget: Seconds for all of it.
        device: "auto", "cpu", "cuda" or "cuda:<index>".
        seed: Of divisions, weights, starts and intervals.
        say: Told a line at a time.

    Raises:
        RepresentationError: The subject hears no sound, or lets no gradient through to it.
        ConfigError: The folder holds another study, or pictures are too small.
        DataError: Too little can be used.
        MachineError: The folder cannot be written, or another process is writing there.
    """
    with locked(out), joined(device) as group:
        ours = {"representation": subject.name, "budget": budget, "seed": seed, "config": config.model_dump_json()}
        check_card(out / "study.json", ours, "a study")
        scene = Scene.prepare(subject, corpus, out, config, seed, group.device, say)
        ours |= {"speech": scene.fingerprint}
        check_card(out / "study.json", ours, "a study")
        write_card(out / "study.json", ours)
        scene.parts.write(out / "splits.json")
        names = tuple(each.name for each in scene.defences)
        study = Study(scene.data, scene.features, names, seed, list(scene.notes), place=scene.place)
        yield from _Siege(scene, out, config, budget, seed, study, say).parts()


class _Siege:
    """One study, part by part."""

    def __init__(
        self,
        scene: Scene,
        out: Path,
        config: Config,
        budget: float,
        seed: int,
        study: Study,
        say: Callable[[str], None],
    ) -> None:
        self.scene, self.out, self.config, self.seed = scene, out, config, seed
        self.budget, self.study, self.say = budget, study, say
        self.news, self.spent = False, 0.0
        self.random = tuple(each.name for each in scene.defences if each.random)

    def parts(self) -> Iterator[Study]:
        """Find out one part after the other; pauses where there is something new to read, and at the end."""
        study, scene = self.study, self.scene
        plan = study.plan = Plan.read(self._keep("plan", lambda: asdict(self._planned())))
        self.attacked = scene.attacked(plan.attacked)
        self.frames = scene.frames(self.attacked.samples)
        facts = study.facts = self._keep("facts", self._facts)
        unit = facts["features"] / facts["decibels"]
        bulwark = Bulwark(scene, self.config, plan.updates, unit, self.out / "models", self.seed)
        self.lines: dict[str, list[Pipeline]] = {family: [] for family in FAMILIES}
        for defence in scene.defences:
            for family in FAMILIES:
                line, known = bulwark.raised(family, defence, self.say)
                self.lines[family].append(line)
                study.trained.setdefault(family, {})[defence.name] = known
        if self.news:
            yield study
        pairs = [(None, NOISE), *((family, method) for family in FAMILIES for method in METHODS)]
        for source, method in pairs if scene.place == "features" else ():
            study.shown += [self._shown(source, method, level, "features") for level in plan.decibels]
            self._tell(f"{method} of {source}" if source else method)
        if self.news:
            yield study
        levels = plan.decibels if scene.place == "features" else plan.levels
        for family in FAMILIES:
            for line in self.lines[family]:
                if line.defence.name != AGAIN:
                    study.adaptive += [self._adaptive(line, level) for level in levels]
                    self._tell(f"{family} through {line.defence.name}")
        for source in (None, *FAMILIES):
            method = "PGD" if source else NOISE
            study.shown += [self._shown(source, method, level, "waveform") for level in plan.levels]
            self._tell(f"{method} of {source}, waveform" if source else f"{method}, waveform")
        study.finished = True
        yield study

    def _keep(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        place = self.out / f"{name}.json"
        if not place.is_file():
            began = time.monotonic()
            found, self.news = compute(), True
            write_atomically(place, json.dumps(found, allow_nan=False).encode())
            self.spent += time.monotonic() - began
        return json.loads(place.read_text("utf-8"))

    def _tell(self, what: str) -> None:
        """Say how long something took, unless it was known."""
        if self.spent:
            self.say(f"{what}: {self.spent:.1f} s")
        self.spent = 0.0

    def _facts(self) -> dict[str, Any]:
        """How far features and samples vary within an utterance, by which bounds are measured."""
        decibels = self.scene.decibels(self.attacked.samples)
        return {
            "decibels": _deviation(decibels),
            "features": _deviation(self.frames if self.scene.place == "features" else decibels),
            "waveform": float(self.attacked.samples.square().mean(1).sqrt().mean()),
            "attacked": list(self.attacked.ids),
            "answers": self.attacked.answers.tolist(),
            **self.scene.facts,
        }

    def _attacked(self, place: Place) -> tuple[Tensor, Callable[[Tensor], Tensor] | None, adversary.Bounds | None]:
        """Find what is attacked, what makes of it what defences read, and what its values may be."""
        if place == "features":
            return self.frames, None, None
        return self.attacked.samples, self.scene.frames, _FULL_SCALE

    def _bound(self, level: float, place: Place) -> tuple[float, float]:
        """Turn a level into a bound on every value, and the same in deviations of what is bounded."""
        facts = self.study.facts
        share = 10 ** (-level / 20) if place == "waveform" else level / facts["decibels"]
        return share * facts[place], share

    def _shown(self, source: str | None, method: str, level: float, place: Place) -> dict[str, Any]:
        """Attack an undefended countermeasure, or none, and show what comes of it to all."""
        epsilon, deviations = self._bound(level, place)

        def make() -> dict[str, Any]:
            clean, before, _ = self._attacked(place)
            altered = self._made(source, method, epsilon, place)
            seen = altered if before is None else before(altered)
            silent, measured = self._noise(seen)
            scores = self._seen(seen)
            return {"snr": _snr(clean, altered), "scores": scores, "noise": measured, "silent": silent}

        name = f"{place}/{slug(source or 'nobody')}-{method}-{level:g}"
        found = self._keep(name, make)
        self.study.notes += [each for each in found.pop("silent", ()) if each not in self.study.notes]
        about = {"source": source, "method": method, "place": place, "level": level}
        return {**about, "epsilon": epsilon, "deviations": deviations, **found}

    def _made(self, source: str | None, method: str, epsilon: float, place: Place) -> Tensor:
        clean, before, bounds = self._attacked(place)
        plan, made = self.study.plan, []
        assert plan is not None
        for number, some in enumerate(clean.split(SLICE)):
            generator = Draw(self.seed).generator("start", source, method, place, number)
            if source is None:
                made.append(adversary.random_signs(some, epsilon, generator, bounds))
                continue
            line = next(each for each in self.lines[source] if each.defence.name == NONE)
            losses = line.losses(self._answers(number), self._attacker, before=before)
            if method == "FGSM":
                made.append(adversary.fast_gradient_sign(losses, some, epsilon, bounds))
                continue
            how = {"steps": plan.steps, "restarts": plan.restarts, "generator": generator, "bounds": bounds}
            made.append(adversary.projected_gradient(losses, some, epsilon, **how))
        return torch.cat(made)

    def _adaptive(self, line: Pipeline, level: float) -> dict[str, Any]:
        """Attack through a defence, whose every draw but the last is known."""
        place, plan = self.scene.place, self.study.plan
        epsilon, deviations = self._bound(level, place)
        assert plan is not None

        def make() -> dict[str, Any]:
            snr, scores = [], []
            clean, before, bounds = self._attacked(place)
            for number, some in enumerate(clean[: plan.adaptive].split(SLICE)):
                losses = line.losses(self._answers(number)[: len(some)], self._attacker, plan.draws, before)
                generator = Draw(self.seed).generator("start", "adaptive", number)
                how = {"steps": plan.steps, "restarts": plan.restarts, "generator": generator, "bounds": bounds}
                altered = adversary.projected_gradient(losses, some, epsilon, **how)
                seen = altered if before is None else before(altered)
                scores += line.scores(seen, self._defender(number)).double().tolist()
                snr += _snr(some, altered)
            return {"snr": snr, "scores": scores}

        name = f"adaptive/{slug(line.family)}-{slug(line.defence.name)}-{level:g}"
        about = {"family": line.family, "defence": line.defence.name, "level": level}
        return {**about, "epsilon": epsilon, "deviations": deviations, **self._keep(name, make)}

    @torch.no_grad()
    def _seen(self, frames: Float[Tensor, "examples time dim"]) -> dict[str, dict[str, list[float]]]:
        """Score examples behind every defence; what two countermeasures read is computed once."""
        scores: dict[str, dict[str, list[float]]] = {family: {} for family in self.lines}
        for number, some in enumerate(frames.split(SLICE)):
            for lines in zip(*self.lines.values()):
                picture = lines[0].defence.view(some, self._defender(number))
                for line in lines:
                    found = line.model.scores(picture).double().tolist()
                    scores[line.family].setdefault(line.defence.name, []).extend(found)
        return scores

    @torch.no_grad()
    def _noise(
        self, frames: Float[Tensor, "examples time dim"]
    ) -> tuple[list[str], dict[str, dict[str, list[list[float]]]]]:
        """Measure by network, norm, layer and example how much of what was altered there is, the input first.

        What nothing can be measured of is left out, and first said in a sentence each.
        """
        found: dict[str, dict[str, list[list[float]]]] = {}
        said = []
        for defence in self.scene.defences:
            if defence.layers is not None:
                clean, altered = (
                    [layers for some in each.split(SLICE) for layers in zip(*map(torch.unbind, defence.layers(some)))]
                    for each in (self.frames, frames)
                )
                named, changed = (dict(zip(self.attacked.ids, each)) for each in (clean, altered))
                silent = noise.silent(named)
                said += [f"{defence.name}: {sentence}" for sentence in silent.values()]
                heard = {id: layers for id, layers in named.items() if id not in silent}
                if heard:
                    found[defence.name] = {norm: noise.ratios(heard, changed, norm).T.tolist() for norm in noise.NORMS}
        return said, found

    def _answers(self, number: int) -> Int[Tensor, " batch"]:
        return self.attacked.answers[number * SLICE :][:SLICE]

    def _defender(self, number: int) -> Draw:
        return Draw(address(self.seed, "defender"), number)

    @property
    def _attacker(self) -> int:
        return address(self.seed, "attacker")

    def _planned(self) -> Plan:
        """Find out what the machine can do, and cut the study to the time there is."""
        scene = self.scene
        trial = scene.attacked(TRIED)
        frames = scene.frames(trial.samples)
        update, gradient, view, wave = {}, {}, {}, {}
        for family in FAMILIES:
            for defence in scene.defences:
                line = Pipeline(family, defence, Bulwark.fresh(self.config, family, defence, frames, 0), 0.0)
                gradient[family, defence.name] = _timed(line, frames, trial.answers)
                with torch.no_grad():
                    view[defence.name] = _timed(line, frames)
                if defence.name == NONE:
                    # Of a training step: weights have gradients too, and move.
                    update[family] = 1.5 * gradient[family, NONE] * line.model.batch
                    wave[family] = _timed(line, trial.samples, trial.answers, scene.frames)
        costs = Costs(update, gradient, view, wave, scene.most, scene.place == "waveform")
        plan = outlay(self.budget, costs, NONE, self.random)
        levels = plan.decibels if scene.place == "features" else plan.levels
        self.say(f"{plan.updates} updates each, {plan.attacked} utterances attacked, bounds of {levels} dB")
        return plan


def _snr(clean: Float[Tensor, "examples ..."], altered: Float[Tensor, "examples ..."]) -> list[float]:
    """Signal to noise of frames or of samples, in decibels."""
    pair = (each if each.dim() == 3 else each[:, :, None] for each in (clean, altered))
    return adversary.signal_to_noise(*pair).double().tolist()


def _deviation(frames: Float[Tensor, "examples time dim"]) -> float:
    """Mean over utterances and values of the deviation over time."""
    return float(frames.std(1, correction=0).mean())


def _timed(
    line: Pipeline, given: Tensor, answers: Tensor | None = None, before: Callable[[Tensor], Tensor] | None = None
) -> float:
    """Seconds that one example takes, with a gradient where answers are given."""
    for _ in range(2):  # at first much is made ready once
        began = time.perf_counter()
        if answers is None:
            found = line.scores(given, Draw(0))
        else:
            found = adversary.fast_gradient_sign(line.losses(answers, 0, before=before), given, 0.0)
        float(found.sum())
    return (time.perf_counter() - began) / len(given)
