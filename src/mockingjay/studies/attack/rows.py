"""What a study of attacks found, as result rows, and what may be said of every defence."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from jaxtyping import Float

from mockingjay.downstream.countermeasures import FAMILIES
from mockingjay.downstream.detection import curve
from mockingjay.downstream.partition import PARTS
from mockingjay.downstream.scores import Scores, bounded, paired_difference
from mockingjay.studies import noise
from mockingjay.studies.attack.defence import AGAIN, NONE
from mockingjay.studies.attack.study import METHODS, NOISE, Study
from mockingjay.studies.attack.subject import UNTRAINED

Row = Mapping[str, Any]


def rows(study: Study) -> list[Row]:
    """List everything that was measured; `representation` is the defence."""
    measured = _bounded(study.seed, [*_unaltered(study), *_shown(study), *_adaptive(study)])
    return [*_clean(study), *measured, *_noise(study)]


def headlines(found: Sequence[Row]) -> list[Row]:
    """Choose what a terminal has room for: error rates, and the strongest attacks of each family on its own kind."""
    made = [row for row in found if row.get("source") is not None]
    place = "features" if any(row["place"] == "features" for row in made) else "waveform"
    strongest = max((row["deviations"] for row in made if row["place"] == place), default=0.0)
    best = [row for row in made if (row["place"], row["deviations"]) == (place, strongest)]
    return [row for row in found if row["metric"] == "EER" or (row in best and row["source"] == row["model"])]


def claims(study: Study) -> list[Row]:
    """Hold every defence against no defence, against the same merely trained again, and against an untrained network.

    Values are accuracies averaged over all bounds on features, or on samples where those alone are attacked, paired by
    utterance; only what was attacked alike is compared. Under `adaptive` a defence is held against itself, attacked by
    who knows it and by who does not.
    """
    return [*_against_rivals(study), *_against_itself(study)]


def _clean(study: Study) -> Iterator[Row]:
    for family, defences in study.trained.items():
        for name, known in defences.items():
            bonafide = np.array(known["answers"]) == 1
            about = _about(study, family, name, "clean", len(known["ids"])) | {"used": _used(study)}
            for metric, (value, bounds) in known["measured"].items():
                yield {**about, "metric": metric, "value": value, "ci95": bounds, "threshold": known["threshold"]}
            right = _right(study, family, name, known["scores"], bonafide)
            yield from _bounded(study.seed, [about | {"right": right}])


def _used(study: Study) -> dict[str, list[int]]:
    """Part → utterances that were used, and that there are."""
    return {part: [study.facts[f"{part} utterances"], study.facts[f"{part} utterances in all"]] for part in PARTS}


def _unaltered(study: Study) -> Iterator[Row]:
    """What is attacked, before it is: a defence behind which nothing is told apart holds off every attack."""
    for family, defences in study.trained.items():
        for name, known in defences.items():
            scores = dict(zip(known["ids"], known["scores"]))
            row = _attacked(study, family, name, "unaltered", [scores[id] for id in study.facts["attacked"]])
            zeros = {"level": 0.0, "epsilon": 0.0, "deviations": 0.0, "snr": None}
            yield row | zeros | {"source": None, "method": "unaltered", "place": study.place}


def _shown(study: Study) -> Iterator[Row]:
    for each in study.shown:
        for family, defences in each["scores"].items():
            for name, scores in defences.items():
                yield _attacked(study, family, name, _told(each), scores) | _how(each)


def _noise(study: Study) -> Iterator[Row]:
    """How much of an attack there is in every layer of every network, the features that it reads first."""
    for each in study.shown:
        for name, by_norm in each.get("noise", {}).items():  # earlier studies have none
            for norm, by_layer in by_norm.items():
                table = np.array(by_layer, dtype=float).T
                about = _about(study, None, name, _told(each), len(table)) | _how(each) | {"norm": norm}
                found = noise.lnsr(table, study.seed)
                for layer, (mean, *bounds, total) in enumerate(zip(found.mean, found.low, found.high, found.sum)):
                    where = {"layer": layer - 1 if layer else "input", "sum": total}
                    yield about | where | {"metric": "LNSR", "value": mean, "ci95": bounds}


def _told(each: Mapping[str, Any]) -> str:
    """Name an attack that was shown to all."""
    told = f"random noise, {each['place']}" if each["method"] == NOISE else f"{each['method']} of {each['source']}"
    told += ", waveform" if each["place"] == "waveform" and each["source"] else ""
    return f"{told} at {each['level']:g} dB"


def _how(each: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("source", "method", "place", "level", "epsilon", "deviations")
    return {key: each[key] for key in keys} | {"snr": fmean(each["snr"])}


def _adaptive(study: Study) -> Iterator[Row]:
    for each in study.adaptive:
        told = f"adaptive PGD at {each['level']:g} dB"
        row = _attacked(study, each["family"], each["defence"], told, each["scores"])
        yield row | _how({**each, "source": each["family"], "method": "adaptive", "place": study.place})


def _bounded(seed: int, found: Sequence[Row]) -> Iterator[Row]:
    """Turn what was right of each utterance into accuracies; all intervals of one length are drawn at once."""
    alike: dict[int, list[Row]] = {}
    for row in found:
        alike.setdefault(row["n"], []).append(row)
    for count, some in alike.items():
        shares = np.stack([row["right"] for row in some], 1) / count
        low, high = bounded(shares, lambda sums: sums, seed=seed)
        for row, least, most in zip(some, low, high):
            value = {"metric": "accuracy", "value": float(row["right"].mean()), "ci95": [float(least), float(most)]}
            yield {key: each for key, each in row.items() if key != "right"} | value


def _attacked(study: Study, family: str, name: str, told: str, scores: Sequence[float]) -> dict[str, Any]:
    """Decide at the threshold from dev, which no attack has moved."""
    ids, bonafide = _attacked_ids(study, len(scores))
    right = _right(study, family, name, scores, bonafide)
    about = _about(study, family, name, told, len(ids)) | {"right": right}
    error = float(curve(np.array(scores), bonafide).equal_error[0])
    return about | {"eer": error, "spoofs_let_in": float(1 - right[~bonafide].mean())}


def _against_rivals(study: Study) -> Iterator[Row]:
    for panel, (family, method) in zip("ABCD", ((family, method) for family in FAMILIES for method in METHODS)):
        sets = [
            each
            for each in study.shown
            if (each["source"], each["method"], each["place"]) == (family, method, study.place)
        ]
        tried = {
            name: _mean(study, family, name, [each["scores"][family][name] for each in sets])
            for name in _names(study, sets)
        }
        for name in tried:
            for rival in (NONE, AGAIN, UNTRAINED):
                if rival in tried and name != rival and name not in (NONE, AGAIN):
                    about = {"panel": panel, "family": family, "method": method, "defence": name, "rival": rival}
                    yield about | _difference(study, tried[name], tried[rival])


def _against_itself(study: Study) -> Iterator[Row]:
    for family in FAMILIES:
        for name in study.names:
            known = [each for each in study.adaptive if (each["family"], each["defence"]) == (family, name)]
            sets = {
                each["level"]: each["scores"][family][name]
                for each in study.shown
                if (each["source"], each["method"], each["place"]) == (family, "PGD", study.place)
            }
            if known and sets and name != NONE:
                count = len(known[0]["scores"])
                unknown = _mean(study, family, name, [sets[each["level"]][:count] for each in known])
                through = _mean(study, family, name, [each["scores"] for each in known])
                about = {"panel": None, "family": family, "method": "adaptive", "defence": name, "rival": name}
                yield about | _difference(study, through, unknown)


def _names(study: Study, sets: Sequence[Row]) -> Sequence[str]:
    return study.names if sets else ()


def _mean(study: Study, family: str, name: str, sets: Sequence[Sequence[float]]) -> Scores:
    """Accuracy averaged over bounds, for each utterance."""
    ids, bonafide = _attacked_ids(study, len(sets[0]))
    right = np.mean([_right(study, family, name, scores, bonafide) for scores in sets], axis=0)
    return Scores(ids, right, np.ones(len(ids)))


def _difference(study: Study, first: Scores, second: Scores) -> dict[str, Any]:
    found = paired_difference(first, second, seed=study.seed)
    values = {"ours": [first.value, second.value], "difference": found.value}
    return values | {"ci95": list(found.ci95), "verdict": found.verdict, "n": len(first.ids)}


def _right(
    study: Study, family: str, name: str, scores: Sequence[float], bonafide: np.ndarray
) -> Float[np.ndarray, " utterances"]:
    threshold = study.trained[family][name]["threshold"]
    return ((np.array(scores) >= threshold) == bonafide).astype(float)


def _attacked_ids(study: Study, count: int) -> tuple[tuple[str, ...], np.ndarray]:
    return tuple(study.facts["attacked"][:count]), np.array(study.facts["answers"][:count]) == 1


def _about(study: Study, family: str | None, name: str, told: str, count: int) -> dict[str, Any]:
    task = f"{family}: {told}" if family else told
    about = {"representation": name, "task": task, "n": count, "seed": study.seed, "data": study.data}
    return about | {"model": family, "attack": told, "place": None, "level": None}
