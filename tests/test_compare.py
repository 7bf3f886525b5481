import json
import os
import re
import shutil
from dataclasses import replace

import pytest
from browser import chromium, visit
from command import mockingjay, refuses, works
from shortcuts import quick_probes, stopping
from test_pretrain import contents

from mockingjay.core.errors import DataError, TrainingError
from mockingjay.downstream.features import device_of
from mockingjay.downstream.questions import probe
from mockingjay.objectives.apc import APC
from mockingjay.objectives.mockingjay import Mockingjay
from mockingjay.studies import compare as library

pytestmark = pytest.mark.drill  # whole commands

ROW = {"representation", "task", "metric", "value", "ci95", "n", "seed", "data"}


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Fit probes in a moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "PROBES", quick_probes(10))
        patch.setattr(library, "UTTERANCES", 32)
        yield


def command(data, out, objectives="apc,mpc", steps=4):
    limits = ("--set", "batches.seconds=6", "--set", "batches.crop=1", "--set", "upkeep.validate_every=2")
    return (
        "compare",
        "--objectives",
        objectives,
        "--preset",
        "nano",
        "--data",
        data,
        "--out",
        out,
        "--steps",
        steps,
        *limits,
    )


def rows_of(out):
    rows = json.loads((out / "results.json").read_text())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def without_apc(whole, out):
    """Copy a comparison in which APC has not been tried yet."""
    shutil.copytree(whole, out, ignore=shutil.ignore_patterns("apc*", "results.json"))
    return out


@pytest.fixture(scope="module")
def whole(talking, tmp_path_factory):
    out = tmp_path_factory.mktemp("compare") / "whole"
    return out, works(*command(talking, out))


def test_objectives_and_questions(whole):
    out, said = whole
    rows = json.loads((out / "results.json").read_text())
    assert all(row.keys() >= ROW for row in rows)
    probed = {(row["representation"], row["task"]) for row in rows if row["task"] != "objective"}
    names = ("mel", "random:apc", "apc", "random:mpc", "mpc")
    assert probed == {(name, task) for name in names for task in ("phone", "label:sentiment", "pitch", "energy")}
    assert {row["metric"] for row in rows if row["task"] in ("pitch", "energy")} == {"R2"}
    for row in rows:
        if row["task"] != "objective" and row["representation"] != "mel":
            rivals = (
                {"mel"} if row["representation"].startswith("random:") else {"mel", f"random:{row['representation']}"}
            )
            assert row["over"].keys() == rivals
            for over in row["over"].values():
                assert over["ci95"][0] <= over["value"] <= over["ci95"][1]
    held = {row["representation"]: row for row in rows if row["task"] == "objective"}
    assert held.keys() == {"apc", "mpc"} and held["apc"]["steps"] == 4
    assert held["apc"]["predictors"].keys() == {"copy last", "utterance mean"}
    assert "report: " in said and "R2" in said


def test_what_is_tested_is_not_heard(whole):
    out, _ = whole
    tested = {id for file in (out / "splits").glob("*.json") for id in json.loads(file.read_text())["test"]}
    for name in ("apc", "mpc"):
        learnt = {json.loads(line)["id"] for line in (out / name / "corpus.jsonl").read_text().splitlines()}
        assert learnt and tested and not learnt & tested


def test_the_same_command_again_measures_nothing_anew(whole, talking):
    out, _ = whole
    before, rows = contents(out), rows_of(out)
    said = works(*command(talking, out), "--json")
    assert [json.loads(line) for line in said.splitlines()] == json.loads((out / "results.json").read_text())
    assert rows_of(out) == rows
    after = contents(out)
    changed = [path.name for path in before if before[path] != after.get(path)]
    assert before.keys() == after.keys() and set(changed) <= {"provenance.json", ".lock", "index.html"}


def test_the_page(whole):
    out, _ = whole
    text = (out / "report" / "index.html").read_text()
    assert "2 objectives on " in text and "What training gains" in text and "None failed" in text
    assert not re.search(r"(src|href)=.?(https?:|//)", text)
    with chromium() as chrome:
        asked = visit(chrome, out / "report" / "index.html")
        assert [address for address in asked if not address.startswith(("file:", "data:"))] == []
        assert not chrome.get_log("browser")
        wide = chrome.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0 and len(chrome.find_elements("css selector", "figure svg")) == 2


