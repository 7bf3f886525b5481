"""The findings of the study of attention as rows of results.json."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mockingjay.studies.attention.heads import CATEGORIES, RANKED
from mockingjay.studies.attention.pruning import HELD_OUT
from mockingjay.studies.attention.study import Study

Row = Mapping[str, Any]
MEASURED = "speech segmentation"  # the task of rows that score boundaries
REMOVING = "removing heads"  # the task of rows that say what an order of removing heads is worth


def rows(study: Study) -> list[Row]:
    """Write down everything that is known, one number a row."""
    found: list[Row] = []
    for name, parts in study.findings.items():
        shared = {"representation": name, "seed": study.seed, "data": study.data}
        for part, write in _WRITERS.items():
            if parts.get(part):
                found += [{**shared, **row} for row in write(parts[part])]
    return found


def headlines(found: Sequence[Row]) -> list[Row]:
    """Keep the rows that are worth printing in a terminal, each named with what sets it apart."""
    told = [(row, row.get("source") or row.get("order")) for row in found if row["task"] in (MEASURED, REMOVING)]
    return [{**row, "representation": f"{row['representation']}: {what}"} for row, what in told]


def _row(task: str, metric: str, value: int | float, ci95: Any, n: int, **more: Any) -> dict[str, Any]:
    return {"task": task, "metric": metric, "value": value, "ci95": ci95, "n": n, **more}


def _seen(part: Mapping[str, Any]) -> Iterator[Row]:
    n, each = len(part["ids"]), part["heads"]
    for place, metric in enumerate(RANKED):
        triples = zip(*(part[key][place] for key in ("measures", "low", "high")))
        for head, (value, low, high) in enumerate(triples):
            where = {"layer": head // each + 1, "head": head % each + 1}
            category = CATEGORIES[part["categories"][head]]
            yield _row("attention head", metric, value, [low, high], n, **where, category=category)
    for metric, key in (("linear CKA", "cka"), ("Jensen–Shannon divergence", "divergence")):
        first = 0 if key == "cka" else 1  # hidden layers are counted from 0, layers of attention from 1
        for one, line in enumerate(part[key]["value"]):
            for other in range(one + 1, len(line)):
                bounds = [part[key]["low"][one][other], part[key]["high"][one][other]]
                pair = {"layer": one + first, "other": other + first}
                yield _row("layer similarity", metric, line[other], bounds, n, **pair)
    related = part.get("relations", {"heads": []})
    for record in related["heads"]:
        where = {"layer": record["head"] // each + 1, "head": record["head"] % each + 1}
        for phone, value, low, high in zip(related["phones"], record["concentration"], record["low"], record["high"]):
            if value is not None:
                bounds = [low, high]
                yield _row(
                    "phone relation", "concentration", value, bounds, related["utterances"], **where, phone=phone
                )


def _segments(part: Mapping[str, Any]) -> Iterator[Row]:
    for source in part["sources"]:
        for metric in ("R-value", "f1", "precision", "recall"):
            known = source[metric]
            more = {"source": source["source"], "setting": source["setting"]}
            more |= {"over": source["over"]} if metric == "R-value" else {}
            yield _row(MEASURED, metric, known["value"], known["ci95"], part["utterances"], **more)


def _noise(part: Mapping[str, Any]) -> Iterator[Row]:
    task = f"white noise at {part['decibels']:g} dB"
    for norm in ("frobenius", "spectral", "frame"):
        columns = (part[norm][key] for key in ("mean", "sum", "low", "high"))
        for place, (mean, total, low, high) in enumerate(zip(*columns)):
            layer = place - 1 if part["input"] else place
            where = {"layer": "input" if layer < 0 else layer, "norm": norm, "sum": total}
            yield _row(task, "LNSR", mean, [low, high], part["utterances"], **where)


def _cost(part: Mapping[str, Any]) -> Iterator[Row]:
    metrics = {
        "parameters": "parameters",
        "weights": "bytes of weights",
        "forward": "seconds to represent a second",
        "training": "seconds to train on a second",
        "kept": "bytes kept for training on a second",
    }
    for key, metric in metrics.items():
        yield _row("cost", metric, part[key], None, 1)


def _layers(part: Mapping[str, Any]) -> Iterator[Row]:
    for name, known in part.items():
        for layer, point in enumerate(known["points"]):
            yield _row(name, "accuracy", point["value"], point["ci95"], known["n"], layer=layer, read=f"layer:{layer}")


def _pruning(part: Mapping[str, Any]) -> Iterator[Row]:
    for order, known in part["curves"].items():
        for name, points in known.items():
            for count, point in zip(part["removed"], points):
                more = {"order": order, "removed": count}
                yield _row(
                    f"{name} without heads", _metric(name), point["value"], point["ci95"], part["n"][name], **more
                )
    for order, known in part["areas"].items():
        for name, area in known.items():
            more = {"order": order, "measured": name, "verdict": area["verdict"]}
            metric = f"area over random, {name}"
            yield _row(REMOVING, metric, area["value"], area["ci95"], part["n"][name], **more)


def _spans(part: Mapping[str, Any]) -> Iterator[Row]:
    for where, known in part["curves"].items():
        for name, points in known.items():
            for span, point in zip(part["spans"], points):
                task, more = f"{name} within a span", {"span": span, "where": f"{where} the softmax"}
                yield _row(task, _metric(name), point["value"], point["ci95"], part["n"][name], **more)


def _metric(name: str) -> str:
    return "loss" if name == HELD_OUT else "accuracy"


_WRITERS = {
    "seen": _seen,
    "segments": _segments,
    "noise": _noise,
    "cost": _cost,
    "layers": _layers,
    "pruning": _pruning,
    "spans": _spans,
}
