"""Health of a corpus: every utterance is decoded once, so that what is wrong is known before the first step."""

import contextlib
import hashlib
import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mockingjay.audio import AudioError, fault, header, holds_features, load, located, shown
from mockingjay.core.errors import DataError
from mockingjay.core.files import writing
from mockingjay.core.types import SAMPLE_RATE, Utterance
from mockingjay.data.corpora import open_corpus
from mockingjay.data.manifest import Corpus
from mockingjay.data.quarantine import Refusal

FULL_SCALE = 0.999  # of ±1; a sample from here up is clipped
CLIPPED = 8  # samples at full scale (0.5 ms) that make an utterance a clipped one
SILENT = 2.0**-16  # highest sample of digital silence: half a step of 16 bits
QUIET = -55.0  # dBFS; root mean square below which an utterance is of low energy
FLOOR = -120.0  # dBFS; what the level of digital silence is given as

_PERCENTILES = (0, 5, 50, 95, 100)


@dataclass(frozen=True, slots=True)
class Measure:
    """What decoding an utterance told."""

    seconds: float
    rate: int  # samples per second, of the file
    channels: int
    format: str
    peak: float
    level: float  # dBFS, root mean square
    clipped: int  # samples at full scale
    digest: str  # of the decoded samples
    dim: int | None = None  # values a frame of features, of which rate, channels, level and clipping say nothing


