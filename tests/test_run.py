import importlib
import json
import os
import re
from pathlib import Path

import pytest
from command import mockingjay, refuses, works
from shortcuts import quick_probes, stopping
from speech_like import corpus
from test_pretrain import SMALL, contents, final, steps_of

from mockingjay.downstream import questions
from mockingjay.downstream.features import device_of
from mockingjay.objectives.mockingjay import Mockingjay
from mockingjay.pretrain import TRIAL

pytestmark = pytest.mark.drill  # whole commands

ROW = {"representation", "task", "metric", "value", "ci95", "n", "seed", "data"}


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Fit probes in a second instead of half a minute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(questions, "PROBES", quick_probes(20))
        yield


def command(data, out, steps=6):
    return ("run", data, "--out", out, *SMALL, "--set", f"train.steps={steps}", "--set", "upkeep.save_every=2")


def rows_of(out):
    rows = json.loads((out / "results.json").read_text())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def whole(talking, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "whole"
    return out, works(*command(talking, out))


def test_the_whole_way(whole, talking):
    out, said = whole
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert found >= {
        "config.toml", "provenance.json", "corpus.jsonl", "metrics.jsonl", "encoder/config.json",
        "encoder/model.safetensors", "encoder/README.md", "report/index.html", "report/results.json", "results.json",
    }  # fmt: skip
    assert not [name for name in found if ".tmp" in name] and "report: " in said
    rows = json.loads((out / "results.json").read_text())
    assert all(row.keys() >= ROW for row in rows)
    assert (out / "report" / "results.json").read_bytes() == (out / "results.json").read_bytes()
    asked = {(row["representation"], row["task"]) for row in rows}
    names = ("mel", "random:mockingjay", "mockingjay")
    assert asked == {(name, task) for name in names for task in ("phone", "label:sentiment")}
    tested = {
        id for file in (out / "splits").glob("*.json") for id in json.loads(file.read_text())["test"]
    }  # no probe is tested on what the encoder has heard
    learnt = {json.loads(line)["id"] for line in (out / "corpus.jsonl").read_text().splitlines()}
    assert tested and not tested & learnt and len(tested | learnt) == 48
    page = (out / "report" / "index.html").read_text()
    assert "steps = 6" in page and "phone" in page and not re.search(r"(src|href)=.?(https?:|//)", page)


def test_every_probe_of_a_run_predicts(whole, talking):
    file = next((talking / "audio").glob("*.flac"))
    for folder in sorted((whole[0] / "probes").iterdir()):
        assert works("predict", folder, file)


def test_the_same_command_again_measures_nothing_anew(whole, talking):
    out, _ = whole
    before = contents(out)
    said = works(*command(talking, out), "--json")
    assert [json.loads(line) for line in said.splitlines()] == json.loads((out / "results.json").read_text())
    after = contents(out)
    same = [path for path in before if path.name not in ("provenance.json", ".lock", "index.html")]
    assert before.keys() == after.keys() and all(before[path] == after[path] for path in same)


def test_resumed_in_the_middle_of_pretraining(whole, talking, tmp_path, monkeypatch):
    out = tmp_path / "again"
    with monkeypatch.context() as patch:
        patch.setattr(Mockingjay, "forward", stopping(Mockingjay, TRIAL + 3))  # after the estimate
        said = mockingjay(*command(talking, out))
    assert said.code == 130 and "stopped at step 3; the same command goes on" in said.out
    assert not (out / "results.json").exists() and not (out / "encoder").exists()
    said = works(*command(talking, out))
    assert "at step 3 of 6" in said
    assert final(out, 6) == final(whole[0], 6) and steps_of(out) == list(range(7))
    assert rows_of(out) == rows_of(whole[0])


def test_another_run_stays_as_it_is(whole, tmp_path):
    out, _ = whole
    other = corpus(tmp_path / "other")
    before = contents(out)
    refuses(2, "holds a run on another corpus", *command(other, out))
    refuses(2, r"other settings \(batches\.crop\)", *command(other, out), "--set", "batches.crop=1")
    after = contents(out)
    assert before.keys() == after.keys()
    assert all(before[path] == after[path] for path in before if path.name != "scan.jsonl")


def test_a_second_run_is_refused_whatever_the_first_is_at(tmp_path, monkeypatch):
    """Before it reads or writes anything: while the baselines are probed, and what has been trained."""
    module, refused = importlib.import_module("mockingjay.run"), []
    words = command(corpus(tmp_path / "data", speakers=1), tmp_path / "run", 1)

    def meanwhile(name, *more):
        with monkeypatch.context() as patch:
            patch.setattr("mockingjay.pretrain.scan", pytest.fail)
            refuses(5, rf"another run is writing here \(process {os.getpid()} on ", *words)
        refused.append(name)
        return questions.probe(name, *more)

    monkeypatch.setattr(module, "probe", meanwhile)
    works(*words)
    assert refused == ["mel", "random:mockingjay", "mockingjay"]


def test_a_budget_and_no_labels(tmp_path):
    data, out = corpus(tmp_path / "data", speakers=1), tmp_path / "run"
    said = works("run", data, "--out", out, *SMALL, "--budget", "1s", "--quiet")
    assert said == "" and json.loads((out / "results.json").read_text()) == []
    assert "has not been measured" in (out / "report" / "index.html").read_text()


def test_labels_that_answer_nothing_do_not_stop_a_run(tmp_path):
    data = corpus(tmp_path / "data", speakers=1)
    files = sorted(data.rglob("*.wav"))
    labels = ["a"] * 22 + ["b", "b"]
    lines = [f"{file},{label},{'test' if label == 'b' else 'train'}" for file, label in zip(files, labels)]
    (tmp_path / "list.csv").write_text("path,label,split\n" + "\n".join(lines) + "\n")
    said = works(*command(tmp_path / "list.csv", tmp_path / "run", 1))
    assert "not asked: task label:label: " in said and (tmp_path / "run" / "report" / "index.html").exists()


def test_a_bad_file_is_on_the_page(tmp_path):
    out = tmp_path / "run"
    works(*command(corpus(tmp_path / "data", bad=1, speakers=1), out, 1))
    assert "empty (0 bytes)" in (out / "report" / "index.html").read_text()
    refuses(3, "12 of 24 files", *command(corpus(tmp_path / "worse", bad=12), tmp_path / "none", 1))
    assert not (tmp_path / "none" / "probes").exists()


def test_without_audio_it_is_the_embedded_corpus(talking, tmp_path, monkeypatch):
    monkeypatch.setattr("mockingjay.data.talking.talking", lambda workers: talking)
    monkeypatch.chdir(tmp_path)
    works("run", *SMALL, "--set", "train.steps=1", "--quiet")
    assert Path("runs/mockingjay-talking/report/index.html").is_file()


@pytest.mark.gpu
def test_on_cuda_all_that_is_probed_is_there(talking, tmp_path, monkeypatch):
    seen = []

    def noting(name, opened, representation, *more):
        seen.append((name, device_of(representation).type))
        return questions.probe(name, opened, representation, *more)

    monkeypatch.setattr(importlib.import_module("mockingjay.run"), "probe", noting)
    works(*command(talking, tmp_path / "run", 1), "--device", "cuda")
    assert seen == [(name, "cuda") for name in ("mel", "random:mockingjay", "mockingjay")]
