import csv
import json
import re
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from command import refuses, works
from test_pretrain import contents
from test_table import write_profile
from toy_representation import Toy, speak

from mockingjay.cli import labels as labels_verb
from mockingjay.cli import table as table_verb
from mockingjay.downstream import open_task
from mockingjay.downstream.fit import Config, Fitting, fit_probe
from mockingjay.downstream.frozen import FrozenTraining
from mockingjay.downstream.probe import Probe
from mockingjay.encoders.encoder import Encoder
from mockingjay.report.statements import count, statements_section
from mockingjay.studies.decks import forecast
from mockingjay.studies.decks import labels as library
from mockingjay.studies.decks.contestants import CONTESTANTS
from mockingjay.studies.decks.labels import nested
from mockingjay.train.estimate import Estimate

pytestmark = pytest.mark.drill  # whole commands

SHARES = (1.0, 0.5, 0.125, 0.05, 0.01)


def swept(out, data, *more):
    profile = write_profile(out.parent)
    return "labels", "--profile", profile, "--data", data, "--out", out, *more


@pytest.fixture(scope="module")
def whole(talking, tmp_path_factory):
    out = tmp_path_factory.mktemp("labels") / "out"
    return out, works(*swept(out, talking))


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    return speak(tmp_path_factory.mktemp("speech"))


@pytest.mark.parametrize("task", ["phone", "label:mood", "label:speaker"])
def test_shares_are_nested_and_hold_every_class_that_they_can(spoken, task):
    asked = open_task(task).learn(spoken)
    whole = sum(each.seconds for each in spoken)
    draws = []
    for seed in range(4):
        shares = nested(spoken, asked, SHARES, seed)
        assert list(shares) == list(SHARES) and len(shares[1.0]) == len(spoken)
        for share, some in shares.items():
            seconds = [each.seconds for each in some]
            assert sum(seconds) >= share * whole - 1e-6 and sum(seconds[:-1]) < share * whole
            named = {name for each in some for name in asked.names(each)}
            assert len(named) >= min(len(asked.outputs), len(some))
        ids = [[each.id for each in some] for some in shares.values()]
        assert all(larger[: len(smaller)] == smaller for larger, smaller in pairwise(ids))
        again = nested(spoken[::-1], asked, SHARES, seed)
        assert ids == [[each.id for each in some] for some in again.values()]
        draws.append(ids[-1])
    assert len(set(map(tuple, draws))) > 1
    moods = [each.labels["mood"] for each in nested(spoken, open_task("label:mood"), (0.5,), 0)[0.5]]
    assert abs(moods.count("glad") - moods.count("sad")) <= 1


@pytest.mark.parametrize(("task", "head"), [("phone", "linear"), ("label:mood", "gru"), ("label:mood", "linear")])
def test_fewer_labels_train_as_a_smaller_training_set_does(spoken, task, head):
    # The same but for the standardisation, which keeps what was measured on all audio; so it is measured on all here.
    frozen = FrozenTraining.Config(learning_rates=(1e-2,), updates=20, evaluations=2)
    config = Config(probe=Probe.Config(head=head), frozen=frozen, seeds=1)
    representation, known = Toy(), open_task(task).learn(spoken)
    fitting = Fitting(representation, known, spoken[:24], spoken[24:32], spoken[32:], config)
    seen, some = representation.seen, spoken[3:9]
    found = fitting.fit(some, seed=5)
    assert representation.seen == seen  # nothing is represented anew
    other = Fitting(representation, known, some, spoken[24:32], spoken[32:], config)
    other._training.scale = fitting._training.scale
    expected = other.fit(seed=5)
    assert found.row["utterances"]["train"] == 6 and found.row["seed"] == 5
    for one, same in zip(found.probe.head.parameters(), expected.probe.head.parameters()):
        torch.testing.assert_close(one, same, atol=1e-4, rtol=1e-4)  # rows come in another order


def test_fine_tuning_with_fewer_labels_takes_as_many_updates(spoken, monkeypatch):
    heard, forward = [], Probe.forward
    monkeypatch.setattr(
        Probe, "forward", lambda self, batch, *rest: heard.append(batch.utterances) or forward(self, batch, *rest)
    )
    config = Config(probe=Probe.Config(tune="all"), seeds=1)
    config = config.model_copy(update={"live": config.live.model_copy(update={"seconds": 3.0})})
    fitting = Fitting(Toy(), open_task("phone"), spoken[:24], spoken[24:32], spoken[32:], config)
    fitting.fit()
    whole = len(heard)
    heard.clear()
    fitting.fit(spoken[4:6], seed=1)
    assert len(heard) == whole > 4 and {each.id for batch in heard for each in batch} == {"u004", "u005"}
    assert fit_probe(Toy(), open_task("phone"), spoken[:24], spoken[24:32], spoken[32:], config).row["value"] > 0


