"""The page of a probe: its figures are the result's, and its errors those that were made."""

import json
import re
from collections import Counter

import browser
import pytest
import torch
from command import works
from toy_representation import CODES, Onsets, Toy, speak

from mockingjay.core.errors import DataError
from mockingjay.data.quarantine import Quarantine
from mockingjay.downstream import open_task
from mockingjay.downstream.edits import confusions, lined_up
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.transcribe import confused, errors_of, keep_errors
from mockingjay.report.page import Aligned, Figure, KeyValues, Table, render, write_page
from mockingjay.report.probe_report import probe_page

FAST = ("--set", "frozen.updates=20", "--set", "frozen.learning_rates=[3e-2]", "--set", "seeds=1")


def row(metric, value, ci95, majority, **more):
    return {
        "representation": "runs/one", "task": "phones", "metric": metric, "value": value, "ci95": ci95, "n": 12,
        "seed": 0, "data": "made", "read": "mix", "tune": "head", "head": "linear", "classes": 9, "points": 400,
        "majority": majority, "utterances": {"train": 70, "dev": 11, "test": 12}, "values": [value, value],
        "learning_rate": 0.03, "dev": [value, value], "unseen": {}, "dropped": {"no label": 3}, "infeasible": 2,
        "layers": [{"layer": 0, "weight": 0.25, "norm": 1.0}, {"layer": 1, "weight": 0.75, "norm": 1.0}],
        "decoder": "greedy", **more,
    }  # fmt: skip


def page_of(rows, errors):
    return probe_page(
        command="mockingjay probe x", rows=rows, rule="speaker", without={}, errors=errors, settings_toml="seed = 0"
    )


def blocks(page, kind):
    return [block for section in page.sections for block in section.blocks if isinstance(block, kind)]


def cells(table):
    return {line[0].text: tuple((cell.text, cell.note) for cell in line[1:]) for line in table.rows}


@pytest.fixture(scope="module")
def sequences():
    """Two utterances of eight units: two substitutions, alike, a deletion and an insertion."""
    pairs = lined_up([list("abcab"), ["<i>", "b", "c"]], [list("xbcxb"), ["b", "c", " "]])
    worst = [{"id": f"u{number}", "meant and said": each} for number, each in enumerate(pairs)]
    about = {"task": "phones", "metric": "PER", "decoder": "greedy", **confusions(pairs), "worst": worst}
    return page_of([row("PER", 0.5, [0.4, 0.6], 1.0)], json.loads(json.dumps(about)))


def test_edits_are_told_apart(sequences):
    _, edits, commonest = blocks(sequences, Table)
    assert cells(edits) == {
        "error rate": (("50.0 %", ""),),
        "meant": (("8", ""),),
        "hits": (("5", "62.5 %"),),
        "substitutions": (("2", "25.0 %"),),
        "deletions": (("1", "12.5 %"),),
        "insertions": (("1", "12.5 %"),),
    }
    assert cells(commonest) == {
        "a → x": (("2", "substitution"),),
        "– → ␣": (("1", "insertion"),),
        "<i> → –": (("1", "deletion"),),
    }
    assert commonest.rows[0][0].text == "a → x"
    errors = next(section for section in sequences.sections if section.title == "Errors")
    assert "2 of 70 training utterances have more units than the representation has steps" in errors.text


def test_errors_carry_a_sign(sequences):
    first, second = blocks(sequences, Aligned)
    assert first.caption == "u0: 2 errors in 5 units" and second.caption == "u1: 2 errors in 3 units"
    assert first.units == (("a", "x", "S"), *((each, each, "") for each in "bc"), ("a", "x", "S"), ("b", "b", ""))
    assert second.units == (("<i>", "–", "D"), ("b", "b", ""), ("c", "c", ""), ("–", "␣", "I"))
    text = render(sequences)
    assert '<li class="wrong"><span>&lt;i&gt;</span><span>–</span><b>D</b></li>' in text
    assert "<li><span>b</span><span>b</span></li>" in text


def test_the_summary_says_what_intervals_allow(sequences):
    assert sequences.summary == (
        "Phones PER (greedy): 50.0 % [40.0, 60.0] on 12 test utterances; saying nothing reaches 100.0 %, "
        "and the interval lies on the better side of it."
    )
    worse, unsure = (page_of([row("accuracy", 0.5, ci95, 0.6)], None).summary for ci95 in ([0.4, 0.55], [0.4, 0.7]))
    assert "always giving the commonest answer reaches 60.0 %, and the interval lies on the worse side" in worse
    assert "reaches 60.0 %, which the interval holds too: that anything has been learnt is not shown" in unsure
    named = page_of([row("accuracy", 0.5, [0.4, 0.55], 0.6, task="label:ageInYears")], None).summary
    assert named.startswith("AgeInYears accuracy")  # as its column is written


def test_what_was_read_is_told(sequences):
    (known,) = blocks(sequences, KeyValues)
    told = dict(known.items)
    assert {told[name] for name in ("train", "dev", "test")} == {"70 utterances", "11 utterances", "12 utterances"}
    assert told["division"] == "drawn by speaker, and by utterance where that is unknown"
    assert told["left out: no label"] == "3"
    assert told["on test, by seed"] == "50.0 %, 50.0 %" and told["trained"] == "the head alone"
    assert any("layer weights" in figure.alt.lower() for figure in blocks(sequences, Figure))


