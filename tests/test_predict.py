import json

import pytest
import torch
from toy_representation import Toy, speak

from mockingjay.core.errors import CheckpointError, DataError
from mockingjay.core.types import Waves
from mockingjay.downstream import fit_probe, load_probe, open_task, predict, save_probe
from mockingjay.downstream.features import load
from mockingjay.downstream.fit import Config
from mockingjay.downstream.frozen import FrozenTraining
from mockingjay.downstream.predict import predict_wave
from mockingjay.downstream.probe import Probe


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    return speak(tmp_path_factory.mktemp("speech"))


def fitted(spoken, task, **probe):
    quick = FrozenTraining.Config(learning_rates=(5e-2,), updates=80, rows=256)
    config = Config(probe=Probe.Config(**probe), frozen=quick, seeds=1)
    config = config.model_copy(
        update={"live": config.live.model_copy(update={"learning_rates": (1e-2,), "seconds": 3.0})}
    )
    return fit_probe(Toy(), open_task(task), spoken[:24], spoken[24:32], spoken[32:], config, "toy", "made")


@pytest.fixture(scope="module")
def phones(spoken, tmp_path_factory):
    folder = tmp_path_factory.mktemp("phones")
    result = fitted(spoken, "phone", read="mix")
    save_probe(result.probe, folder, "toy", result.row)
    return folder, result


@pytest.mark.parametrize(
    ("task", "probe"),
    [
        ("phone", {"read": "mix"}),
        ("label:mood", {"head": "gru"}),
        ("phone", {"tune": "all"}),
        ("label:mood", {"head": "mlp2"}),
    ],
)
def test_a_saved_probe_guesses_the_same(task, probe, spoken, tmp_path):
    result = fitted(spoken, task, **probe)
    save_probe(result.probe, tmp_path, "toy", result.row)
    again = load_probe(tmp_path, lambda name: {"toy": Toy}[name]())
    waves = Waves.pad([load(each) for each in spoken[:3]])
    with torch.no_grad():
        torch.testing.assert_close(again.guess(waves)[0], result.probe.guess(waves)[0], atol=0, rtol=0)
    assert again.task.outputs == result.probe.task.outputs and not again.training
    assert ("representation.map.weight" in (tmp_path / "probe.safetensors").read_bytes().decode("latin1")) == (
        "tune" in probe
    )


def test_utterance_labels(spoken, tmp_path):
    result = fitted(spoken, "label:mood")
    save_probe(result.probe, tmp_path, "toy")
    predictions = list(predict(tmp_path, [each.path for each in spoken[32:]], lambda name: Toy()))
    assert [each.label for each in predictions] == [each.labels["mood"] for each in spoken[32:]]
    assert all(0.5 <= each.probability <= 1 and each.segments == () for each in predictions)


@pytest.mark.parametrize("hop", [160, 480])
def test_phone_segments_cover_the_file(hop, spoken, phones):
    folder, _ = phones
    for each, said in zip(spoken[32:35], predict(folder, [each.path for each in spoken[32:35]], lambda name: Toy(hop))):
        assert said.label is None and said.seconds == pytest.approx(each.seconds)
        assert said.segments[0][0] == 0 and said.segments[-1][1] == said.seconds
        assert all(a[1] == b[0] and a[2] != b[2] for a, b in zip(said.segments, said.segments[1:]))
        merged = [each.alignment[0]]
        for start, end, phone in each.alignment[1:]:
            if phone == merged[-1][2]:
                merged[-1] = (merged[-1][0], end, phone)
            else:
                merged.append((start, end, phone))
        full = [span for span in merged if span[1] - span[0] >= 0.03]  # a shorter last one may hold no step
        assert [span[2] for span in said.segments][: len(full)] == [span[2] for span in full]
        assert [span[0] for span in said.segments][: len(full)] == pytest.approx([span[0] for span in full], abs=1e-6)


def test_too_short_a_file(phones):
    _, result = phones
    with pytest.raises(DataError, match=r"x\.wav: 0\.005 s are too short, expected at least 0\.010 s"):
        predict_wave(result.probe, torch.zeros(80), "x.wav")


def copied(folder, target):
    for name in ("probe.json", "probe.safetensors"):
        (target / name).write_bytes((folder / name).read_bytes())
    return target


def test_a_flipped_bit_is_noticed(phones, tmp_path):
    folder = copied(phones[0], tmp_path)
    weights = bytearray((folder / "probe.safetensors").read_bytes())
    weights[-3] ^= 1
    (folder / "probe.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointError, match=r"probe\.safetensors: does not match the SHA-256 in probe\.json"):
        load_probe(folder, lambda name: Toy())


def test_another_representation_is_refused(phones):
    with pytest.raises(CheckpointError, match=r"toy has 3 layers of 4, expected 3 of 8 as when the probe was trained"):
        load_probe(phones[0], lambda name: Toy(dim=4))


def test_a_representation_that_was_trained_anew_is_refused(phones, tmp_path):
    def anew(name):
        trained = Toy()
        with torch.no_grad():
            trained.map.weight.mul_(2)
        return trained

    with pytest.raises(CheckpointError, match=r"probe\.json: toy has other weights than when the probe was trained"):
        load_probe(phones[0], anew)
    folder = copied(phones[0], tmp_path)
    card = json.loads((folder / "probe.json").read_text())
    del card["parameters"]  # as stored before
    (folder / "probe.json").write_text(json.dumps(card))
    assert load_probe(folder, anew).task.outputs


def test_no_probe_there(phones, tmp_path):
    with pytest.raises(CheckpointError, match=r"expected a probe's folder with probe\.json and probe\.safetensors"):
        load_probe(tmp_path / "none", lambda name: Toy())
    folder = copied(phones[0], tmp_path)
    (folder / "probe.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"probe\.json: not JSON"):
        load_probe(folder, lambda name: Toy())
    (folder / "probe.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(CheckpointError, match=r"not a probe's card of format 1"):
        load_probe(folder, lambda name: Toy())


def test_tensors_that_do_not_fit(phones, tmp_path):
    folder = copied(phones[0], tmp_path)
    card = json.loads((folder / "probe.json").read_text())
    card["outputs"] = card["outputs"][:-1]
    (folder / "probe.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match=r"its tensors do not fit probe\.json"):
        load_probe(folder, lambda name: Toy())


def test_the_card_tells_what_the_probe_reached(phones):
    folder, result = phones
    card = json.loads((folder / "probe.json").read_text())
    assert card["row"]["value"] == result.row["value"]
    assert sum(card["layers"].values()) == pytest.approx(1)
    assert card["outputs"] == list(result.probe.task.outputs)
