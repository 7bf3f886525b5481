import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from command import mockingjay, refuses, works
from test_pretrain import contents

from mockingjay.core.config import overlay
from mockingjay.core.errors import TrainingError
from mockingjay.data.corpora import open_corpus
from mockingjay.downstream.features import device_of
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.scores import Scores
from mockingjay.pretrain import pretrain
from mockingjay.studies.decks import forecast, statements
from mockingjay.studies.decks.contestants import CONTESTANTS, prepare
from mockingjay.studies.decks.profiles import profile_names, read_profile
from mockingjay.train.estimate import Estimate

pytestmark = pytest.mark.drill  # whole commands

# The table in a moment: nano encoders of four steps, heads of a few updates; two utterances a voice allow no question
# for speakers.
NANO = """
about = "Nano."

[base]
objective = "mockingjay"
preset = "nano"
changes = [{changes}]

[large]
objective = "mockingjay"
preset = "nano"
changes = [{changes}, "objective.encoder.context.layers=3"]

[apc]
objective = "apc"
preset = "nano"
changes = [{changes}, "objective.encoder.context.dim=64"]

[phone]
task = "phone"
utterances = 16

[speaker]
task = "label:gender"
utterances = 16

[sentiment]
task = "label:sentiment"
utterances = 16

[frame]
unseen = "drop"
seeds = 1
frozen = {{ learning_rates = [1e-2], updates = 10, evaluations = 1 }}
live = {{ learning_rates = [1e-3], epochs = 3 }}

[utterance]
unseen = "drop"
seeds = 1
probe = {{ head = "mlp1" }}
frozen = {{ learning_rates = [1e-2], updates = 10, evaluations = 1 }}
live = {{ learning_rates = [1e-3] }}

[labels]
shares = [1.0, 0.25]
seeds = 2
"""
CHANGES = '"train.steps=4", "batches.seconds=6", "batches.crop=1", "upkeep.validate_every=2"'


def write_profile(folder, more=""):
    path = folder / "nano.toml"
    path.write_text(more + NANO.format(changes=CHANGES))
    return path


def command(out, data, *more):
    return "table", "--profile", write_profile(out.parent), "--data", data, "--out", out, *more


@pytest.fixture(scope="session")
def nano_table(talking, tmp_path_factory):
    """A whole table, what was printed, and how often each utterance was trained on in every fine-tuning."""
    out = tmp_path_factory.mktemp("table") / "whole"
    passes, forward = [], Probe.forward

    def counting(self, batch, *rest):
        if self.config.tune == "all":
            passes.append((self, [each.id for each in batch.utterances]))  # held: a freed probe's id may return
        return forward(self, batch, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Probe, "forward", counting)
        said = works(*command(out, talking))
    return out, said, passes


def test_eight_rows_on_three_columns(nano_table):
    out, said, _ = nano_table
    rows = json.loads((out / "results.json").read_text())
    names = [each.name for each in CONTESTANTS]
    assert {(row["representation"], row["column"]) for row in rows} == {
        (name, column) for name in names for column in ("phone", "speaker", "sentiment")
    }
    assert list(dict.fromkeys(row["representation"] for row in rows)) == names
    reads = {row["representation"]: (row["read"], row["tune"]) for row in rows}
    assert (
        reads["LARGE-WS"] == ("mix", "head") and reads["BASE-FT2"] == ("last", "all") == reads["BASE-FT2 from scratch"]
    )
    shown = next(line for line in said.splitlines() if line.startswith("LARGE-WS "))
    assert [float(figure) for figure in re.findall(r"\] +(\d+\.\d)", shown)] == [69.9, 96.4, 71.1]
    sentence = next(line for line in said.splitlines() if line.startswith("phone: Mel < BASE (the decks"))
    assert re.search(
        r"60\.9 against 49\.1, \+11\.8\): \d+\.\d against \d+\.\d, .*; (holds|does not hold|undecided)", sentence
    )


