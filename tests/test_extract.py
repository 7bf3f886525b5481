import json
import sys

import numpy as np
import pytest
import safetensors.numpy
import torch
from toy_representation import Toy, speak

from mockingjay.core.errors import ConfigError, DataError, MachineError
from mockingjay.core.types import Utterance, Waves
from mockingjay.downstream import extract, read_index
from mockingjay.downstream.extract import file_of
from mockingjay.downstream.features import load


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    return speak(tmp_path_factory.mktemp("speech"), count=12)


def contents(out):
    return {id: np.load(out / row["file"]) for id, row in read_index(out).items()}


def alone(utterance, layers=(2,)):
    with torch.no_grad():
        hidden = Toy().eval()(Waves.pad([load(utterance)]))
    return np.stack([hidden.layers[layer][0].numpy() for layer in layers])


def test_one_file_per_utterance_and_an_index(spoken, tmp_path):
    done = extract(Toy(480), spoken, tmp_path)
    assert (done.written, done.kept, done.short, done.refused) == (12, 0, (), 0)
    index = read_index(tmp_path)
    assert sorted(index) == sorted(each.id for each in spoken)
    for each in spoken:
        row = index[each.id]
        assert row["shape"] == [round(each.seconds * 16_000) // 480, 8]
        assert (row["hop"], row["first"]) == (0.03, 0.015)
        assert np.load(tmp_path / row["file"]).dtype == np.float32


def test_batch_mates_order_and_shard_do_not_matter(spoken, tmp_path):
    extract(Toy(), spoken, tmp_path / "whole", layers="all")
    for shard in ("1/3", "2/3", "3/3"):
        extract(Toy(), spoken[::-1], tmp_path / "parts", layers="all", shard=shard)
    whole, parts = contents(tmp_path / "whole"), contents(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    files = [
        sorted(path.relative_to(out).as_posix() for path in out.rglob("*.npy"))
        for out in (tmp_path / "whole", tmp_path / "parts")
    ]
    assert files[0] == files[1]
    for each in spoken:
        np.testing.assert_allclose(whole[each.id], parts[each.id], atol=1e-5)
        np.testing.assert_allclose(whole[each.id], alone(each, (0, 1, 2)), atol=1e-5)


@pytest.mark.parametrize(("layers", "shape"), [("last", (8,)), ("0,2", (2, 8)), ("all", (3, 8))])
def test_pooled_means_ignore_padding(layers, shape, spoken, tmp_path):
    extract(Toy(), spoken, tmp_path, layers=layers, pool="mean")
    values = contents(tmp_path)
    indices = {"last": (2,), "0,2": (0, 2), "all": (0, 1, 2)}[layers]
    for each in spoken:
        assert values[each.id].shape == shape
        np.testing.assert_allclose(values[each.id].reshape(-1, 8), alone(each, indices).mean(1), atol=1e-5)


def test_formats_hold_the_same(spoken, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    for format in ("npy", "safetensors", "parquet"):
        extract(Toy(), spoken[:2], tmp_path / format, layers="0,2", format=format)
    for each in spoken[:2]:
        expected = np.load(tmp_path / "npy" / file_of(each.id, "npy"))
        tensors = safetensors.numpy.load_file(tmp_path / "safetensors" / file_of(each.id, "safetensors"))
        np.testing.assert_array_equal(tensors["hidden"], expected)
        table = parquet.read_table(tmp_path / "parquet" / file_of(each.id, "parquet"))
        values = np.stack(table["hidden"].to_numpy(zero_copy_only=False)).reshape(expected.shape)
        np.testing.assert_array_equal(values, expected)
        assert table["seconds"].to_pylist()[:2] == [0.005, 0.015]
        assert read_index(tmp_path / "parquet")[each.id]["shape"] == list(expected.shape)


@pytest.mark.parametrize("layers", ["last", "all"])
def test_means_have_one_time(layers, spoken, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    extract(Toy(), spoken[:1], tmp_path, layers=layers, pool="mean", format="parquet")
    table = parquet.read_table(tmp_path / file_of(spoken[0].id, "parquet"))
    assert set(table["seconds"].to_pylist()) == {0.005} and table.num_rows == (3 if layers == "all" else 1)


@pytest.mark.parametrize("format", ["npy", "safetensors", "parquet"])
def test_the_same_command_again_does_only_what_is_missing(format, spoken, tmp_path):
    extract(Toy(), spoken[:5], tmp_path, format=format)
    torn, gone = (tmp_path / file_of(each.id, format) for each in spoken[:2])
    whole = torn.read_bytes()
    torn.write_bytes(whole[: len(whole) // 2])
    gone.unlink()
    untouched = (tmp_path / file_of(spoken[2].id, format)).stat().st_mtime_ns
    representation = Toy()
    done = extract(representation, spoken[:6], tmp_path, format=format)
    assert (done.written, done.kept, representation.seen) == (3, 3, 3)
    assert torn.read_bytes() == whole
    assert (tmp_path / file_of(spoken[2].id, format)).stat().st_mtime_ns == untouched
    assert len(read_index(tmp_path)) == 6
    assert not list(tmp_path.rglob(".tmp-*"))


def test_ids_never_leave_the_folder(spoken, tmp_path):
    ids = ["../../x", "/abs", "a\x00b", "a" * 300, "CON", "Aa", "aA", "ü/ö", ".", " "]
    utterances = [Utterance(id, spoken[0].path, spoken[0].seconds) for id in ids]
    extract(Toy(), utterances, tmp_path / "out")
    index = read_index(tmp_path / "out")
    assert set(index) == set(ids)
    files = [(tmp_path / "out" / row["file"]).resolve() for row in index.values()]
    assert len({str(file).lower() for file in files}) == len(ids)
    assert all(file.is_relative_to((tmp_path / "out").resolve()) and file.exists() for file in files)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_short_utterances_are_counted(spoken, tmp_path):
    short = Utterance("short", spoken[0].path, 0.005)
    assert extract(Toy(), [*spoken[:2], short], tmp_path).short == ("short",)


def test_a_bad_file_is_named_and_left_out(spoken, tmp_path):
    bad = Utterance("bad", str(tmp_path / "none.wav"), 1.0)
    done = extract(Toy(), [*spoken, bad], tmp_path / "out")
    assert (done.written, done.refused) == (12, 1)
    row = json.loads((tmp_path / "out" / "quarantine.jsonl").read_text())
    assert (row["id"], row["class"]) == ("bad", "missing")


def test_many_bad_files_stop_the_extraction(spoken, tmp_path):
    bad = [Utterance(f"bad{number}", str(tmp_path / f"none{number}.wav"), 1.0) for number in range(2)]
    with pytest.raises(DataError, match=r"2 of 14 files cannot be used, expected at most 1"):
        extract(Toy(), [*spoken, *bad], tmp_path / "out")


def test_other_settings_are_refused_in_the_same_folder(spoken, tmp_path):
    extract(Toy(), spoken[:1], tmp_path, name="runs/a")
    with pytest.raises(ConfigError, match=r"holds features of other settings \(extract\.json\)"):
        extract(Toy(), spoken[:1], tmp_path, name="runs/b")


def test_other_weights_of_the_same_name_are_refused_in_the_same_folder(spoken, tmp_path):
    extract(Toy(), spoken[:1], tmp_path, name="runs/a")
    trained = Toy()
    with torch.no_grad():
        trained.map.weight.mul_(2)
    with pytest.raises(ConfigError, match=r"holds features of other settings \(extract\.json\)"):
        extract(trained, spoken[:2], tmp_path, name="runs/a")


def test_doubled_ids_are_refused(spoken, tmp_path):
    with pytest.raises(DataError, match=r"corpus: 1 ids occur twice \(first 'u000'\)"):
        extract(Toy(), [spoken[0], spoken[0]], tmp_path)


@pytest.mark.parametrize("layers", ["first", "3", "0,7", "", "-1"])
def test_wrong_layers(layers, spoken, tmp_path):
    with pytest.raises(ConfigError, match=r"expected last, all, or indices from 0 to 2 such as 0,2"):
        extract(Toy(), spoken[:1], tmp_path, layers=layers)


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b"])
def test_wrong_shards(shard, spoken, tmp_path):
    with pytest.raises(ConfigError, match=rf"--shard {shard}: expected k/n with k from 1 to n"):
        extract(Toy(), spoken[:1], tmp_path, shard=shard)


def test_parquet_without_pyarrow(spoken, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MachineError, match=r"--format parquet: pyarrow is not installed"):
        extract(Toy(), spoken[:1], tmp_path, format="parquet")