def test_a_method_that_fails_stops_no_other(talking, whole, tmp_path, monkeypatch):
    forward = APC.forward

    def failing(self, batch, progress, draw):
        if self.training:
            raise TrainingError("step 2: the loss is nan, expected a number; lower the learning rate")
        return forward(self, batch, progress, draw)

    out = without_apc(whole[0], tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(APC, "forward", failing)
        said = works(*command(talking, out))
        rows, page = rows_of(out), (out / "report" / "index.html").read_text()
        refuses(6, "none of 1 objectives was trained", *command(talking, out, "apc"), "--quiet")
    assert "apc failed: step 2: the loss is nan" in said
    (failed,) = [row for row in rows if row.get("failed")]
    assert failed["representation"] == "apc" and failed["value"] is None
    assert {row["representation"] for row in rows} == {"mel", "apc", "random:mpc", "mpc"}
    assert "the loss is nan" in page
    works(*command(talking, out), "--quiet")  # the failed one is tried again, the other is not
    assert rows_of(out) == rows_of(whole[0])


def test_interrupted_and_resumed(talking, whole, tmp_path, monkeypatch):
    out = without_apc(whole[0], tmp_path / "again")
    with monkeypatch.context() as patch:
        patch.setattr(APC, "forward", stopping(APC, 6))  # after the estimate
        said = mockingjay(*command(talking, out))
    assert said.code == 130 and "stopped; the same command goes on" in said.out
    assert {row["representation"] for row in rows_of(out)} == {"mel"}
    works(*command(talking, out), "--quiet")
    assert rows_of(out) == rows_of(whole[0])


def test_a_second_comparison_is_refused_while_the_first_one_probes(talking, tmp_path, monkeypatch):
    words, refused = command(talking, tmp_path / "run", "apc"), []

    def meanwhile(name, *more, **named):
        with monkeypatch.context() as patch:
            patch.setattr("mockingjay.pretrain.scan", pytest.fail)
            refuses(5, rf"another run is writing here \(process {os.getpid()} on ", *words)
        refused.append(name)
        raise DataError("mel: that is enough, expected more; go on")

    monkeypatch.setattr(library, "probe", meanwhile)
    for _ in range(2):  # what has failed has let the folder go
        refuses(3, "mel: that is enough", *words)
    assert refused == ["mel", "mel"]


def test_presets_of_their_own(talking, tmp_path, monkeypatch):
    known = {}
    monkeypatch.setattr(
        library,
        "compare",
        lambda contestants, *given, **named: iter([known.update(contestants)] and [library.Comparison("x", {})]),
    )
    refuses(6, "none of 3", *command(talking, tmp_path / "x", "tera:time,tera,mockingjay:nano"))
    assert list(known) == ["tera-time", "tera", "mockingjay-nano"]
    assert known["tera"].train.steps == 4 and known["tera"].objective != known["tera-time"].objective


def test_refusals(talking, whole, tmp_path):
    out = tmp_path / "none"
    refuses(2, "no such objective, .*; did you mean 'mockingjay'", *command(talking, out, "mokingjay"))
    refuses(2, "'': an empty name", *command(talking, out, ""))
    refuses(2, "apc,: an empty name", *command(talking, out, "apc,"))
    refuses(2, "apc:: an empty name", *command(talking, out, "apc:"))
    refuses(2, "apc is named twice", *command(talking, out, "apc,tera,apc"))
    refuses(2, "--preset slow: no such preset", *command(talking, out, "apc:slow"))
    refuses(2, "--steps and --budget: both given", *command(talking, out), "--budget", "1m")
    refuses(2, "unknown key", *command(talking, out), "--set", "train.step=1")
    assert not out.exists()
    refuses(2, "holds a comparison with other seed", *command(talking, whole[0]), "--seed", "1")
    refuses(2, r"other settings \(train\.steps\)", *command(talking, whole[0], steps=5))


def test_all_means_the_whole_table():
    from mockingjay.cli.compare import contestants
    from mockingjay.objectives import OBJECTIVES

    assert list(contestants("all", "nano", ["train.steps=1"], 0)) == list(OBJECTIVES)
    assert Mockingjay.Config().kind in contestants("all", "nano", [], 0)


def test_the_same_audio_under_another_name_is_not_heard_either(tmp_path):
    from toy_representation import speak

    from mockingjay.data.manifest import Corpus
    from mockingjay.data.scan import scan
    from mockingjay.downstream.questions import learnable, questions

    utterances = speak(tmp_path, count=24)
    (asked,) = questions(Corpus("made", tuple(utterances)), 0)[:1]
    copy = replace(asked.parts.test[0], id="copy")
    health = scan(Corpus("made", (*utterances, copy)), 0.1)
    learnt = {each.id for each in learnable(health, [asked])}
    assert learnt == {each.id for each in utterances} - {each.id for each in asked.parts.test}


@pytest.mark.gpu
def test_on_cuda_all_that_is_probed_is_there(talking, tmp_path, monkeypatch):
    seen = []

    def noting(name, opened, representation, **named):
        seen.append((name, device_of(representation).type))
        return probe(name, opened, representation, **named)

    monkeypatch.setattr(library, "probe", noting)
    works(*command(talking, tmp_path / "run", "apc", 2), "--device", "cuda")
    assert seen == [(name, "cuda") for name in ("mel", "random:apc", "apc")]
