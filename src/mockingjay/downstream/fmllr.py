"""A corpus of sound → a corpus of features adapted to their speakers (fMLLR), which `precomputed` reads.

Kaldi's filterbank gives cepstra and their first derivatives, 2 × 20 values every 10 ms, and as there each speaker's
mean is taken off; a Gaussian mixture is fitted to speech of many speakers; every speaker's affine transform brings what
he or she says nearer to it (encoders/fmllr.py). Labels travel with the manifest: frame t lies where Kaldi's does, which
is where `precomputed` looks for it.

Differs from Kaldi's fMLLR, on which TERA was first trained: there, 40 dimensions are spliced cepstra after LDA and MLLT
of phonetic classes, the model is that of a recogniser whose alignments say which state a frame is of, silence is left
out of the estimate, and the model is trained anew on adapted speech. Here nobody has transcribed anything.

What hides the speaker from a probe on means over utterances is that the speaker's mean is taken off (`rounds = 0` does
that alone); the transform makes frames likelier, and no gain for phones has been seen from it on the embedded corpus.
"""

import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mockingjay.audio import FRAME
from mockingjay.core.config import Config as Table
from mockingjay.core.draw import address
from mockingjay.core.errors import CheckpointError, DataError
from mockingjay.core.files import write_atomically
from mockingjay.core.types import SAMPLE_RATE, Utterance
from mockingjay.core.untrusted import check_finite, parse_tensors
from mockingjay.data.manifest import write_manifest
from mockingjay.data.quarantine import Quarantine
from mockingjay.data.scan import check_reads
from mockingjay.data.splits import role
from mockingjay.downstream.extract import file_of
from mockingjay.downstream.features import represent
from mockingjay.encoders.fmllr import adapt, identity, transformed
from mockingjay.encoders.frontends import Fbank
from mockingjay.encoders.frontends.mfcc import cosines
from mockingjay.encoders.gaussians import Mixture, fit_mixture
from mockingjay.representations.features import Features

MELS = 40
MODEL = "model.safetensors"
_EACH = 100  # frames that the mixture needs for each Gaussian
_PAUSE = 20.0  # seconds between two words of progress
_POSITIVE = ("std", "weights", "variances")
_Name: TypeAlias = tuple[str | None, str | None]  # a speaker; of an utterance without one, its id


class Config(Table):
    """How speakers are adapted; the values are ours where nothing else is said."""

    coefficients: int = Field(default=20, ge=1, le=MELS)
    """Cepstra, of which as many derivatives: 40 values a frame, as wide as Kaldi's."""
    gaussians: int = Field(default=64, ge=1, le=4096)
    """Of the model of all speakers; fewer where there is little speech."""
    seconds: float = Field(default=3600.0, gt=0)
    """Of speech that the model is fitted to, drawn from what is not for testing."""
    updates: int = Field(default=20, ge=0)
    """Rounds of expectation-maximisation of the model."""
    rounds: int = Field(default=2, ge=0)
    """Rounds of a speaker's transform; 0 leaves cepstra as they are without their mean."""
    sweeps: int = Field(default=4, ge=1)
    """Passes over the transform's rows in each of them."""
    minimum: float = Field(default=5.0, ge=0)
    """Seconds that a speaker must say for more than the mean to be adapted; 500 frames in Kaldi."""
    most: float = Field(default=30.0, gt=0)
    """Seconds of a speaker that the transform is estimated on."""
    prior: float = Field(default=1000.0, gt=0, le=1e6)
    """Frames of the model's own making that are counted in with a speaker's."""


@dataclass(frozen=True, slots=True)
class Voice:
    """What became of a speaker.

    Attributes:
        speaker: The name; of an utterance without one, its id.
        utterances: How many.
        seconds: How long they are together.
        likelihoods: Mean log-likelihood of a frame without the mean, then after each round; empty where there is none.
    """

    speaker: str
    utterances: int
    seconds: float
    likelihoods: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """What all speakers are brought nearer to."""

    std: Float[Tensor, " dim"]  # of cepstra without their speaker's mean
    mixture: Mixture  # of these, divided by it

    def save(self, folder: Path) -> None:
        """Write it into a folder.

        Raises:
            MachineError: The folder cannot be written.
        """
        mixture = {name: getattr(self.mixture, name) for name in Mixture.__slots__}
        write_atomically(folder / MODEL, safetensors.torch.save({"std": self.std, **mixture}))

    @classmethod
    def load(cls, folder: Path, dim: int) -> "Model":
        """Read what `save` wrote.

        Raises:
            CheckpointError: It is not there, or not a model of so many values a frame.
        """
        path = folder / MODEL
        try:
            tensors = parse_tensors(path.read_bytes(), path)
        except OSError as error:
            mend = "name a folder that `mockingjay corpus fmllr` wrote"
            raise CheckpointError(f"{path}: cannot be read ({error.strerror}), expected a model; {mend}") from None
        check_finite(tensors, path)
        count = len(tensors.get("weights", ()))
        expected = {"std": [dim], "weights": [count], "means": [count, dim], "variances": [count, dim]}
        found = {name: list(value.shape) for name, value in tensors.items()}
        wide = all(value.dtype == torch.float64 for value in tensors.values())
        if found != expected or not (
            wide and all((tensors[name] > 0).all() for name in ("std", "weights", "variances"))
        ):
            what = f"no model of {dim} values a frame, expected one"
            raise CheckpointError(f"{path}: {what}; set coefficients to half of its width, or make it again")
        return cls(tensors["std"], Mixture(*(tensors[name] for name in Mixture.__slots__)))