def test_every_row_at_every_share(whole):
    out, said = whole
    rows = json.loads((out / "labels" / "results.json").read_text())
    names = [each.name for each in CONTESTANTS]
    assert [(row["representation"], row["share"]) for row in rows] == [
        (name, share) for name in names for share in (1.0, 0.25)
    ]
    assert {row["n"] for row in rows} == {6} and all(len(row["values"]) == 2 for row in rows)
    lines = list(csv.DictReader((out / "labels" / "results.csv").read_text().splitlines()))
    assert len(lines) == len(names) * 2 * 2
    means = {}
    for line in lines:
        means.setdefault((line["representation"], float(line["share"])), []).append(float(line["value"]))
    for row in rows:
        assert row["value"] == pytest.approx(np.mean(means[row["representation"], row["share"]]))
        assert row["ci95"][0] <= row["value"] <= row["ci95"][1]
    assert re.search(
        r"LARGE-WS with 25 % of the labels beats Mel with 100 % \(the decks\): \d+\.\d against \d+\.\d", said
    )


def test_the_page_and_the_picture(whole):
    out, _ = whole
    text = (out / "labels" / "report" / "index.html").read_text()
    assert "Fewer labels: phone" in text and "decks:" in text and "Layer weights: phone" in text
    assert "always the commonest answer" in text and "mean over draws of the labels (2 seeds from 0)" in text
    assert text.count("<svg ") == 2 and not re.search(r"(src|href)=.?(https?:|//)", text)
    assert (out / "labels" / "report" / "phone.png").stat().st_size > 10_000
    said = json.loads((out / "labels" / "statements.json").read_text())
    assert len(said) == 10 and {each["verdict"] for each in said} <= {"holds", "does not", "undecided"}


def test_what_is_said_of_other_columns_than_phones_is_ours():
    phone, speaker = (library._judged({}, column, (1.0, 0.25)) for column in ("phone", "speaker"))
    assert [each["source"] for each in phone].count("deck") == 8 and {each["source"] for each in speaker} == {"ours"}
    assert count([*phone, *speaker]) == "Of 8 statements of the decks 8 are not measured."
    assert "Their figures come from other speech" in statements_section(phone).text
    text = statements_section(speaker).text
    assert text.startswith("None of these statements is the decks'.") and "Their figures" not in text


def test_what_cannot_be_read_is_said(talking, tmp_path):
    data, said = tmp_path / "audio", []
    shutil.copytree(talking / "audio", data)
    broken = min(data.iterdir())
    broken.write_bytes(b"not audio")
    assert labels_verb.opened is table_verb.opened  # so the sweep says what the table says
    _, corpus = table_verb.opened(str(write_profile(tmp_path)), (), data, said.append)
    assert len(corpus.refused) == len(said) == 1 and broken.name in said[0]


def test_the_same_command_reads_its_cells_back_and_the_table_s_encoders(whole, talking, tmp_path, monkeypatch):
    out, fit, fitted = tmp_path / "out", Fitting.fit, []
    shutil.copytree(whole[0] / "labels", out / "labels", ignore=shutil.ignore_patterns("large-ws*", "base-ft2-phone*"))
    scratch = (out / "labels" / "cells").glob("base-ft2-from-scratch-phone*/*-seed-1.json")
    fewest = min(scratch, key=lambda file: int(file.name.partition("-")[0]))
    card = json.loads(fewest.read_text())
    card["row"]["learning_rate"] = 1.0  # as another largest share would have it
    fewest.write_text(json.dumps(card))
    monkeypatch.setattr(library.Fitting, "fit", lambda self, some, seed: fitted.append(seed) or fit(self, some, seed))
    works(*swept(out, talking, "--table", whole[0]), "--quiet")
    assert sorted(fitted) == [0] * 4 + [1] * 5 and sorted(each.name for each in out.iterdir()) == ["labels"]
    theirs, ours = contents(whole[0] / "labels"), contents(out / "labels")
    assert theirs.keys() == ours.keys()
    assert {path.name for path in ours if ours[path] != theirs[path]} <= {"index.html"}
    refuses(2, "holds a sweep over labels with other seed", *swept(whole[0], talking), "--seed", 1)


def test_cells_of_other_encoders_are_not_read_back(whole, talking, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    shutil.copytree(whole[0] / "labels", out / "labels")
    shutil.copytree(whole[0], other, ignore=shutil.ignore_patterns("labels"))
    encoder = Encoder.load(other / "base" / "encoder")
    next(encoder.parameters()).data.mul_(1.001)  # as a budget or another machine would leave it: settings are the same
    encoder.save(other / "base" / "encoder")
    sentence = "holds a sweep over labels with other weights of base, expected those in its labels.json; take them back"
    refuses(2, sentence, *swept(out, talking, "--table", other))
    card = json.loads((out / "labels" / "labels.json").read_text())
    (out / "labels" / "labels.json").write_text(json.dumps({**card, "weights of base": "of another training"}))
    shutil.rmtree(other / "base" / "encoder")  # not trained to the end: what it comes to is known only then
    refuses(2, sentence, *swept(out, talking, "--table", other), "--quiet")
    assert set(card) > {f"weights of {name}" for name in ("base", "large", "apc")}


def test_encoders_that_are_trained_cost_nothing_more(whole, talking, tmp_path, monkeypatch):
    monkeypatch.setattr(forecast, "_step", lambda ground, encoder, device: Estimate(1.0, 0))
    ask = (*swept(tmp_path / "out", talking, "--table", whole[0]), "--set", "confirm=true")
    said = works(*ask)
    assert "pre-training base" not in said and " h  probing BASE-FT2" in said and "; begin with --go" in said
    assert [each.name for each in (tmp_path / "out" / "labels").iterdir()] == ["forecast.json"]
