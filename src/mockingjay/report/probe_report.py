"""One probe as one page: what it reaches beside an answer that knows nothing, of what, and the errors it makes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mockingjay.report import figures, probe_figures
from mockingjay.report.page import Aligned, Block, Cell, Code, Page, Section, Table, key_values, unit, write_page
from mockingjay.report.tables import Row, interval, metric, number, read_results, results_table

ERRORS = 12  # kinds of error that are listed
UNITS = 300  # of an utterance that are shown
SEQUENCES = ("PER", "CER", "WER")
KINDS = ("substitutions", "deletions", "insertions")


def write_probe_page(folder: Path, command: str, settings_toml: str) -> Path:
    """Write `report/index.html` of a probe's folder, from the files that lie there.

    Args:
        folder: With results.json, splits.json, and errors.json where there are any.
        command: What reproduces it.
        settings_toml: The resolved configuration.

    Returns:
        The page.

    Raises:
        DataError: results.json is missing or bad.
        MachineError: The page cannot be written.
    """
    parts, known = json.loads((folder / "splits.json").read_text("utf-8")), folder / "errors.json"
    page = probe_page(
        command=command,
        rows=read_results(folder / "results.json"),
        rule=parts["rule"],
        without={reason: len(ids) for reason, ids in parts["dropped"].items()},
        errors=json.loads(known.read_text("utf-8")) if known.is_file() else None,
        settings_toml=settings_toml,
    )
    write_page(folder / "report" / "index.html", page)
    return folder / "report" / "index.html"


def probe_page(
    *,
    command: str,
    rows: Sequence[Row],
    rule: str,
    without: Mapping[str, int],
    errors: Mapping[str, Any] | None,
    settings_toml: str,
) -> Page:
    """Assemble the report of a probe.

    Args:
        command: What reproduces it.
        rows: Of the probe, the main one first, the same answers counted otherwise after it.
        rule: By which the corpus was divided: given, speaker or utterance.
        without: Utterances that went into no set, by reason.
        errors: As `keep_errors` writes them; none of values.
        settings_toml: The resolved configuration.
    """
    row = rows[0]
    sections = (
        _results(rows),
        _read(row, rule, without),
        _errors(row, errors),
        _weights(row),
        Section(
            "Settings", "Every setting of the probe, defaults included.", (Code(settings_toml, "as TOML", folded=True),)
        ),
    )
    tuned = ", fine-tuned" if row["tune"] == "all" else ""
    title = f"{_called(row['task'])} of {row['data']} from {row['representation']}{tuned}"
    return Page(title, "\n\n".join(map(_sentence, rows)), command, sections)


def _sentence(row: Row) -> str:
    """Say what is reached, and whether that is more than an answer reaches that knows nothing."""
    measure, bound = row["metric"], row["majority"]
    trivial = {"R2": "always giving the mean"} | dict.fromkeys(SEQUENCES, "saying nothing")
    name = trivial.get(measure, "always giving the commonest answer")
    value = " ".join(filter(None, (number(row["value"], measure), interval(row["ci95"], measure))))
    searched = f" ({row['decoder']})" if row.get("decoder") else ""
    task = _called(row["task"])
    begin = f"{task[:1].upper()}{task[1:]} {measure}{searched}: {value} on {row['n']} test utterances"
    rival = f"{name} reaches {number(bound, measure)}"
    if row["ci95"][0] <= bound <= row["ci95"][1]:
        return f"{begin}; {rival}, which the interval holds too: that anything has been learnt is not shown."
    better = (row["value"] > bound) == (metric(measure).better == "higher")
    return f"{begin}; {rival}, and the interval lies on the {'better' if better else 'worse'} side of it."


def _results(rows: Sequence[Row]) -> Section:
    count = len(rows[0]["values"])
    text = (
        f"The mean of {count} trainings that differ by their seed; " if count > 1 else "Of one training; "
    ) + "learning rate and stopping were chosen on dev, test was measured once. Intervals are over test utterances."
    drawn = figures.inline(figures.results_intervals(rows), "results")
    return Section("Results", text, (results_table(rows), drawn))


def _read(row: Row, rule: str, without: Mapping[str, int]) -> Section:
    rules = {
        "given": "as the corpus gives it",
        "speaker": "drawn by speaker, and by utterance where that is unknown",
        "utterance": "drawn by utterance",
    }
    sets = {name: f"{count:,} utterances" for name, count in row["utterances"].items()}
    facts = {
        "representation": row["representation"],
        "layers read": row["read"],
        "trained": "the encoder and the head" if row["tune"] == "all" else "the head alone",
        "head": row["head"],
        "task": row["task"],
        "outputs": row["classes"],
        "data": row["data"],
        **sets,
        "division": rules.get(rule, rule),
        "labels scored in test": row["points"],
        "learning rate": row["learning_rate"],
        "on test, by seed": ", ".join(number(value, row["metric"]) for value in row["values"]),
        "on dev, by seed": ", ".join(number(value, row["metric"]) for value in row["dev"]),
    }
    left = {f"left out: {reason}": count for reason, count in {**without, **row["dropped"]}.items()}
    left |= {f"not in train: {name}": f"{count} test and dev utterances" for name, count in row["unseen"].items()}
    text = "Heads learn from train, choices are made on dev, figures are of test; no utterance is in two of them."
    return Section("What was read", text, (key_values(facts | left),))


def _errors(row: Row, errors: Mapping[str, Any] | None) -> Section:
    if errors is None:
        return Section("Errors", "What is measured is a value, not a name, so nothing is taken for something else.")
    return _sequences(row, errors) if "units" in errors else _classes(row, errors)


def _sequences(row: Row, errors: Mapping[str, Any]) -> Section:
    counted = {errors["metric"]: errors} | ({"WER": errors["words"]} if "words" in errors else {})
    lost, train = row["infeasible"], row["utterances"]["train"]
    taught = (
        f"{lost} of {train} training utterances have more units than the representation has steps, and taught nothing."
        if lost
        else f"Each of {train} training utterances has a step for each of its units."
    )
    text = (
        f"{_of_one(row)} Its answers (decoder: {errors['decoder']}) were set against the references with the fewest "
        f"edits.\n\n{taught}\n\nOf the utterances with most errors for their length, the upper line is what was meant, "
        "the lower one what was said: a framed S is a substitution, D a deletion, I an insertion."
    )
    blocks: list[Block] = [_edits(counted)]
    blocks += [_commonest(each["commonest"], name) for name, each in counted.items() if any(each["commonest"].values())]
    return Section("Errors", text, (*blocks, *(_worst(each) for each in errors["worst"])))


def _edits(counted: Mapping[str, Mapping[str, Any]]) -> Table:
    """One column for each way of counting, so that it fits a telephone."""
    lines = [[Cell("error rate")], [Cell("meant")], *([Cell(kind)] for kind in ("hits", *KINDS))]
    for each in counted.values():
        units = max(each["units"], 1)
        shares = [(each[kind], 100 * each[kind] / units) for kind in ("hits", *KINDS)]
        own = [Cell(f"{100 * sum(each[kind] for kind in KINDS) / units:.1f} %"), Cell(f"{each['units']:,}")]
        own += [Cell(f"{count:,}", f"{share:.1f} %") for count, share in shares]
        lines = [[*line, cell] for line, cell in zip(lines, own)]
    caption = "What must be put in the references’ place; shares are of what was meant."
    return Table(caption, (Cell(""), *map(Cell, counted)), tuple(map(tuple, lines)))


def _commonest(commonest: Mapping[str, Sequence[Sequence[Any]]], name: str) -> Table:
    found = []
    for kind, several in commonest.items():
        for *units, count in several:
            meant, said = units if kind == "substitutions" else (units[0], "") if kind == "deletions" else ("", *units)
            found.append((count, meant, said, kind.removesuffix("s")))
    found.sort(key=lambda each: (-each[0], each[1:]))
    lines = tuple(
        (Cell(f"{unit(meant)} → {unit(said)}"), Cell(f"{count:,}", kind)) for count, meant, said, kind in found[:ERRORS]
    )
    return Table(f"The commonest errors, {name}.", (Cell("meant → said"), Cell("times")), lines)


def _worst(utterance: Mapping[str, Any]) -> Aligned:
    pairs = tuple((meant, said) for meant, said in utterance["meant and said"])
    wrong, units = sum(meant != said for meant, said in pairs), sum(bool(meant) for meant, _ in pairs)
    rest = f"; the first {UNITS} of {len(pairs)}" if len(pairs) > UNITS else ""
    return Aligned(f"{utterance['id']}: {wrong} errors in {units} units{rest}", pairs[:UNITS])


def _classes(row: Row, errors: Mapping[str, Any]) -> Section:
    pairs = [(meant, said, count) for meant, said, count in errors["pairs"]]
    names = sorted({name for *both, _ in pairs for name in both})
    counts = np.zeros((len(names), len(names)))
    for meant, said, count in pairs:
        counts[names.index(meant), names.index(said)] = count
    text = f"{_of_one(row)} It names {errors['hits']:,} of {errors['points']:,} labels of the test set rightly."
    drawn = ()
    if len(names) <= probe_figures.MOST:
        drawn = (figures.inline(probe_figures.confusion(names, counts), "confusion"),)
    else:
        text += f" {len(names)} classes are too many for a picture."
    wrong = [(meant, said, count) for meant, said, count in pairs if meant != said]
    if not wrong:
        return Section("Errors", f"{text} There is no error to show.", drawn)
    totals = dict(zip(names, counts.sum(1)))
    lines = tuple(
        (Cell(f"{meant} → {said}"), Cell(f"{count:,}", f"{100 * count / totals[meant]:.1f} % of {meant}"))
        for meant, said, count in wrong[:ERRORS]
    )
    table = Table("The commonest confusions.", (Cell("meant → said"), Cell("times")), lines)
    return Section("Errors", text, (*drawn, table, _least(names, counts)))


def _least(names: Sequence[str], counts: Float[np.ndarray, "meant said"]) -> Table:
    """The classes that are named rightly least often."""
    totals = counts.sum(1)
    shares = {name: hits / total for name, hits, total in zip(names, np.diag(counts), totals) if total}
    sizes = dict(zip(names, totals))
    lines = tuple(
        (Cell(name), Cell(f"{100 * shares[name]:.1f} %", f"of {sizes[name]:,.0f}"))
        for name in sorted(shares, key=shares.__getitem__)[:ERRORS]
    )
    return Table("The classes that are least often named rightly.", (Cell("class"), Cell("right")), lines)


def _weights(row: Row) -> Section:
    title = "Layer weights"
    if len(row["layers"]) < 2:
        return Section(title, f"The probe mixes no layers: it reads one, layer {row['layers'][0]['layer']}.")
    drawing = figures.layer_weights({row["task"]: [each["weight"] for each in row["layers"]]})
    text = "What the probe takes from each layer; weights compare layers as far as their values are of one size."
    return Section(title, text, (figures.inline(drawing, "weights"),))


def _of_one(row: Row) -> str:
    among = ", one of those averaged above" if len(row["values"]) > 1 else ""
    return f"These are the errors of the probe that was best on dev{among}."


def _called(task: str) -> str:
    return task.removeprefix("label:")