def test_it_fits_a_telephone(sequences, tmp_path):
    write_page(tmp_path / "index.html", sequences)
    with browser.chromium() as chrome:
        asked = browser.visit(chrome, tmp_path / "index.html", width=400)
        assert [address for address in asked if not address.startswith(("file:", "data:"))] == []
        assert chrome.execute_script("return document.documentElement.scrollWidth") == 400
        signs = chrome.find_elements("css selector", ".aligned .wrong b")
        assert [each.text for each in signs] == ["S", "S", "D", "I"] and all(each.is_displayed() for each in signs)
        tables = "return [...document.querySelectorAll('.wide:has(table)')].map(e => e.scrollWidth - e.clientWidth)"
        assert max(chrome.execute_script(tables)[1:]) <= 0


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    return speak(tmp_path_factory.mktemp("speech"), count=8)


def probe_that_knows(task, representation, spoken):
    """Every class by its code; but p3 is taken for p1."""
    probe = Probe(representation, open_task(task).learn(spoken), Probe.Config(read="last"))
    weights = torch.zeros(len(probe.task.outputs), CODES)
    for code in range(CODES):
        weights[probe.task.outputs.index(f"p{1 if code == 3 else code}"), code] = 1.0
    with torch.no_grad():
        probe.head.layers[0].weight.copy_(weights)
        probe.head.layers[0].bias.zero_()
    return probe


def test_which_class_is_taken_for_which(spoken, tmp_path):
    probe = probe_that_knows("phone", Toy(), spoken)
    points = Counter()
    for each in spoken:
        for start, end, phone in each.alignment:
            points[phone] += round(100 * end) - round(100 * start)
    found = confused(probe, spoken)
    right = {(name, name): count for name, count in points.items() if name != "p3"}
    assert {(meant, said): count for meant, said, count in found["pairs"]} == {**right, ("p3", "p1"): points["p3"]}
    assert (found["points"], found["hits"]) == (points.total(), points.total() - points["p3"])
    page = page_of([row("accuracy", 0.5, [0.4, 0.6], 0.2, task="phone")], found)
    _, commonest, least = blocks(page, Table)
    assert cells(commonest) == {"p3 → p1": ((f"{points['p3']:,}", "100.0 % of p3"),)}
    assert cells(least)["p3"] == (("0.0 %", f"of {points['p3']}"),) and cells(least)["p1"][0][0] == "100.0 %"
    assert any("p3 0 %" in figure.alt and "p1 100 %" in figure.alt for figure in blocks(page, Figure))


def test_files_that_cannot_be_read_are_left_out_and_values_have_no_errors(spoken, tmp_path):
    probe = probe_that_knows("phone", Toy(), spoken)
    (tmp_path / "bad.wav").write_bytes(b"nothing")
    lost = [*spoken[:2], type(spoken[0])("lost", str(tmp_path / "bad.wav"), 1.0, alignment=spoken[0].alignment)]
    with pytest.raises(DataError):
        confused(probe, lost)
    assert confused(probe, lost, Quarantine()) == confused(probe, spoken[:2])
    keep_errors(probe, spoken, tmp_path)
    assert json.loads((tmp_path / "errors.json").read_text()) == confused(probe, spoken)
    keep_errors(Probe(Toy(), open_task("energy").learn(spoken), Probe.Config()), spoken, tmp_path)
    assert not (tmp_path / "errors.json").exists()


def test_words_are_counted_beside_characters(spoken):
    texts = [type(each)(each.id, each.path, each.seconds, text="a bad cab") for each in spoken]
    probe = Probe(Onsets(), open_task("text").learn(texts), Probe.Config())
    found = errors_of(probe, texts)
    words = found["words"]
    assert words["units"] == 3 * len(texts) == words["hits"] + words["substitutions"] + words["deletions"]
    assert found["units"] == 9 * len(texts)
    edits = blocks(page_of([row("CER", 0.5, [0.4, 0.6], 1.0)], found), Table)[1]
    assert [head.text for head in edits.columns] == ["", "CER", "WER"]
    assert cells(edits)["meant"] == ((str(found["units"]), ""), (str(words["units"]), ""))


@pytest.mark.drill
def test_the_command_writes_it(talking, tmp_path):
    options = ("--data", talking, "--task", "label:gender", "--out", tmp_path, *FAST)
    said = works("probe", "mel", *options)
    assert said.splitlines()[-1] == f"report: {tmp_path / 'report' / 'index.html'}"
    (result,) = json.loads((tmp_path / "results.json").read_text())
    errors = json.loads((tmp_path / "errors.json").read_text())
    assert errors["points"] == result["points"] and errors["hits"] / errors["points"] == pytest.approx(result["value"])
    text = re.sub(r"<[^>]+>|\xa0", " ", (tmp_path / "report" / "index.html").read_text())
    for part, count in result["utterances"].items():
        assert re.search(rf"{part}\s+{count} utterances", text)
    assert f"{100 * result['value']:.1f}" in text and "always giving the commonest answer reaches" in text
    assert f"names {errors['hits']} of {errors['points']} labels of the test set rightly" in text
    assert "--task label:gender" in text