def fmllr(
    utterances: Sequence[Utterance],
    out: Path,
    config: Config,
    seed: int = 0,
    model: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Voice]:
    """Write a corpus of adapted features: float32 [time, 2 · coefficients] in `.npy`, and last `manifest.jsonl`.

    Beside them lie `speakers.jsonl`, what became of each speaker, and the model, to which speakers of another corpus
    can be adapted: only then are the features of both the same.

    Args:
        utterances: Of sound. What says no speaker is a speaker of its own.
        out: Folder; made anew by the same command.
        config: How.
        seed: Of what the model is fitted to, and of its beginning.
        model: A folder written by this function, whose model is used.
        say: Told of progress, and of speakers that say too little.

    Raises:
        DataError: Too many files cannot be read, two utterances share an id, or there is nothing to learn from.
        CheckpointError: The model cannot be used.
        MachineError: The folder cannot be written.
    """
    check_reads((each.path for each in utterances), None)
    id, count = max(Counter(each.id for each in utterances).items(), key=lambda item: item[1], default=("", 0))
    if count > 1:
        raise DataError(f"corpus: {count} utterances are called {id!r}, expected an id for each; rename all but one")
    cepstra = _Cepstra(config.coefficients, Quarantine(out / "quarantine.jsonl", anew=True), len(utterances), say)
    usable = [each for each in utterances if round(each.seconds * SAMPLE_RATE) >= cepstra.receptive]
    if brief := len(utterances) - len(usable):
        least = cepstra.receptive / SAMPLE_RATE
        say(f"{brief} utterances are shorter than {least:.3f} s, too short for a frame: left out")
    (out / "manifest.jsonl").unlink(missing_ok=True)  # the last thing to be written says that all of it is there
    known = None if model is None else Model.load(model, 2 * config.coefficients)
    learnt = [each for each in usable if role(each.split) != "test"] or usable
    means, frames = _survey(cepstra, usable, [] if known else _some(learnt, config.seconds, seed))
    chosen = known or _fit(frames, config, seed, say)
    chosen.save(out)
    voices: list[Voice] = []
    written: dict[str, Utterance] = {}
    for name, members in _by_speaker(usable).items():
        if name in means:
            voice, lying = _speaker(out, cepstra, chosen, members, means[name], config, seed)
            voices.append(voice)
            written.update(lying)
    for sentence in _summary(voices, sum(speaker is None for speaker, _ in means), config):
        say(sentence)
    lines = "".join(json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in voices)
    write_atomically(out / "speakers.jsonl", lines.encode())
    write_manifest(out / "manifest.jsonl", (written[each.id] for each in utterances if each.id in written))
    return voices


class _Cepstra:
    """Reads utterances as cepstra with derivatives, those of one length together."""

    def __init__(self, coefficients: int, quarantine: Quarantine, total: int, say: Callable[[str], None]) -> None:
        self._bands = Features(Fbank(Fbank.Config(mels=MELS, deltas=1, normalise="none"))).eval()
        transform = cosines(MELS, coefficients)
        self._transform = torch.block_diag(transform, transform)  # derivatives of cepstra are cepstra of derivatives
        self._quarantine, self._total, self._say = quarantine, total, say
        self._read, self._told = 0, time.monotonic()
        self.receptive = self._bands.receptive  # samples

    def of(self, utterances: Sequence[Utterance]) -> Iterator[tuple[Utterance, Float[Tensor, "time dim"]]]:
        """Yield utterances with their frames, without those that cannot be read.

        Raises:
            DataError: Too many of the corpus cannot.
        """
        readable = [each for each in utterances if each.id not in self._quarantine]
        for indices, hidden in represent(self._bands, readable, self._quarantine):
            for index, values in zip(indices, hidden.split()):
                yield readable[index], (values @ self._transform).double()
            self._read += len(indices)
            if time.monotonic() - self._told > _PAUSE:
                self._told = time.monotonic()
                self._say(f"{self._read} utterances read; each of {self._total} is read two or three times")
        self._quarantine.check(self._total)