def test_ft2_is_two_passes_whatever_the_profile_s_epochs(nano_table):
    out, _, passes = nano_table
    splits = [json.loads(file.read_text())["train"] for file in sorted((out / "splits").glob("*.json"))]
    heard = {}
    for probe, ids in passes:
        heard.setdefault(probe, []).extend(ids)
    assert len(heard) == 6 and {len(ids) % 2 for ids in heard.values()} == {0}
    assert sorted(map(sorted, heard.values())) == sorted(sorted(2 * ids) for ids in splits + splits)


def test_no_tested_utterance_is_heard(nano_table):
    out, *_ = nano_table
    tested = {id for file in (out / "splits").glob("*.json") for id in json.loads(file.read_text())["test"]}
    for encoder in ("base", "large", "apc"):
        learnt = {json.loads(line)["id"] for line in (out / encoder / "corpus.jsonl").read_text().splitlines()}
        assert learnt and tested and not learnt & tested


def test_the_page_and_what_the_decks_say(nano_table):
    out, *_ = nano_table
    said = json.loads((out / "statements.json").read_text())
    assert {each["verdict"] for each in said} <= {"holds", "does not", "undecided"} and len(said) == 21
    text = (out / "report" / "index.html").read_text()
    assert "Of 15 statements of the decks" in text and "WS is the best" in text and "Layer weights" in text
    assert text.count("<svg ") == 2 and not re.search(r"(src|href)=.?(https?:|//)", text)


def test_the_same_command_goes_on_and_measures_nothing_twice(nano_table, talking, tmp_path, monkeypatch):
    whole, *_ = nano_table
    out = tmp_path / "again"
    shutil.copytree(whole, out, ignore=shutil.ignore_patterns("results.json", "base-ft2-phone*"))
    before = contents(out)
    monkeypatch.setattr("mockingjay.studies.decks.contestants.pretrain", unlucky(pretrain))
    said = mockingjay(*command(out, talking))
    assert said.code == 143 and "stopped; the same command goes on" in said.out
    assert "large failed: step 3: the loss is nan" in said.out
    found = {row["representation"] for row in json.loads((out / "results.json").read_text())}
    assert found == {"Mel", "BASE", "BASE-FT2", "BASE untrained", "BASE-FT2 from scratch"}
    verdicts = {each["text"]: each["verdict"] for each in json.loads((out / "statements.json").read_text())}
    assert (
        verdicts["phone: BASE < LARGE"] == "not measured" and "What failed" in (out / "report/index.html").read_text()
    )
    monkeypatch.undo()
    works(*command(out, talking), "--quiet")
    theirs, ours = (json.loads((place / "results.json").read_text()) for place in (whole, out))
    assert [{**row, "seconds": 0} for row in theirs] == [{**row, "seconds": 0} for row in ours]
    after = contents(out)
    changed = {path.name for path in before if before[path] != after.get(path)}
    assert changed <= {"provenance.json", ".lock", "index.html"}


def unlucky(pretrain):
    """LARGE fails, APC is stopped."""

    def train(chosen, learnt, out, **named):
        if out.name == "large":
            raise TrainingError("step 3: the loss is nan, expected a number; lower the learning rate")
        return replace(pretrain(chosen, learnt, out, **named), stopped=143 * (out.name == "apc"))

    return train


def test_the_decks_own_figures_bear_their_statements_out():
    by_verdict = {}
    for said in (statements.table_statements(), statements.fewer_statements((1.0, 0.125, 0.05, 0.01, 0.005, 0.001))):
        for each in said:
            if each.source == "deck":
                published = statements.TABLE if each.text[:3] in ("pho", "spe", "sen") else statements.FEWER
                found = statements.judge(each, lambda cell: (), published)
                assert found["verdict"] == "not measured"
                by_verdict.setdefault(found["theirs"], []).append(each.text)
    assert by_verdict[False] == ["Mel < BASE < LARGE, at every share"]  # LARGE is below BASE at 1 and 0.5 %
    assert len(by_verdict[True]) == 15 + 7
    gain = statements.figure(statements.FEWER, ("LARGE-WS", "average")) - statements.figure(
        statements.FEWER, ("LARGE", "average")
    )
    assert gain == pytest.approx(5.75)


