"""The study of attention as one page: heads, phone relations, segmentation, pruning, spans and layers.

Every sentence about success is generated from the numbers, and what is missing is said in words.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mockingjay.report import attention_figures as drawn
from mockingjay.report.figures import Drawing, inline
from mockingjay.report.page import Block, Cell, Page, Section, Table, key_values
from mockingjay.report.tables import interval, number

Findings = Mapping[str, Mapping[str, Any]]  # by name of the representation, then by part
Maps = Mapping[str, Mapping[str, Float[np.ndarray, "layers heads query key"]]]
_SAID = {"holds": "surely better", "does not": "surely worse", "undecided": "not surely different"}


def attention_page(
    *, data: str, command: str, findings: Findings, maps: Maps, absent: Sequence[str], budget: float, finished: bool
) -> Page:
    """Assemble the report of a study, finished or not.

    Args:
        data: Name of the speech.
        command: What reproduces it.
        findings: What is known of each representation.
        maps: A few utterances' attention for each.
        absent: What could not be measured, in sentences.
        budget: Seconds for all of it.
        finished: Whether nothing is to come.
    """
    known = {name: parts for name, parts in findings.items() if "cost" in parts}
    sections = (
        _maps(known, maps),
        _kinds(known),
        _relations(known),
        _segments(known),
        _removed(known),
        _spans(known),
        _layers(known),
        _cost(known),
        _plan(known, absent, budget, finished),
    )
    return Page(f"Self-attention of {', '.join(findings)} on {data}", _summary(known, finished), command, sections)


def drawings(findings: Findings, maps: Maps) -> Iterator[tuple[str, Drawing]]:
    """List every picture with a name for its file."""
    for one, (name, parts) in enumerate(findings.items(), 1):
        for other, (what, drawing) in enumerate(_pictures(parts, maps.get(name, {})), 1):
            yield f"{one}-{other:02d}-{what}", drawing


def _pictures(
    parts: Mapping[str, Any], maps: Mapping[str, Float[np.ndarray, "layers heads query key"]]
) -> Iterator[tuple[str, Drawing]]:
    seen = parts["seen"]
    for id, shown in maps.items():
        yield "maps", drawn.maps(shown, seen["categories"], seen["hop"], id)
    yield "heads", drawn.kinds(seen)
    if "relations" in seen:
        yield "relations", drawn.relations(seen["relations"], _titles(seen))
    for part, draw in (("pruning", drawn.removed), ("spans", drawn.spans)):
        if part in parts:
            yield part, draw(parts[part])
    yield "similarity", drawn.similarity(seen)
    yield "layers", drawn.by_layer(parts)


def _figures(findings: Findings, part: str, draw: Callable[[Mapping[str, Any]], Drawing]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    for place, (name, parts) in enumerate(findings.items()):
        if part in parts:
            drawing = draw(parts)
            if len(findings) > 1:
                drawing = Drawing(drawing.canvas, f"{name}: {drawing.alt}", f"{name}. {drawing.caption}")
            blocks.append(inline(drawing, f"{part}{place}-{drawing.alt[:24]}"))
    return tuple(blocks)


def _summary(findings: Findings, finished: bool) -> str:
    if not findings:
        return "Nothing has been measured yet."
    sentences = []
    for name, parts in findings.items():
        seen = parts["seen"]
        counts = ", ".join(f"{seen['categories'].count(kind)} {called}" for kind, called in enumerate(drawn.KINDS))
        said = [
            f"{name}: {len(seen['categories'])} heads in {seen['layers']} layers were looked at on {len(seen['ids'])} "
            f"utterances that it was not trained on: {counts}.",
            _boundaries_sentence(parts.get("segments")),
            *_worth(parts.get("pruning")),
        ]
        sentences.append(" ".join(filter(None, said)))
    return "\n\n".join(sentences) + ("" if finished else "\n\nThe study is not finished; more is to come.")


def _boundaries_sentence(part: Mapping[str, Any] | None) -> str:
    if not part:
        return ""
    heads = [source for source in part["sources"] if source["source"].startswith("head")]
    if not heads:
        return ""
    amount = number(heads[0]["R-value"]["value"], "R-value")
    rivals = " and ".join(
        f"{_SAID[over['verdict']]} {'than' if over['verdict'] != 'undecided' else 'from'} "
        f"{'cepstra' if rival == 'mfcc' else 'even boundaries'}"
        for rival, over in heads[0]["over"].items()
    )
    return f"The rows of one head find phone boundaries with an R-value of {amount}, {rivals}."


def _worth(part: Mapping[str, Any] | None) -> Iterator[str]:
    if not part:
        return
    for name, area in part["areas"]["weakest output"].items():
        yield (
            f"Removing the heads of weakest output first is {_SAID[area['verdict']]} than removing them at random, "
            f"by {_called(name)}."
            if area["verdict"] != "undecided"
            else f"By {_called(name)}, removing the heads of weakest output first cannot be told from removing them at "
            "random."
        )


def _maps(findings: Findings, maps: Maps) -> Section:
    blocks = [
        inline(drawn.maps(shown, parts["seen"]["categories"], parts["seen"]["hop"], id), f"maps{place}-{index}")
        for place, (name, parts) in enumerate(findings.items())
        for index, (id, shown) in enumerate(maps.get(name, {}).items())
    ]
    return Section("Where heads look", "Every head of a few utterances.", tuple(blocks))


def _kinds(findings: Findings) -> Section:
    text = (
        "Globalness is the entropy of single queries, verticality the negated entropy of all queries together, and "
        "diagonality the negated distance from query to key (arXiv 2006.03265)."
    )
    return Section("Kinds of heads", text, _figures(findings, "seen", lambda parts: drawn.kinds(parts["seen"])))


def _relations(findings: Findings) -> Section:
    title = "Phone relations"
    related = {name: parts for name, parts in findings.items() if "relations" in parts["seen"]}
    if not related:
        return Section(title, "No aligned phones were at hand, so what heads look at has no names.")
    lines = tuple(
        (
            Cell(f"{name}, {heading}" if len(findings) > 1 else heading),
            Cell(record["reason"]),
            *(Cell(_looked_at(record, kind, parts["seen"]["relations"]["phones"])) for kind in ("focus", "neglect")),
        )
        for name, parts in related.items()
        for record, heading in zip(parts["seen"]["relations"]["heads"], _titles(parts["seen"]))
    )
    heads = tuple(map(Cell, ("head", "chosen because it is or", "focus on", "neglect of")))
    table = Table("Phones that are looked at above and below chance: 0 as much, 1 twice as much.", heads, lines)
    pictures = _figures(
        related, "seen", lambda parts: drawn.relations(parts["seen"]["relations"], _titles(parts["seen"]))
    )
    text = "Heads and their phones were chosen on other utterances than those on which they are measured here."
    return Section(title, text, (table, *pictures))


def _segments(findings: Findings) -> Section:
    title = "Phone boundaries"
    found = {name: parts["segments"] for name, parts in findings.items() if parts.get("segments")}
    if not found:
        return Section(title, "No aligned phones were at hand, so no boundaries could be scored.")
    lines = tuple(
        (
            Cell(f"{name}, {_source(source)}" if len(found) > 1 else _source(source)),
            *(
                Cell(number(source[key]["value"], key), interval(source[key]["ci95"], key))
                for key in ("R-value", "f1", "precision", "recall")
            ),
            *(Cell(*_against(source["over"].get(rival))) for rival in ("mfcc", "uniform")),
        )
        for name, part in found.items()
        for source in part["sources"]
    )
    heads = ("source", "R-value", "F1", "precision", "recall", "R-value over cepstra", "over even boundaries")
    amounts = dict.fromkeys(
        f"{each['boundaries']:,} boundaries in {each['utterances']} utterances" for each in found.values()
    )
    caption = f"{', or '.join(amounts)}, hits within 20 ms, with 95 % intervals; differences are paired by utterance."
    text = (
        "Boundaries lie where neighbouring steps stop being alike. Which head and which layer, the scale and the "
        "threshold were chosen on other utterances than these; even boundaries come at the best rate there."
    )
    return Section(title, text, (Table(caption, tuple(map(Cell, heads)), lines),))


def _removed(findings: Findings) -> Section:
    title = "Removing heads"
    found = {name: parts["pruning"] for name, parts in findings.items() if "pruning" in parts}
    if not found:
        return Section(title, "Nothing has been asked of pruned networks, for want of labels, of a task, or of time.")
    measures = list(dict.fromkeys(name for part in found.values() for name in part["n"]))
    lines = tuple(
        (
            Cell(f"{name}, {order}" if len(found) > 1 else order),
            *(_area(part["areas"][order].get(measure), measure) for measure in measures),
        )
        for name, part in found.items()
        for order in part["areas"]
    )
    caption = (
        "Area between a curve and the mean of random orders, over the share of heads removed: above 0 less is lost "
        "than at random. Bold where the 95 % interval lies above zero."
    )
    table = Table(caption, (Cell("order"), *(Cell(_called(measure)) for measure in measures)), lines)
    text = (
        "Probes on the last layer are trained anew for every set of heads that is left; the network itself stays as it "
        "was trained. Orders come from other utterances than those on which probes and loss are scored. The weight of "
        "a head is the mean over utterances of its maximal attention weight, the baseline of arXiv 2006.03265; its "
        "output is what it adds to a step."
    )
    return Section(title, text, (table, *_figures(findings, "pruning", lambda parts: drawn.removed(parts["pruning"]))))


def _spans(findings: Findings) -> Section:
    title = "Limiting the span"
    blocks = _figures(findings, "spans", lambda parts: drawn.spans(parts["spans"]))
    return Section(title, "" if blocks else "Not measured: see under removing heads.", blocks)


def _layers(findings: Findings) -> Section:
    text = "Where neighbouring layers are alike, one block may serve for several of them (Audio ALBERT)."
    similar = _figures(findings, "seen", lambda parts: drawn.similarity(parts["seen"]))
    return Section("Layers", text, (*similar, *_figures(findings, "noise", drawn.by_layer)))


def _cost(findings: Findings) -> Section:
    heads = ("representation", "parameters", "weights", "to represent 1 s", "to train on 1 s", "kept for training, 1 s")
    lines = tuple(
        (
            Cell(name),
            Cell(f"{cost['parameters']:,}"),
            Cell(f"{cost['weights'] / 1e6:.1f} MB"),
            Cell(f"{1e3 * cost['forward']:.2f} ms"),
            Cell(f"{1e3 * cost['training']:.2f} ms"),
            Cell(f"{cost['kept'] / 1e6:.2f} MB"),
        )
        for name, cost in ((name, parts["cost"]) for name, parts in findings.items())
    )
    text = "Layers that share weights have fewer parameters, but the work and what training must keep stay the same."
    caption = "For a second of audio on this machine, one utterance, without dropout; the best of three."
    return Section("Time and memory", text, (Table(caption, tuple(map(Cell, heads)), lines),))


def _plan(findings: Findings, absent: Sequence[str], budget: float, finished: bool) -> Section:
    text = "\n\n".join((f"Cut to {budget / 60:g} minutes in all on this machine.", *absent))
    blocks = tuple(key_values(parts["plan"], f"{name}: how much was asked") for name, parts in findings.items())
    return Section("Plan and what is left out", text if finished else f"{text}\n\nNot finished yet.", blocks)


def _titles(seen: Mapping[str, Any]) -> list[str]:
    each = seen["heads"]
    heads = [record["head"] for record in seen["relations"]["heads"]]
    return [f"layer {head // each + 1} head {head % each + 1}" for head in heads]


def _looked_at(record: Mapping[str, Any], kind: str, phones: Sequence[str]) -> str:
    values = dict(zip(phones, record["concentration"]))
    named = (phone if values[phone] is None else f"{phone} {values[phone]:+.1f}" for phone in record["named"][kind])
    return ", ".join(named) or "–"


def _source(source: Mapping[str, Any]) -> str:
    kind, _, place = source["source"].partition(" ")
    named = {"mfcc": "cepstra (MFCC)", "uniform": "even boundaries", "layer": f"states of layer {place}"}
    return named.get(kind, f"rows of head {place}")


def _against(over: Mapping[str, Any] | None) -> tuple[str, str, bool]:
    if over is None:
        return "–", "", False
    return f"{100 * over['value']:+.1f}", interval(over["ci95"], "R-value"), over["verdict"] == "holds"


def _area(area: Mapping[str, Any] | None, measure: str) -> Cell:
    if area is None:
        return Cell("–")
    scale, low, high = (1 if measure.endswith("loss") else 100), *area["ci95"]
    digits = 3 if scale == 1 else 1
    reach = f"[{scale * low:.{digits}f}, {scale * high:.{digits}f}]"
    return Cell(f"{scale * area['value']:+.{digits}f}", reach, area["verdict"] == "holds")


def _called(name: str) -> str:
    return name.removeprefix("label:")
