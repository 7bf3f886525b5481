import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from browser import chromium, visit
from command import refuses, works
from speech_like import speech_like

from mockingjay.data.manifest import Corpus, read_manifest
from mockingjay.downstream.partition import PARTS
from mockingjay.downstream.scores import Scores
from mockingjay.report import attack_report
from mockingjay.studies.attack import adversary, plan
from mockingjay.studies.attack import rows as results
from mockingjay.studies.attack.countermeasures import slug
from mockingjay.studies.attack.study import Study
from mockingjay.studies.attack.subject import SMALL, Config, Scene, Subject
from mockingjay.studies.attack.vocoded import with_copies

ROW = {"representation", "task", "metric", "value", "ci95", "n", "seed", "data"}
DEFENCES = ["no defence", "trained again", "adversarial training", "mean filter", "median filter", "Gaussian filter"]
TINY = plan.Plan(4, 8, (1.0, 8.0), 2, 2, 4, 2, (30.0,))


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Do as little as can be done."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "WEALTH", (TINY,))
        yield


@pytest.fixture(scope="module")
def spoofs(tmp_path_factory):
    """Twelve speakers, each with one utterance and a clipped copy of it."""
    folder = tmp_path_factory.mktemp("spoofs")
    lines = []
    for number in range(24):
        wave = speech_like(6400 + 160 * (number // 2), number // 2)
        label = ("bonafide", "spoof")[number % 2]
        wave = wave if label == "bonafide" else (8 * wave).clamp(-0.2, 0.2)
        soundfile.write(folder / f"{number}.wav", wave.numpy(), 16_000)
        about = {"id": f"u{number}", "path": f"{number}.wav", "duration_s": len(wave) / 16_000}
        lines.append(json.dumps({**about, "speaker": f"s{number // 2}", "spoof": label}))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def command(data, out, *representation):
    sizes = ("--set", "seconds=0.52", "--set", "crops=1", "--set", "lcnn.channels=[4, 4, 4, 4, 4, 8]")
    blocks = ("--set", "senet.blocks=[1, 1, 1, 1]", "--set", "senet.widths=[4, 4, 8, 8]", "--set", "senet.batch=8")
    return (
        "attack",
        *representation,
        "--data",
        data,
        "--out",
        out,
        "--budget",
        "1s",
        *sizes,
        *blocks,
        "--size",
        "small",
    )


@pytest.fixture(scope="module")
def whole(spoofs, trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("attack") / "whole"
    return out, works(*command(spoofs, out, trained)), trained


def rows_of(out):
    return json.loads((out / "results.json").read_text())


def test_everything_is_measured(whole):
    out, said, run = whole
    rows = rows_of(out)
    assert all(row.keys() >= ROW for row in rows)
    names = {*DEFENCES, "untrained network", str(run), f"{run}, rebuilt"}
    clean = {(row["model"], row["representation"], row["metric"]) for row in rows if row["attack"] == "clean"}
    assert clean == {
        (family, name, metric)
        for family in ("LCNN", "SENet")
        for name in names
        for metric in ("EER", "min t-DCF", "accuracy")
    }
    right = [row for row in rows if row["metric"] == "accuracy"]
    features = [row for row in right if row["place"] == "features" and row["method"] not in ("adaptive", "unaltered")]
    kinds = {(None, "noise"), *((source, method) for source in ("LCNN", "SENet") for method in ("PGD", "FGSM"))}
    assert {(row["source"], row["method"]) for row in features} == kinds
    assert len(features) == len(kinds) * 2 * 2 * len(names)  # bounds, tested on, behind
    assert {row["representation"] for row in rows if row.get("method") == "adaptive"} == names - {"trained again"}
    assert {row["source"] for row in rows if row["place"] == "waveform"} == {None, "LCNN", "SENet"}
    for row in rows:
        assert row["metric"] != "accuracy" or row["ci95"][0] <= row["value"] <= row["ci95"][1]
    by_bound = {row["level"]: row for row in features}
    assert by_bound[8.0]["epsilon"] == pytest.approx(8 * by_bound[1.0]["epsilon"])
    sound = next(row for row in right if row["place"] == "waveform" and row["method"] == "noise")
    assert sound["snr"] == pytest.approx(30, abs=2)
    adaptive = {row["level"]: row["snr"] for row in rows if row.get("method") == "adaptive"}
    assert adaptive[1.0] > adaptive[8.0] + 12
    used = {str(row["used"]) for row in rows if row["attack"] == "clean"}
    assert len(used) == 1 and (known := next(row for row in rows if "used" in row)["used"]).keys() == set(PARTS)
    assert all(0 < some <= there for some, there in known.values())
    assert len([row for row in rows if row.get("method") == "unaltered"]) == 2 * len(names)
    assert "report: " in said and "EER on test" in said
    noise = {row["level"]: row["snr"] for row in features if row["method"] == "noise"}
    fgsm = {row["level"]: row["snr"] for row in features if row["method"] == "FGSM" and row["source"] == "LCNN"}
    assert noise == pytest.approx(fgsm, abs=0.3)  # the same energy


@pytest.fixture(scope="module")
def heard(spoofs, tmp_path_factory):
    """A study of what hears samples, modes of all networks while they were attacked, and attacks' steps and starts."""
    out, modes, made = tmp_path_factory.mktemp("attack") / "heard", {}, set()
    gradient, descend = adversary._gradient, adversary.projected_gradient

    def watched(losses, altered, call):
        note = lambda own, given: modes.setdefault(type(own).__name__, set()).add(own.training)  # noqa: E731
        with torch.nn.modules.module.register_module_forward_pre_hook(note):
            return gradient(losses, altered, call)

    def counted(*given, **how):
        made.add((how["steps"], how["restarts"]))
        return descend(*given, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adversary, "_gradient", watched)
        patch.setattr(adversary, "projected_gradient", counted)
        works(*command(spoofs, out, "random:cpc/nano"))
    return out, modes, made


def test_what_hears_samples_is_attacked_there(heard):
    out, *_ = heard
    rows = rows_of(out)
    name = "random:cpc/nano"
    attacked = [row for row in rows if row.get("source") and row["metric"] == "accuracy"]
    assert {(row["place"], row["method"]) for row in attacked} == {("waveform", "PGD"), ("waveform", "adaptive")}
    assert {row["representation"] for row in attacked} == {*DEFENCES, "untrained network", name}
    assert all(20 < row["snr"] < 45 and row["level"] == 30 for row in attacked)
    assert not (out / "features").exists() and (out / "waveform").exists()
    noise = [row for row in rows if row["metric"] == "LNSR" and row["method"] == "noise" and row["norm"] == "frobenius"]
    ratio = next(row for row in noise if (row["layer"], row["representation"]) == ("input", name))
    assert -20 * np.log10(ratio["value"]) == pytest.approx(ratio["snr"], abs=0.5)  # the input are the samples
    text = (out / "report" / "index.html").read_text()
    for words in (f"{name} hears samples: attacks are made on the waveform alone", "On the waveform", "A and C"):
        assert words in text
    assert "The four panels" not in text and "has been made yet" not in text and "not finished" not in text
    assert {"adaptive.png", "waveform.png", "noise.png"} < {path.name for path in (out / "report").iterdir()}


def test_networks_are_in_evaluation_mode_while_they_are_attacked(heard):
    _, modes, _ = heard
    assert modes.keys() >= {"LCNN", "SENet", "Encoder", "Waveform", "BatchNorm2d", "Dropout"}
    assert set().union(*modes.values()) == {False}, modes


def test_who_knows_a_defence_tries_as_often_as_who_does_not(heard):
    *_, made = heard
    assert made == {(1, 1), (TINY.steps, TINY.restarts)}  # the first is adversarial training


def test_noise_is_followed_through_every_layer(whole):
    out, _, run = whole
    found = [row for row in rows_of(out) if row["metric"] == "LNSR"]
    depth = len({row["layer"] for row in found})
    shown = len(list((out / "features").iterdir())) + len(list((out / "waveform").iterdir()))
    assert len(found) == shown * 2 * 3 * depth and {row["representation"] for row in found} == {
        "untrained network", str(run)
    }  # fmt: skip
    assert all(0 < row["ci95"][0] <= row["value"] <= row["ci95"][1] for row in found)
    assert all(row["sum"] == pytest.approx(row["n"] * row["value"]) for row in found)
    loud = {
        (row["norm"], row["level"]): row["value"]
        for row in found
        if (row["layer"], row["method"], row["representation"]) == ("input", "FGSM", str(run))
    }
    assert loud["frobenius", 8.0] == pytest.approx(8 * loud["frobenius", 1.0], rel=1e-3)


def test_what_is_attacked_is_balanced_and_not_learned_from(whole):
    out, _, _ = whole
    facts, splits = (json.loads((out / f"{name}.json").read_text()) for name in ("facts", "splits"))
    assert facts["answers"] == [1, 0] * (len(facts["answers"]) // 2)
    assert set(facts["attacked"]) <= set(splits["test"]) and not set(facts["attacked"]) & set(splits["train"])
    assert splits["rule"] == "speaker"


def test_the_page(whole):
    out, _, _ = whole
    text = (out / "report" / "index.html").read_text()
    for words in (
        "A) LCNN, PGD",
        "Attackers that know the defence",
        "On the waveform",
        "Noise by layer",
        "trained again",
        "t-DCF",
    ):
        assert words in text
    count = len(json.loads((out / "facts.json").read_text())["attacked"])
    assert f"Accuracy on {count} test utterances with" in text and f"On {count} test utterances; differences" in text
    across = text.partition("made on</th>")[2].partition("</thead>")[0]  # of the table of transfers
    assert "untrained network" in across and "trained again" in across and "filter" not in across
    assert "not finished" not in text and not re.search(r"(src|href)=.?(https?:|//)", text)
    assert {path.name for path in (out / "report").iterdir()} == {
        "index.html", "panels.png", "adaptive.png", "waveform.png", "noise.png"
    }  # fmt: skip
    with chromium() as chrome:
        asked = visit(chrome, out / "report" / "index.html")
        assert [address for address in asked if not address.startswith(("file:", "data:"))] == []
        assert not chrome.get_log("browser")
        wide = chrome.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0 and len(chrome.find_elements("css selector", "figure svg")) == 4


def test_what_is_missing_is_found_again(whole, spoofs, tmp_path, monkeypatch):
    monkeypatch.setattr(attack_report, "drawings", lambda rows: iter(()))
    out, _, run = whole
    again = tmp_path / "again"
    shutil.copytree(out, again)
    for name in ("features", "adaptive"):
        gone = sorted((again / name).iterdir())[0]
        gone.unlink()
    kept = {path: path.stat().st_mtime_ns for path in (again / "models").iterdir()}
    said = works(*command(spoofs, again, run), "--json")
    assert [json.loads(line) for line in said.splitlines()] == rows_of(again) == rows_of(out)
    assert {path: path.stat().st_mtime_ns for path in (again / "models").iterdir()} == kept


def test_refusals(whole, spoofs, tmp_path):
    out, _, run = whole
    refuses(2, "holds a study with other seed", *command(spoofs, out, run), "--seed", "1")
    refuses(2, "holds a study with other representation", *command(spoofs, out))
    refuses(2, "x: no such representation", *command(spoofs, tmp_path / "x", "x"))
    refuses(2, "lcnn.channel: unknown key; did you mean", *command(spoofs, tmp_path / "x"), "--set", "lcnn.channel=1")
    refuses(2, "precomputed:40: reads files of features, exp", *command(spoofs, tmp_path / "x", "precomputed:40"))
    refuses(2, "1e-06; use fewer", *command(spoofs, tmp_path / "x"), "--set", "memory=1e-6")
    other, kept = tmp_path / "other", (out / "splits.json").read_bytes()
    shutil.copytree(spoofs, other)
    lines = (spoofs / "manifest.jsonl").read_text().splitlines()
    (other / "manifest.jsonl").write_text("\n".join(lines[:-2]) + "\n")
    refuses(2, "holds a study with other speech", *command(other, out, run))
    assert (out / "splits.json").read_bytes() == kept


def test_copies(spoofs, tmp_path):
    found = with_copies(read_manifest(spoofs / "manifest.jsonl").utterances, tmp_path, 3, print)
    assert [each.labels["spoof"] for each in found] == ["bonafide", "spoof"] * 3
    for true, made in zip(found[::2], found[1::2]):
        first, second = (torch.from_numpy(soundfile.read(each.path)[0]).float() for each in (true, made))
        assert len(first) == len(second) and true.speaker == made.speaker
        window = torch.hann_window(512)
        loud = [torch.stft(wave, 512, window=window, return_complex=True).abs() for wave in (first, second)]
        assert 0.5 < loud[1].norm() / loud[0].norm() < 1.5
        assert torch.corrcoef(torch.stack([each.flatten() for each in loud]))[0, 1] > 0.7
    before = [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())]
    with_copies(read_manifest(spoofs / "manifest.jsonl").utterances, tmp_path, 3, print)
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())] == before


def test_what_was_heard_counts_with_its_copies(spoofs, tmp_path):
    bare = [replace(each, labels={}) for each in read_manifest(spoofs / "manifest.jsonl").utterances]
    heard = frozenset(each.id for each in bare)
    corpus = Corpus("x", tuple(bare))
    config = SMALL.model_copy(update={"seconds": 0.52, "most": (12, 4, 8)})
    subject = Subject("net", heard=heard)
    scene = Scene.prepare(subject, corpus, tmp_path, config, 0, torch.device("cpu"), lambda line: None)
    count = len(scene.sets["test"])
    assert any(each.id.endswith(" copied") for each in scene.sets["test"])
    assert f"net heard {count} of {count} test utterances in its pre-training." in scene.notes
    assert [len(scene.sets[part]) <= most for part, most in zip(PARTS, config.most)] == [True] * 3
    used = ", ".join(
        f"{len(scene.sets[part])} of {scene.facts[f'{part} utterances in all']} of {part}" for part in PARTS
    )
    assert f"Utterances used: {used}." in scene.notes and Config().most == (0, 0, 0)


def test_claims_are_held_against_what_was_attacked_alike():
    ids = [f"u{number}" for number in range(20)]
    answers = [1, 0] * 10
    right = [1.0 if answer else -1.0 for answer in answers]
    wrong = [-score for score in right]
    study = Study("x", "y", ("no defence", "trained again", "untrained network", "net"), 0)
    study.facts = {"attacked": ids, "answers": answers}
    known = {"threshold": 0.0, "ids": ids, "answers": answers, "scores": right, "measured": {}}
    study.trained = {family: dict.fromkeys(study.names, known) for family in ("LCNN", "SENet")}
    behind = {"no defence": wrong, "trained again": wrong[:10] + right[10:], "untrained network": right, "net": right}
    about = {"source": "LCNN", "method": "PGD", "place": "features", "level": 8.0, "epsilon": 1.0, "deviations": 1.0}
    study.shown = [about | {"snr": [0.0], "scores": {"LCNN": behind, "SENet": behind}}]
    study.adaptive = [
        {"family": "LCNN", "defence": "net", "level": 8.0, "epsilon": 1.0, "deviations": 1.0, "scores": wrong[:8]}
    ]
    study.adaptive[0]["snr"] = [3.0]
    study.facts |= {f"{part} utterances{more}": 20 for part in PARTS for more in ("", " in all")}
    found = {(row["defence"], row["rival"]): row for row in results.claims(study)}
    assert found.keys() == {
        ("untrained network", "no defence"), ("untrained network", "trained again"), ("net", "no defence"),
        ("net", "trained again"), ("net", "untrained network"), ("net", "net"),
    }  # fmt: skip
    net = {rival: row for (name, rival), row in found.items() if name == "net"}
    assert net["no defence"]["verdict"] == "holds" and net["no defence"]["difference"] == 1.0
    assert net["trained again"]["difference"] == 0.5 and net["untrained network"]["verdict"] == "undecided"
    assert net["net"]["ours"] == [0.0, 1.0] and net["net"]["verdict"] == "does not" and net["net"]["n"] == 8
    rows = [row for row in results.rows(study) if row["attack"].startswith("PGD") and row["model"] == "LCNN"]
    assert {row["representation"]: row["spoofs_let_in"] for row in rows}["no defence"] == 1.0
    assert Scores(tuple(ids), np.ones(20), np.ones(20)).value == 1 and slug("no defence") != slug("no-defence")