@pytest.mark.parametrize(
    ("better", "worse", "verdict"),
    [
        ((0.9, 0.8), (0.5, 0.6), "holds"),
        ((0.5, 0.6), (0.9, 0.8), "does not"),
        ((0.9, 0.4), (0.5, 0.45), "undecided"),  # one seed says otherwise
        ((0.6, 0.6), (0.6, 0.6), "undecided"),
    ],
)
def test_a_statement_is_decided_only_where_all_seeds_agree(better, worse, verdict):
    def seeds(values):
        ids = tuple(f"u{number}" for number in range(50))
        return [Scores(ids, np.full(50, 10 * value), np.full(50, 10.0)) for value in values]

    known = {("A", "x"): seeds(better), ("B", "x"): seeds(worse)}
    statement = statements.Statement("B < A", "deck", ((("A", "x"), ("B", "x")),))
    assert statements.judge(statement, known.__getitem__, {})["verdict"] == verdict


def test_refusals(nano_table, talking, tmp_path):
    out = tmp_path / "none"
    refuses(2, "no such profile, expected one of full, real, talking", "table", "--profile", "x", "--out", out)
    refuses(2, "--data: not given", "table", "--profile", "real", "--out", out)
    refuses(2, "apc: 128 wide, expected 64", *command(out, talking, "--set", "apc.changes=[]"))
    refuses(2, "heard: no corpus 'x'", *command(out, talking, "--set", 'heard=["x"]'))
    refuses(3, "sentiment has 3 classes, expected 2", *command(out, talking, "--set", "sentiment.classes=2"))
    refuses(3, "holds no corpus 'x'", *command(out, talking, "--set", 'phone.data=["x"]'))
    refuses(2, "shares should fall", *command(out, talking, "--set", "labels.shares=[0.1, 1.0]"))
    refuses(2, "holds a table with other seed", *command(nano_table[0], talking, "--seed", 1))
    assert not list(out.glob("*/config.toml"))


