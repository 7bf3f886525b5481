"""The study of attacks as one page: four panels, transfer, attackers that know the defence, the waveform.

Every sentence about success is generated from the numbers, and what is missing is said in words.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mockingjay.report.attack_figures import noise, panels
from mockingjay.report.figures import Drawing, inline
from mockingjay.report.page import Block, Cell, Code, Page, Section, Table, key_values
from mockingjay.report.tables import Row, interval, number, results_table

NONE, NOISE = "no defence", "random noise"
_VERDICTS = {"holds": "surely better", "does not": "surely worse", "undecided": "not surely different"}
_RIVALS = {
    NONE: NONE,
    "trained again": "no defence and training again",
    "untrained network": "an untrained network",
}
_FAMILIES, _METHODS = ("LCNN", "SENet"), ("PGD", "FGSM")
# Decibels at which transfer is shown: one of the two released names; below the speech (ours).
_BETWEEN = {"features": 8.0, "waveform": 30.0}
# Sections of one picture, by its name: title, text, and what is said while there is none.
_PICTURED = {
    "waveform": (
        "On the waveform",
        "Altered features may belong to no sound. Altered samples always do, and are held within full scale, or where "
        "the file had them.",
        "No waveform has been attacked yet.",
    ),
    "noise": (
        "Noise by layer",
        "How large what an attack has changed is beside what was there, at the input and in every layer. The deck "
        "has it fall from layer to layer, and takes this for the reason that the defence works.",
        "No network was attacked, or none has been yet.",
    ),
}


def attack_page(
    *,
    data: str,
    subject: str,
    features: str,
    place: str,
    command: str,
    rows: Sequence[Row],
    claims: Sequence[Row],
    facts: Mapping[str, Any],
    notes: Sequence[str],
    settings: str,
    budget: float,
    finished: bool,
) -> Page:
    """Assemble the report of a study, finished or not.

    Args:
        data: Name of the speech.
        subject: What is tried as a defence.
        features: What is attacked, in words.
        place: `features`, or `waveform` where samples alone are attacked.
        command: What reproduces it.
        rows: Result rows; `representation` is the defence.
        claims: Pairs of defences held against one another.
        facts: Numbers about the speech.
        notes: What a reader must know.
        settings: TOML.
        budget: Seconds for all of it.
        finished: Whether nothing is to come.
    """
    drawn = {name: inline(drawing, name) for name, drawing in drawings(rows)}
    sections = (
        _clean(rows),
        _panels(drawn, rows, claims, place),
        _transfer(rows, subject, place),
        _adaptive(drawn, claims),
        *((_pictured(drawn, "waveform"),) if place == "features" else ()),
        _pictured(drawn, "noise"),
        _bounds(rows, features, place),
        Section("Speech and settings", "\n\n".join(notes), (_numbers(facts, budget), Code(settings, "Settings", True))),
    )
    return Page(
        f"Attacks on countermeasures, {subject}, {data}", _summary(rows, claims, notes, finished), command, sections
    )


def drawings(rows: Sequence[Row]) -> Iterator[tuple[str, Drawing]]:
    """List every picture that can be drawn with a name for its file."""
    bound, below = "bound (dB of the published features)", "bound (dB below the speech)"
    known = _four(rows)
    if known:
        caption = (
            "Made on the countermeasure without a defence, shown to all; bands are 95 % intervals over utterances. "
            "Random noise moves every value by the same bound, without a defence. The thin line is guessing."
        )
        yield "panels", panels(known, bound, "Accuracy over the attack's bound", caption)
    through = {
        family: [row for row in rows if (row["model"], row.get("method")) == (family, "adaptive")]
        for family in _FAMILIES
    }
    if any(through.values()):
        caption = "Every defence under PGD by an attacker who knows it, draws of random defences excepted."
        heard = any(row["place"] == "waveform" for found in through.values() for row in found)
        what, label = "Accuracy under attackers that know the defence", below if heard else bound
        yield "adaptive", panels(_whole(through), label, what, caption, falling=heard)
    heard = {f"PGD of {family}": _with_noise(rows, family, family, "PGD", "waveform") for family in _FAMILIES}
    if any(heard.values()):
        caption = "Samples are attacked through the features; what is altered is a sound that can be played."
        yield "waveform", panels(_whole(heard), below, "Accuracy over the waveform's bound", caption, falling=True)

    loud = {f"attacks on {family}": _by_layer(rows, family) for family in _FAMILIES}
    if any(loud.values()):
        caption = (
            "LNSR, mean over the attacked utterances in the Frobenius norm; other norms, sums and intervals are in the "
            "results. Gray: the untrained network."
        )
        yield "noise", noise(_whole(loud), caption)


def _by_layer(rows: Sequence[Row], family: str) -> list[Row]:
    """LNSR of the two strongest attacks of a kind: the published plot names 8 and 16, on the features."""
    own = [row for row in rows if row["metric"] == "LNSR" and (row["source"], row["norm"]) == (family, "frobenius")]
    found = [row for row in own if row["place"] == "features"] or own
    strong = sorted({row["deviations"] for row in found})[-2:]
    return [row for row in found if row["deviations"] in strong]


def _four(rows: Sequence[Row]) -> dict[str, Sequence[Row]]:
    """The panels A to D that have been measured."""
    kinds = [(family, method) for family in _FAMILIES for method in _METHODS]
    found = {
        f"{panel}) {family}, {method}": _with_noise(rows, family, family, method, "features")
        for panel, (family, method) in zip("ABCD", kinds)
    }
    return _whole(found)


def _whole(titled: Mapping[str, Sequence[Row]]) -> dict[str, Sequence[Row]]:
    return {title: found for title, found in titled.items() if found}


def _with_noise(rows: Sequence[Row], model: str, source: str, method: str, place: str) -> list[Row]:
    """Rows of one attack on one countermeasure, and noise without a defence as a line of its own."""
    own = [row for row in rows if row["model"] == model and row.get("place") == place]
    made = [row for row in own if (row.get("source"), row.get("method")) == (source, method)]
    noise = [row for row in own if row.get("method") == "noise" and row["representation"] == NONE]
    before = [row for row in own if row.get("method") == "unaltered" and place == "features"]
    return [*before, *made, *({**row, "representation": NOISE} for row in noise)] if made else []


def _summary(rows: Sequence[Row], claims: Sequence[Row], notes: Sequence[str], finished: bool) -> str:
    parts = [] if finished else ["The study is not finished."]
    clean = [row for row in rows if row["metric"] == "EER" and row["representation"] == NONE]
    if clean:
        errors = ", ".join(f"{row['model']} {number(row['value'], 'EER')}" for row in clean)
        parts.append(f"Without attack and defence the equal error rates are: {errors} ({clean[0]['n']} utterances).")
    for name in dict.fromkeys(row["defence"] for row in claims if row["panel"]):
        parts.append(_claimed(name, rows, claims))
    return "\n\n".join([*parts, *notes])


def _claimed(name: str, rows: Sequence[Row], claims: Sequence[Row]) -> str:
    """Say of a defence in how many panels it is better than what, and what an attacker does who knows it."""
    own = [row for row in claims if row["defence"] == name]
    clean = [row["value"] for row in rows if (row.get("method"), row["representation"]) == ("unaltered", name)]
    told = [f"{100 * sum(clean) / len(clean):.0f} % right without an attack"]
    for rival in dict.fromkeys(row["rival"] for row in own if row["panel"]):
        verdicts = [row["verdict"] for row in own if row["rival"] == rival and row["panel"]]
        told.append(f"surely better than {_RIVALS[rival]} in {verdicts.count('holds')} of {len(verdicts)} panels")
    known = [row for row in own if row["method"] == "adaptive"]
    if known:
        before, after = (100 * sum(row["ours"][place] for row in known) / len(known) for place in (1, 0))
        told.append(f"who knows it brings it from {before:.0f} to {after:.0f} % on average")
    return f"{name[:1].upper()}{name[1:]}: {'; '.join(told)}."


def _clean(rows: Sequence[Row]) -> Section:
    found = [row for row in rows if row["attack"] == "clean"]
    if not found:
        return Section("Without an attack", "No countermeasure has been trained yet.")
    text = (
        "Behind every defence a countermeasure of its own is trained, with both classes as likely in every update. "
        "Figures are of test utterances; the threshold of every accuracy on this page is where both error rates are "
        "nearest on clean dev. The tandem cost is that of ASVspoof 2019 in front of a verifier whose scores are not at "
        "hand, and which is said to miss 2.5 %, to accept 2.5 % of other speakers and to refuse 24 % of spoofs."
    )
    shown = [{**row, "task": row["model"]} for row in found]
    return Section("Without an attack", text, (results_table(shown),))


def _panels(drawn: Mapping[str, Block], rows: Sequence[Row], claims: Sequence[Row], place: str) -> Section:
    title, picture = ("The four panels", "panels") if place == "features" else ("On the waveform", "waveform")
    if picture not in drawn:
        return Section(title, "No attack has been made yet.")
    text = (
        "The attacker knows the features and the countermeasure, not what stands between, nor the weights behind it. "
        "So every defence is to be held against the same countermeasure merely trained again, which the attack does "
        "not know either; what an untrained network of the same shape holds off is no merit of pre-training; "
        "and behind what tells nothing apart without an attack, which is 50 %, none can do harm."
    )
    if place == "waveform":
        text += " Panels A and C, for FGSM is not made on the waveform; altered samples are held within full scale."
    blocks: list[Block] = [drawn[picture]]
    if claims:
        blocks.append(_held(rows, claims))
    return Section(title, text, tuple(blocks))


def _held(rows: Sequence[Row], claims: Sequence[Row]) -> Table:
    """One line a defence and panel, one column a rival."""
    rivals = list(dict.fromkeys(row["rival"] for row in claims if row["panel"]))
    cells = {(row["defence"], row["panel"], row["rival"]): row for row in claims if row["panel"]}
    clean = {(row["model"], row["representation"]): row["value"] for row in rows if row.get("method") == "unaltered"}
    lines = []
    for name, panel in dict.fromkeys((row["defence"], row["panel"]) for row in claims if row["panel"]):
        one = next(row for row in claims if (row["defence"], row["panel"]) == (name, panel))
        value, before = Cell(f"{100 * one['ours'][0]:.1f}"), Cell(number(clean[one["family"], name], "accuracy", False))
        lines.append(
            (Cell(f"{name}, {panel}"), before, value, *(_pair(cells.get((name, panel, rival))) for rival in rivals))
        )
    heads = (
        Cell("defence, panel"),
        Cell("unaltered", "accuracy, %"),
        Cell("attacked", "mean over bounds, %"),
        *(Cell(f"over {rival}") for rival in rivals),
    )
    count = max((row["n"] for row in claims if row["panel"]), default=0)
    caption = (
        f"On {count} test utterances; differences in points with 95 % intervals, paired by utterance; bold is surely "
        "better."
    )
    return Table(caption, heads, tuple(lines))


def _pair(row: Row | None) -> Cell:
    if row is None:
        return Cell("–")
    low, high = (100 * bound for bound in row["ci95"])
    text = f"{100 * row['difference']:+.1f}".replace("-", "\N{MINUS SIGN}")
    note = f"[{low:.1f}, {high:.1f}] {_VERDICTS[row['verdict']]}".replace("-", "\N{MINUS SIGN}")
    return Cell(text, note, row["verdict"] == "holds")


def _transfer(rows: Sequence[Row], subject: str, place: str) -> Section:
    title = "From one countermeasure to the other"
    made = [row for row in rows if row.get("place") == place and row.get("source") and row["method"] != "adaptive"]
    found = [row for row in made if row["metric"] == "accuracy"]
    if not found:
        return Section(title, "No attack has been made yet.")
    level = min({row["level"] for row in found}, key=lambda each: abs(each - _BETWEEN[place]))
    cells = {
        (row["source"], row["method"], row["model"], row["representation"]): row
        for row in found
        if row["level"] == level
    }
    shown = (NONE, "trained again", "untrained network", subject, f"{subject}, rebuilt")
    names = [name for name in dict.fromkeys(row["representation"] for row in found) if name in shown]
    heads = tuple(Cell(name, model) for name in names for model in _FAMILIES)
    lines = tuple(
        (
            Cell(f"{method} of {source}"),
            *(_value(cells.get((source, method, model, name))) for name in names for model in _FAMILIES),
        )
        for source in _FAMILIES
        for method in _METHODS
        if any(row["method"] == method for row in found)
    )
    text = f"Attacks of {level:g} dB made on the undefended network of a row, shown to the network of a column."
    caption = f"Accuracy on {found[0]['n']} test utterances with 95 % intervals."
    return Section(title, text, (Table(caption, (Cell("made on"), *heads), lines),))


def _value(row: Row | None) -> Cell:
    return Cell("–") if row is None else Cell(number(row["value"], "accuracy"), interval(row["ci95"], "accuracy"))


def _adaptive(drawn: Mapping[str, Block], claims: Sequence[Row]) -> Section:
    title = "Attackers that know the defence"
    if "adaptive" not in drawn:
        return Section(title, "No attack through a defence has been made yet.")
    text = (
        "A defence that holds only because it is not known is no defence. Here gradients pass through it; where it is "
        "random they are averaged over draws, of which the last is never known."
    )
    known = [row for row in claims if row["method"] == "adaptive"]
    lines = tuple(
        (
            Cell(f"{row['defence']}, {row['family']}"),
            *(Cell(f"{100 * value:.1f}") for value in (row["ours"][1], row["ours"][0])),
            _pair(row),
        )
        for row in known
    )
    heads = tuple(map(Cell, ("defence", "not known (%)", "known (%)", "difference")))
    count = max((row["n"] for row in known), default=0)
    caption = f"PGD, accuracy averaged over bounds, on the same {count} test utterances; 95 % intervals, paired."
    return Section(title, text, (drawn["adaptive"], Table(caption, heads, lines)))


def _pictured(drawn: Mapping[str, Block], name: str) -> Section:
    """Show a picture that says all there is to say."""
    title, text, absent = _PICTURED[name]
    return Section(title, text, (drawn[name],)) if name in drawn else Section(title, absent)


def _bounds(rows: Sequence[Row], features: str, place: str) -> Section:
    title = "What the bounds mean"
    found = {
        (row["place"], row["level"]): row
        for row in rows
        if row.get("method") == "FGSM" or (row.get("place"), row.get("method")) == ("waveform", "PGD")
    }
    if not found:
        return Section(title, f"Attacked are {features}; no attack has been made yet.")
    text = f"Attacked are {features}. "
    text += (
        "A bound is named by what it is on the published features in decibels, and carried "
        "over by how far both vary within an utterance; the published code has 0.1 to 100, the defence's released "
        "names 8 and 16, in units that nobody wrote down."
        if place == "features"
        else "A bound is named by how far it lies below the speech's own level."
    )
    lines = tuple(
        (
            Cell(f"{place}, {level:g} dB"),
            Cell(f"{row['epsilon']:.4g}"),
            Cell(f"{row['deviations']:.3g}"),
            Cell(f"{row['snr']:.1f}"),
        )
        for (place, level), row in sorted(found.items())
    )
    heads = tuple(map(Cell, ("bound", "on every value", "in deviations", "signal to noise (dB)")))
    return Section(
        title, text, (Table("Signal to noise compares what varies over time with what was changed.", heads, lines),)
    )


def _numbers(facts: Mapping[str, Any], budget: float) -> Block:
    shown = {name: value for name, value in facts.items() if isinstance(value, int | float)}
    return key_values({**shown, "attacked utterances": len(facts.get("attacked", ())), "budget, seconds": budget})