def _survey(
    cepstra: _Cepstra, utterances: Sequence[Utterance], sample: Sequence[Utterance]
) -> tuple[dict[_Name, Float[Tensor, " dim"]], list[Float[Tensor, "time dim"]]]:
    """Measure every speaker's mean, and keep the frames of a sample without it."""
    sums: dict[_Name, Tensor] = {}
    counts: Counter[_Name] = Counter()
    kept: list[tuple[_Name, Tensor]] = []
    wanted = {each.id for each in sample}
    for each, frames in cepstra.of(utterances):
        name = _named(each)
        sums[name] = sums.get(name, 0) + frames.sum(0)
        counts[name] += len(frames)
        if each.id in wanted:
            kept.append((name, frames))
    means = {name: total / counts[name] for name, total in sums.items()}
    return means, [frames - means[name] for name, frames in kept]


def _fit(frames: Sequence[Float[Tensor, "_ dim"]], config: Config, seed: int, say: Callable[[str], None]) -> Model:
    """Fit the model to frames without their speakers' means."""
    count = sum(map(len, frames))
    if count < _EACH:
        raise DataError(f"corpus: {count} frames of speech, expected at least {_EACH} to fit a model to; add audio")
    joined = torch.cat(list(frames))
    std = joined.square().mean(0).sqrt().clamp_min(1e-5)
    gaussians = min(config.gaussians, count // _EACH)
    mixture = fit_mixture(joined / std, gaussians, config.updates, address(seed, "fmllr") & (2**63 - 1))
    say(f"a model of {gaussians} Gaussians is fitted to {count * FRAME / SAMPLE_RATE / 60:.1f} min of speech")
    return Model(std, mixture)


def _speaker(
    out: Path,
    cepstra: _Cepstra,
    model: Model,
    utterances: Sequence[Utterance],
    mean: Float[Tensor, " dim"],
    config: Config,
    seed: int,
) -> tuple[Voice, dict[str, Utterance]]:
    """Adapt a speaker and write what he or she says; return what became of it, by id."""
    seconds = sum(each.seconds for each in utterances)
    transform, likelihoods = identity(len(mean)), ()
    if config.rounds and seconds >= config.minimum:
        heard = [(frames - mean) / model.std for _, frames in cepstra.of(_some(utterances, config.most, seed))]
        if heard:
            found = adapt(model.mixture, torch.cat(heard), config.rounds, config.sweeps, config.prior)
            transform, likelihoods = found.transform, found.likelihoods
    written = {
        each.id: _write(out, each, transformed((frames - mean) / model.std, transform))
        for each, frames in cepstra.of(utterances)
    }
    return Voice(utterances[0].speaker or utterances[0].id, len(utterances), seconds, likelihoods), written


def _named(utterance: Utterance) -> _Name:
    return utterance.speaker, utterance.id if utterance.speaker is None else None


def _by_speaker(utterances: Iterable[Utterance]) -> dict[_Name, list[Utterance]]:
    groups: dict[_Name, list[Utterance]] = {}
    for each in utterances:
        groups.setdefault(_named(each), []).append(each)
    return groups


def _some(utterances: Iterable[Utterance], seconds: float, seed: int) -> list[Utterance]:
    """Draw utterances that last so long together, at least one."""
    taken: list[Utterance] = []
    for each in sorted(utterances, key=lambda each: (address(seed, "fmllr", each.id), each.id)):
        if taken and seconds <= 0:
            break
        taken.append(each)
        seconds -= each.seconds
    return taken


def _write(out: Path, utterance: Utterance, frames: Float[Tensor, "time dim"]) -> Utterance:
    """Write an utterance's frames, and return it as it lies there."""
    path, buffer = out.absolute() / file_of(utterance.id), io.BytesIO()
    np.save(buffer, np.ascontiguousarray(frames.numpy(), np.float32), allow_pickle=False)
    write_atomically(path, buffer.getvalue())
    return replace(utterance, path=str(path), seconds=len(frames) * FRAME / SAMPLE_RATE, start=0.0)


def _summary(voices: Sequence[Voice], unnamed: int, config: Config) -> Iterator[str]:
    if unnamed:
        yield f"{unnamed} utterances name no speaker: each is a speaker of its own"
    adapted = [each for each in voices if each.likelihoods]
    kept = [each.speaker for each in voices if not each.likelihoods]
    if kept and config.rounds:
        few, names = f"{len(kept)} of {len(voices)} speakers", ", ".join(kept[:3]) + (" …" if len(kept) > 3 else "")
        yield f"{few} say less than {config.minimum:g} s ({names}): they lose their mean and nothing more"
    if adapted:
        before, after = (sum(each.likelihoods[end] for each in adapted) / len(adapted) for end in (0, -1))
        yield f"{len(adapted)} speakers adapted: log-likelihood of a frame {before:.2f} → {after:.2f} on average"