def tree(folder, talking):
    """LibriSpeech and MOSEI in little: the embedded corpus's files under their names."""
    lines = [json.loads(line) for line in (talking / "manifest.jsonl").read_text().splitlines()]
    rows = ["path,start,end,speaker,sentiment"]
    for number, line in enumerate(lines):
        voice, set_ = number // 2, "test-clean" if line["split"] == "test" else "train-clean-360"
        corpus = folder / "LibriSpeech"
        for place in (
            corpus / set_ / str(100 + voice) / "7",
            corpus / "train-clean-100" / str(500 + voice % 4) / str(voice),
        ):
            place.mkdir(parents=True, exist_ok=True)
            name = f"{place.parent.name}-{place.name}-{number:04d}"
            shutil.copy(talking / line["path"], (place / name).with_suffix(".wav"))
            with (place / f"{place.parent.name}-{place.name}.trans.txt").open("a") as file:
                file.write(f"{name} {line['text'].upper()}\n")
            spans = [(round(start * 16_000), round(end * 16_000), phone) for start, end, phone in line["alignment"]]
            (place / name).with_suffix(".phn").write_text("".join("{} {} {}\n".format(*span) for span in spans))
        if line["sentiment"] != "neutral":
            rows.append(f"{talking / line['path']},0,{line['duration_s']},v{voice},{line['sentiment']}")
    (folder / "MOSEI").mkdir()
    (folder / "MOSEI" / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_full_checks_its_paths_and_foretells_its_hours(talking, tmp_path):
    full = read_profile("full")
    assert (
        full.settings("apc", 0).objective.encoder.context.dim == full.settings("base", 0).objective.encoder.context.dim
    )
    data = tree(tmp_path / "data", talking)
    changes = CHANGES.replace('"', "'")
    small = [
        *("--set", f"base={{objective='mockingjay', preset='nano', changes=[{changes}]}}"),
        *("--set", f"large={{objective='mockingjay', preset='nano', changes=[{changes}]}}"),
        *("--set", f"apc={{objective='apc', preset='nano', changes=[{changes}, 'objective.encoder.context.dim=64']}}"),
        *("--set", "speaker.least=8"),
    ]
    out = tmp_path / "out"
    ask = ("table", "--profile", "full", "--data", data, "--out", out, *small)
    said = works(*ask)
    assert re.search(r"phone: phone of train-clean-360\+test-clean, \d+ classes; \d+ to learn from", said)
    assert "speaker: label:speaker of train-clean-100, 4 classes" in said
    assert re.search(r"\d\.\d\d h  in all on this machine, .*; begin with --go", said)
    assert json.loads((out / "forecast.json").read_text())["total"] > 0 and not (out / "base").exists()
    said = works("labels", *ask[1:])  # which would train the same encoders
    assert "phone: phone of" in said and "speaker:" not in said and re.search(r" h  pre-training base, .*of", said)
    assert re.search(r"\d\.\d\d h  in all on this machine, .*; begin with --go", said)
    assert (out / "labels" / "forecast.json").is_file() and not (out / "labels" / "labels.json").exists()
    assert not any((out / name).exists() for name in ("base", "large", "apc"))
    shutil.rmtree(data / "MOSEI")
    refuses(3, r"data: lacks .*MOSEI, expected 4 corpora; unpack", *ask)


def test_a_sweep_s_hours_are_those_of_its_draws(talking, tmp_path, monkeypatch):
    """A second of training takes a second: rates, shares and seeds are all that is left."""
    monkeypatch.setattr(forecast, "_step", lambda ground, encoder, device: Estimate(6.0, 0))  # of batches of 6 s
    monkeypatch.setattr(forecast, "passes", lambda probe, train, config: 5.0)  # of a training through its utterances
    small = {"frozen": {"learning_rates": (1e-3, 1e-2), "evaluations": 4}, "memory": 1e-9}
    profile = overlay(read_profile(str(write_profile(tmp_path))), {"frame": small, "labels": {"seeds": 3}})
    ground = prepare(profile, open_corpus(talking), tmp_path, 0, lambda line: None)
    parts = ground.asked["phone"].parts
    train, dev, test = (sum(each.seconds for each in part) for part in (parts.train, parts.dev, parts.test))
    found = forecast.forecast(ground, "labels", tmp_path / "labels", tmp_path, "cpu", lambda line: None).hours
    frozen, draws = 2 * 6, 6  # two shares of three seeds; rates are tried for every draw, but once in fine-tuning
    assert 3600 * found["probing BASE"] == pytest.approx((frozen * 5 * (train + dev) + draws * test) / 3)
    assert 3600 * found["probing BASE-FT2"] == pytest.approx(draws * 2 * train + (draws * 2 * dev + draws * test) / 3)
    assert 3600 * found["pre-training base, 4 steps of 6 s"] == pytest.approx(24)
    tabled = forecast.forecast(ground, "table", tmp_path, tmp_path, "cpu", lambda line: None).hours
    assert found.keys() == tabled.keys() and found["probing LARGE-WS"] > tabled["probing LARGE-WS"] / 2


def test_profiles_that_come_with_the_package_resolve():
    assert profile_names() == ["full", "real", "talking"]
    for name in profile_names():
        profile = read_profile(name)
        widths = {profile.settings(encoder, 0).objective.encoder.context.dim for encoder in ("base", "apc")}
        assert len(widths) == 1
        large = profile.settings("large", 0)
        assert large.objective.target.inner.kind == "linear" and large.objective.encoder.frontend.factor == 3
        assert all(len(getattr(profile, kind).live.learning_rates) > 1 for kind in ("frame", "utterance"))


@pytest.mark.gpu
def test_features_as_they_are_go_where_encoders_are_trained(talking, tmp_path):
    profile = read_profile(str(write_profile(tmp_path)))
    ground = prepare(profile, open_corpus(talking), tmp_path, 0, lambda line: None)
    _, representation = ground.opened(CONTESTANTS[0], tmp_path, None, "cuda")
    assert device_of(representation).type == "cuda"
