import json
from dataclasses import replace

import pytest
import torch
from command import refuses, works
from toy_representation import Toy, speak

from mockingjay.core.errors import DataError
from mockingjay.core.untrusted import Hollow
from mockingjay.data.manifest import Corpus, write_manifest
from mockingjay.downstream.heads import build_head
from mockingjay.studies.superb import SAID, Config, parts, superb

pytestmark = pytest.mark.drill  # whole commands

QUICK = Config(learning_rates=(1e-4, 1e-1), updates=6)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("superb")
    spoken = speak(folder / "audio", count=32, speakers=2, seconds=(0.4, 0.8))
    labels = [{"word": each.labels["mood"], "emotion": each.labels["mood"]} for each in spoken]
    texts = ["la la" if each.labels["mood"] == "sad" else "do re" for each in spoken]
    spoken = [replace(each, labels=own, text=text) for each, own, text in zip(spoken, labels, texts)]
    write_manifest(folder / "manifest.jsonl", spoken)
    return Corpus(folder.name, tuple(spoken)), folder


def test_heads_have_the_published_shapes():
    sizes = {(768, 72): "sequence", (768, 1251): "utterance"}
    for (dim, classes), resolution in sizes.items():
        head = build_head("linear256", dim, classes, resolution)
        assert sum(p.numel() for p in head.parameters()) == 769 * 256 + 257 * classes
        assert head.pool == (resolution == "utterance")
    with Hollow():
        recogniser = build_head("blstm1024", 768, 32, "sequence")
    cells = 4 * 1024 * (1024 + 1024 + 2)  # one direction of a layer that reads 1024 values
    second = 4 * 1024 * (2048 + 1024 + 2)
    assert sum(p.numel() for p in recogniser.parameters()) == 769 * 1024 + 2 * (cells + second) + 2049 * 32


def test_tasks_are_found_by_their_labels(corpus):
    whole, _ = corpus
    found = {part.code: part for part in parts(whole, Config())}
    assert list(found) == ["PR", "KS", "SID", "ER", "ASR"]
    assert {code: part.question.task.name for code, part in found.items()} == {
        "PR": "phones", "KS": "label:word", "SID": "label:speaker", "ER": "label:emotion", "ASR": "text",
    }  # fmt: skip
    assert [part.head for part in found.values()] == ["linear256"] * 4 + ["blstm1024"]
    assert found["ASR"].question.task.metric == "WER" and found["PR"].question.task.metric == "PER"
    bare = [replace(each, alignment=None, text=None, labels={"word": "x"}, speaker=None) for each in whole.utterances]
    said = []
    with pytest.raises(DataError, match=r"its labels allow none of PR, KS, .*; add some"):
        parts(Corpus("bare", tuple(bare)), Config(), say=said.append)
    assert said == [f"{code}: not asked, for want of labels" for code in ("PR", "KS", "SID", "ER", "ASR")]
    long = [replace(each, seconds=3.0) for each in whole.utterances]
    assert "KS" not in {part.code for part in parts(Corpus("long", tuple(long)), Config())}


def test_every_task_is_fitted_once(corpus, tmp_path):
    whole, _ = corpus
    toy, asked = Toy(), parts(whole, QUICK, only=("KS", "PR"))
    known = [list(rows) for rows in superb("toy", "toy", toy, asked, tmp_path, QUICK)]
    assert [len(rows) for rows in known] == [1, 2]
    rows = {row["task"]: row for row in known[-1]}
    assert rows["superb:KS"]["value"] > 0.9 and rows["superb:PR"]["metric"] == "PER"
    for row in rows.values():
        assert row["suite"] == SAID and len(row["values"]) == 3 and row["learning_rate"] in QUICK.learning_rates
        assert [layer["layer"] for layer in row["layers"]] == [0, 1, 2] and row["read"] == "mix"
    heard = toy.seen
    *_, again = superb("toy", "toy", toy, asked, tmp_path, QUICK)
    assert again == known[-1] and toy.seen == heard


def test_the_command(corpus, tmp_path):
    _, folder = corpus
    quick = ("--set", "updates=2", "--set", "seeds=1", "--set", "learning_rates=[0.01]")
    command = ("superb", "mel", "--data", folder, "--out", tmp_path, "--tasks", "SID,PR", *quick)
    said = works(*command, "--json")
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [json.loads(line) for line in said.splitlines()] == rows and len(rows) == 2
    assert SAID in works(*command)
    refuses(2, "holds heads with other settings", *command, "--set", "updates=3")
    refuses(2, "--tasks ASV: no such task", "superb", "mel", "--data", folder, "--out", tmp_path, "--tasks", "ASV")
    assert torch.is_grad_enabled()