@dataclass(frozen=True, slots=True)
class Health:
    """What a corpus holds, and what is wrong with it.

    Attributes:
        corpus: The utterances that can be used, with the lengths that were decoded, and all refusals.
        rates: Samples per second → utterances.
        channels: Channels → utterances.
        formats: Format → utterances.
        widths: Values a frame → utterances, of files of features; these count in no other table but formats.
        clipped: Utterances with at least `CLIPPED` samples at full scale.
        silent: Utterances of digital silence.
        quiet: Utterances of low energy, the silent ones included.
        duplicates: Ids whose decoded samples are the same; digital silence is left out.
        levels: Percentile → dBFS.
        durations: Percentile → seconds.
        left_out: Utterances that can be used and are shorter than was wanted; they count in no table.
    """

    corpus: Corpus
    rates: Mapping[int, int]
    channels: Mapping[int, int]
    formats: Mapping[str, int]
    widths: Mapping[int, int]
    clipped: int
    silent: int
    quiet: int
    duplicates: tuple[tuple[str, ...], ...]
    levels: Mapping[int, float]
    durations: Mapping[int, float]
    left_out: tuple[Utterance, ...] = ()

    @property
    def hours(self) -> float:
        """Hours of audio that can be used."""
        return self.corpus.seconds / 3600

    @property
    def resampled(self) -> int:
        """Utterances whose rate is not the models'."""
        return sum(count for rate, count in self.rates.items() if rate != SAMPLE_RATE)

    def rows(self) -> list[tuple[str, str]]:
        """List (quantity, value) for printing."""
        count = len(self.corpus.utterances)
        refused = Counter(refusal.kind for refusal in self.corpus.refused)

        def of(part: int) -> str:
            return f"{part} ({part / count:.1%})" if count else "0"

        of_sound = [
            ("sample rates", _counts(self.rates)),
            ("channels", _counts(self.channels)),
            ("resampled to 16 kHz", of(self.resampled)),
            ("level, dBFS", _spread(self.levels, "{:.1f}")),
            (f"clipped (≥ {CLIPPED} samples at full scale)", of(self.clipped)),
            ("digital silence", of(self.silent)),
            (f"low energy (below {QUIET:g} dBFS)", of(self.quiet)),
        ]
        return [
            ("corpus", self.corpus.name),
            ("utterances", str(count)),
            ("hours", f"{self.hours:.3f}"),
            ("speakers", str(len(self.corpus.speakers) or "unknown")),
            ("formats", _counts(self.formats)),
            ("duration, s", _spread(self.durations, "{:.2f}")),
            *([("values a frame", _counts(self.widths))] if self.widths else []),
            *(of_sound if self.rates or not self.widths else []),
            ("same audio under several ids", str(sum(len(ids) for ids in self.duplicates))),
            ("refused", f"{len(self.corpus.refused)}" + (f": {_counts(refused)}" if refused else "")),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Give everything but the utterances themselves, for JSON."""
        return {
            "corpus": self.corpus.name,
            "utterances": len(self.corpus.utterances),
            "hours": self.hours,
            "speakers": len(self.corpus.speakers),
            "rates": {str(rate): count for rate, count in self.rates.items()},
            "channels": {str(channels): count for channels, count in self.channels.items()},
            "formats": dict(self.formats),
            "widths": {str(width): count for width, count in self.widths.items()},
            "resampled": self.resampled,
            "durations": {f"p{percentile}": value for percentile, value in self.durations.items()},
            "levels": {f"p{percentile}": value for percentile, value in self.levels.items()},
            "clipped": self.clipped,
            "silent": self.silent,
            "quiet": self.quiet,
            "duplicates": [list(ids) for ids in self.duplicates],
            "refused": [asdict(refusal) for refusal in self.corpus.refused],
        }


def scan(
    corpus: Corpus,
    minimum_seconds: float,
    workers: int = 2,
    cache: Path | None = None,
    wanted_seconds: float = 0.0,
    keep: bool = True,
) -> Health:
    """Decode every utterance once and say what the corpus holds.

    Args:
        corpus: The corpus; what it refused already stays refused.
        minimum_seconds: Utterances shorter than this are refused; the model's receptive field, as a rule.
        workers: Threads; decoding runs outside the interpreter's lock.
        cache: A JSONL file that keeps what was measured, so that files that did not change are not decoded again.
        wanted_seconds: Utterances shorter than this are left out; nothing is wrong with them.
        keep: Whether what is measured anew is added to the cache; of several processes that read it, one does.
    """
    known = _Cache(cache, keep)
    accepted: list[Utterance] = []
    left_out: list[Utterance] = []
    measures: list[Measure] = []
    refused = list(corpus.refused)
    for utterance, measured in _measured(corpus.utterances, known, workers):
        if isinstance(measured, AudioError):
            refused.append(Refusal.of(measured, utterance.id))
        elif measured.seconds < minimum_seconds:
            what = f"{measured.seconds:g} s long, expected at least {minimum_seconds:g} s"
            error = fault(utterance.path, "too-short", what, "join it with its neighbours, or remove it")
            refused.append(Refusal.of(error, utterance.id))
        elif measured.seconds < wanted_seconds:
            left_out.append(replace(utterance, seconds=measured.seconds))
        else:
            accepted.append(replace(utterance, seconds=measured.seconds))
            measures.append(measured)
    return _health(Corpus(corpus.name, tuple(accepted), tuple(refused)), measures, tuple(left_out))


def inspect(
    path: str | os.PathLike[str], minimum_seconds: float = 0.1, workers: int = 2, cache: Path | None = None
) -> Health:
    """Open whatever corpus lies at a path and scan it.

    Raises:
        DataError: No corpus lies there.
    """
    return scan(open_corpus(path), minimum_seconds, workers, cache)


def check_reads(paths: Iterable[str], reads: int | None) -> None:
    """Refuse files that a model would read without a word, and understand nothing of.

    Args:
        paths: Sound and features, told apart by their names; a file whose header is wrong passes, reading it will tell.
        reads: Values a frame of the features that the model's frontend reads; None where it reads sound.

    Raises:
        DataError: There is one.
    """
    paths = list(paths)
    widths = {path: _width(path, reads) for path in paths}
    strange = [path for path in paths if widths[path] != reads]
    if strange:
        mend = "give audio, or set the frontend to precomputed" if reads is None else "give those, or set its dim"
        raise DataError(
            f"{shown(strange[0])}: {_called(widths[strange[0]])} (so are {len(strange)} of {len(paths)} files), "
            f"expected {_called(reads)}, which is what the model's frontend reads; {mend}"
        )


def _width(path: str, unknown: int | None) -> int | None:
    try:
        return header(path).dim if holds_features(path) else None
    except AudioError:
        return unknown


def _called(width: int | None) -> str:
    return "sound" if width is None else f"features of {width} values a frame"


class _Cache:
    """Measures by (path, size, time of change, stretch), appended to a JSONL file."""

    def __init__(self, path: Path | None, keep: bool):
        self._path = path if keep else None
        self._rows: dict[str, Measure] = {}
        if path is not None and path.exists():
            for line in path.read_text("utf-8").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # what a crash tore is measured again
                    row = json.loads(line)
                    self._rows[row["key"]] = Measure(**row["measure"])

    def get(self, key: str) -> Measure | None:
        return self._rows.get(key)

    def add(self, rows: Mapping[str, Measure]) -> None:
        if self._path is None or not rows:
            return
        lines = [json.dumps({"key": key, "measure": asdict(row)}) + "\n" for key, row in rows.items()]
        with writing(self._path, sum(map(len, lines))), self._path.open("a", encoding="utf-8") as file:
            file.writelines(lines)


def _measured(
    utterances: Iterable[Utterance], known: _Cache, workers: int
) -> Iterator[tuple[Utterance, Measure | AudioError]]:
    def task(utterance: Utterance) -> tuple[str, Measure | AudioError]:
        key = _key(utterance)
        return key, known.get(key) or _measure(utterance)

    utterances = iter(utterances)
    with ThreadPoolExecutor(workers) as pool:
        # By slices, as a pool would otherwise hold a task for every utterance of the corpus at once.
        while batch := list(islice(utterances, 1024)):
            results = list(pool.map(task, batch))
            fresh = {key: found for key, found in results if isinstance(found, Measure) and known.get(key) is None}
            known.add(fresh)
            yield from ((utterance, found) for utterance, (_, found) in zip(batch, results))


def _key(utterance: Utterance) -> str:
    try:
        status = Path(located(utterance.path)[0]).stat()
    except (OSError, ValueError):
        return ""  # decoding it will name the fault
    return json.dumps(
        [utterance.path, status.st_size, status.st_mtime_ns, utterance.start, round(utterance.seconds, 3)]
    )


def _measure(utterance: Utterance) -> Measure | AudioError:
    try:
        header, samples = load(utterance.path, utterance.start, utterance.seconds)
    except AudioError as error:
        return error
    wave = samples.numpy()
    peak = float(max(wave.max(), -wave.min()))
    power = float(np.dot(wave, wave)) / len(wave) if header.dim is None else 0.0
    return Measure(
        seconds=len(wave) / SAMPLE_RATE,
        rate=header.rate,
        channels=header.channels,
        format=header.format,
        peak=peak,
        level=max(FLOOR, 10 * math.log10(power)) if power > 0 else FLOOR,
        clipped=int(np.count_nonzero(np.abs(wave) >= FULL_SCALE)) if peak >= FULL_SCALE else 0,
        digest=hashlib.sha256(wave.data).hexdigest()[:32],
        dim=header.dim,
    )


def _health(corpus: Corpus, measures: list[Measure], left_out: tuple[Utterance, ...]) -> Health:
    same: dict[str, list[str]] = defaultdict(list)
    for utterance, measure in zip(corpus.utterances, measures, strict=True):
        if measure.peak > SILENT:
            same[measure.digest].append(utterance.id)
    sounds = [measure for measure in measures if measure.dim is None]
    return Health(
        corpus=corpus,
        rates=_counted(measure.rate for measure in sounds),
        channels=_counted(measure.channels for measure in sounds),
        formats=_counted(measure.format for measure in measures),
        widths=_counted(measure.dim for measure in measures if measure.dim is not None),
        clipped=sum(measure.clipped >= CLIPPED for measure in sounds),
        silent=sum(measure.peak <= SILENT for measure in sounds),
        quiet=sum(measure.level < QUIET for measure in sounds),
        duplicates=tuple(tuple(ids) for ids in same.values() if len(ids) > 1),
        levels=_percentiles([measure.level for measure in sounds]),
        durations=_percentiles([measure.seconds for measure in measures]),
        left_out=left_out,
    )


def _counted(values: Iterable[Any]) -> dict[Any, int]:
    return dict(Counter(values).most_common())


def _percentiles(values: list[float]) -> dict[int, float]:
    if not values:
        return {}
    return {percentile: float(value) for percentile, value in zip(_PERCENTILES, np.percentile(values, _PERCENTILES))}


def _counts(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{value}: {count}" for value, count in counts.items()) or "none"


def _spread(percentiles: Mapping[int, float], shape: str) -> str:
    return " · ".join(f"p{percentile} {shape.format(value)}" for percentile, value in percentiles.items()) or "none"
