"""Corpora for other toolkits: the lists that they read, pointing at the audio where it lies.

Every list is written in one rename; `open_corpus` reads each of them back. What a format has no place for stays behind:
Kaldi's keeps no phone times and no labels but the gender, NeMo's no phone times.
"""

# ruff: noqa: PTH119 -- paths stay as written: names may not be UTF-8, links stay

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mockingjay.audio import header, holds_features, shown
from mockingjay.core.errors import DataError
from mockingjay.core.files import replacing
from mockingjay.core.types import Utterance
from mockingjay.data.corpora.tree import stem
from mockingjay.data.manifest import Corpus

Format = Literal["lhotse", "kaldi", "nemo"]

_ENDS = 0.01  # seconds; a stretch that ends so near to its file's end is the whole of it


def export(corpus: Corpus, to: Format, folder: Path) -> list[Path]:
    """Write a corpus's lists for another toolkit, and return them.

    Args:
        corpus: Sound; features have no place in these lists.
        to: `lhotse`: recordings.jsonl and supervisions.jsonl. `kaldi`: a data folder, or one for each split. `nemo`:
            manifest.jsonl, or <split>_manifest.jsonl.
        folder: Made where it is not there.

    Raises:
        DataError: An utterance cannot be written so.
        MachineError: The folder cannot be written.
    """
    features = next((each.path for each in corpus.utterances if holds_features(each.path)), None)
    if features is not None:
        raise DataError(f"{shown(features)}: features, expected sound; export the corpus they were made of")
    return EXPORTS[to](corpus.utterances, folder)


def _lhotse(utterances: Sequence[Utterance], folder: Path) -> list[Path]:
    places = {path: _recording(path, name) for path, name in _recordings(utterances).items()}
    recordings, supervisions = folder / "recordings.jsonl", folder / "supervisions.jsonl"
    _write(recordings, map(json.dumps, places.values()))
    _write(supervisions, map(json.dumps, (_supervision(each, places[each.path]) for each in utterances)))
    return [recordings, supervisions]


def _recordings(utterances: Iterable[Utterance]) -> dict[str, str]:
    """Name every file: by its only utterance, or by itself; a second of a name gets a number."""
    ids: dict[str, list[str]] = {}
    for each in utterances:
        ids.setdefault(each.path, []).append(each.id)
    names, taken = {}, Counter()
    for path, inside in ids.items():
        name = inside[0] if len(inside) == 1 else shown(stem(os.path.basename(path)))
        taken[name] += 1
        names[path] = name if taken[name] == 1 else f"{name}-{taken[name]}"
    return names


def _recording(path: str, name: str) -> dict[str, Any]:
    found = header(path)
    channels = list(range(found.channels))
    return {
        "id": name,
        "sources": [{"type": "file", "channels": channels, "source": path}],
        "sampling_rate": found.rate,
        "num_samples": found.frames,
        "duration": found.seconds,
        "channel_ids": channels,
    }


def _supervision(utterance: Utterance, recording: Mapping[str, Any]) -> dict[str, Any]:
    known = {key: utterance.labels[key] for key in ("language", "gender") if key in utterance.labels}
    custom = {key: value for key, value in {"split": utterance.split, **utterance.labels}.items() if key not in known}
    channels = recording["channel_ids"]
    row = {
        "id": utterance.id,
        "recording_id": recording["id"],
        "start": utterance.start,
        "duration": utterance.seconds,
        "channel": channels if len(channels) > 1 else 0,
        "text": utterance.text,
        "speaker": utterance.speaker,
        **known,
        "custom": {key: value for key, value in custom.items() if value is not None} or None,
    }
    if utterance.alignment is not None:
        begin = utterance.start  # times there are those of the recording
        row["alignment"] = {
            "phone": [[phone, begin + start, end - start, None] for start, end, phone in utterance.alignment]
        }
    return {key: value for key, value in row.items() if value is not None}


def _kaldi(utterances: Sequence[Utterance], folder: Path) -> list[Path]:
    parts = _parts(utterances)
    places = {part: folder / (part or "rest") if len(parts) > 1 else folder / part for part in parts}
    return [path for part, chosen in parts.items() for path in _data_folder(chosen, places[part])]


def _data_folder(utterances: Sequence[Utterance], folder: Path) -> list[Path]:
    """Write a data folder, its lists sorted by bytes and the ids of speakers before those of their utterances."""
    ids = {each.id: _prefixed(each) for each in utterances}
    whole = all(not each.start and each.seconds > header(each.path).seconds - _ENDS for each in utterances)
    names = {each.path: ids[each.id] for each in utterances} if whole else _recordings(utterances)
    whole = whole and len(names) == len(utterances)
    genders = {
        each.speaker: each.labels["gender"][:1] for each in utterances if each.speaker and each.labels.get("gender")
    }
    lists: dict[str, dict[str, str]] = {
        "wav.scp": {name: path for path, name in names.items()},
        "utt2spk": {ids[each.id]: each.speaker or ids[each.id] for each in utterances},
        "text": {ids[each.id]: each.text for each in utterances if each.text},
        "spk2gender": genders,
    }
    if not whole or (folder / "segments").exists():  # or an earlier export's is read, as below
        lists["segments"] = {
            ids[each.id]: f"{names[each.path]} {each.start:.6f} {each.start + each.seconds:.6f}" for each in utterances
        }
    written = []
    for name, rows in lists.items():
        if rows or (folder / name).exists():  # an earlier export's would be read with these lists
            wrong = next((key for key, value in rows.items() if len(key.split()) != 1 or "\n" in value), None)
            if wrong is not None:
                what = f"{wrong!r} holds a space or a line's end"
                raise DataError(f"{shown(folder / name)}: {what}, which Kaldi's lists cannot; rename it")
            _write(folder / name, (f"{key} {rows[key]}" for key in sorted(rows, key=os.fsencode)))
            written.append(folder / name)
    return written


def _prefixed(utterance: Utterance) -> str:
    speaker = utterance.speaker
    return f"{speaker}-{utterance.id}" if speaker and not utterance.id.startswith(speaker) else utterance.id


def _nemo(utterances: Sequence[Utterance], folder: Path) -> list[Path]:
    written = []
    for part, chosen in _parts(utterances).items():
        path = folder / (f"{part}_manifest.jsonl" if part else "manifest.jsonl")
        _write(path, (json.dumps(_line(each)) for each in chosen))
        written.append(path)
    return written


def _line(utterance: Utterance) -> dict[str, Any]:
    row = {
        "audio_filepath": utterance.path,
        "offset": utterance.start,
        "duration": utterance.seconds,
        "text": utterance.text,
        "speaker": utterance.speaker,
        "id": utterance.id,
        "split": utterance.split,
        **utterance.labels,
    }
    return {key: value for key, value in row.items() if value is not None}


def _parts(utterances: Iterable[Utterance]) -> dict[str, list[Utterance]]:
    """Part utterances by their splits, which name files; those in none are the part without a name."""
    parts: dict[str, list[Utterance]] = {}
    for each in utterances:
        parts.setdefault((each.split or "").replace(os.sep, "-").lstrip("."), []).append(each)
    return parts


def _write(path: Path, lines: Iterable[str]) -> None:
    with replacing(path, 0) as file:
        for line in lines:
            file.write(os.fsencode(line) + b"\n")


EXPORTS: Mapping[Format, Callable[[Sequence[Utterance], Path], list[Path]]] = {
    "lhotse": _lhotse,
    "kaldi": _kaldi,
    "nemo": _nemo,
}
