"""The promise: whatever a model's files claim is refused in one sentence, in seconds, before anything is built."""

import hashlib
import json

import numpy as np
import pytest
import safetensors.torch
from child import one_line, survey
from test_fuzz import spoil

from mockingjay.core.errors import CheckpointError, ConfigError
from mockingjay.core.untrusted import HEADER, RECORD, TENSORS, parse_tensors
from mockingjay.encoders.contexts import Transformer as Context
from mockingjay.encoders.encoder import Encoder, shapes
from mockingjay.encoders.frontends.log_mel import TERA_80
from mockingjay.objectives import OBJECTIVES
from mockingjay.settings import settings
from mockingjay.train import checkpoint

TOY = Encoder.Config(frontend=TERA_80, context=Context.Config(layers=1, dim=8, feedforward=8, heads=2))


def toy(folder):
    """An encoder's folder."""
    Encoder(TOY).save(folder)
    return folder


def signed(folder, weights=None, change=None, record=None):
    """Write other weights, or another record, with a sum that is right."""
    record = record or json.loads((folder / "config.json").read_bytes())
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)
        record["sha256"] = hashlib.sha256(weights).hexdigest()
    if change:
        change(record)
    (folder / "config.json").write_text(json.dumps(record))


def header(table, length=None, rest=b""):
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + rest


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
HEADERS = {
    "nothing": b"",
    "short": b"\1\2",
    "no table": header(b"[]"),
    "a number": header(b"3"),
    "no JSON": header(b"{"),
    "not UTF-8": header(b'{"\xff": 1}'),
    "beyond the end": header(b"{}", 99),
    "of 2^63 bytes": header(b"{}", (1 << 63) - 1),
    "of 2^64 bytes": header(b"{}", (1 << 64) - 1),
    "deep": header(b"[" * 100_000),
    "long": header(b" " * (HEADER + 1)),
    "twice": header(b'{"x": %b, "x": %b}' % ((json.dumps(ENTRY).encode(),) * 2), rest=bytes(4)),
    "overlap": header({"x": ENTRY, "y": ENTRY}, rest=bytes(4)),
    "hole": header({"x": ENTRY}, rest=bytes(8)),
    "too few bytes": header({"x": ENTRY}, rest=bytes(3)),
    "negative": header({"x": {**ENTRY, "shape": [-1]}}, rest=bytes(4)),
    "overflow": header({"x": {**ENTRY, "shape": [1 << 62, 4]}}, rest=bytes(4)),
    "backwards": header({"x": {**ENTRY, "data_offsets": [4, 0]}}, rest=bytes(4)),
    "unknown type": header({"x": {**ENTRY, "dtype": "PICKLE"}}, rest=bytes(4)),
    "entry is text": header({"x": "y"}),
    "many": header(
        {str(number): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(TENSORS + 1)}
    ),
    "of other shapes": header({"x": ENTRY}, rest=bytes(4)),
    "a path": header({"../../x": ENTRY}, rest=bytes(4)),
    "digits": header(b'{"x": 1' + b"0" * 9_999 + b"}"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_of_safetensors_that_lie(name, tmp_path):
    signed(toy(tmp_path), HEADERS[name])
    ((_, fate, said),) = survey(lambda folder: one_line(Encoder.load, folder), [tmp_path])
    assert (fate, said[0]) == ("", "CheckpointError") and said[1].startswith(f"{tmp_path}/model.safetensors: ")


def test_records_that_lie(tmp_path):
    """Settings of any size, of the wrong kind, or none: refused before anything is built."""
    toy(tmp_path)

    def context(**values):
        return lambda record: record["encoder"]["context"].update(values)

    def frontend(**values):
        return lambda record: record["encoder"]["frontend"].update(values)

    changes = {
        "layers": context(layers=10**9),
        "dim": context(dim=10**12),
        "large": context(dim=65_536, feedforward=262_144, layers=256),
        "window": frontend(window=10**9, fft=10**9),
        "mels": frontend(mels=10**9),
        "delta": frontend(delta_width=10**9 + 1),
        "kind": context(kind="os.system"),
        "unknown": context(code="import os"),
        "text": context(dim="8"),
        "none": lambda record: record.pop("encoder"),
        "a list": lambda record: record.update(encoder=[1]),
        "format": lambda record: record.update(format=2),
        "no sum": lambda record: record.pop("sha256"),
        "huge": lambda record: record.update(
            encoder={"context": {"kind": "causal-convolution", "kernels": [10**9] * 100, "dim": 65_536}}
        ),
    }
    whole = json.loads((tmp_path / "config.json").read_bytes())

    def read(name):
        signed(tmp_path, change=changes[name], record=json.loads(json.dumps(whole)))
        return one_line(Encoder.load, tmp_path)

    assert {name: (fate, said) for name, fate, said in survey(read, changes) if fate or not said[0]} == {}
    for content in (
        b"", b"[]", b"3", b'{"format": NaN', b"\xff", b"[" * 200_000, b'{"a": ' * 99_999, b" " * (RECORD + 1),
                    b'{"format": 1, "format": 1}', b"1" * 5_000):  # fmt: skip
        (tmp_path / "config.json").write_bytes(content)
        ((_, fate, said),) = survey(lambda folder: one_line(Encoder.load, folder), [tmp_path])
        assert fate == "" and said[0] == "CheckpointError" and "config.json: " in said[1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(value, tmp_path):
    tensors = safetensors.torch.load_file(toy(tmp_path) / "model.safetensors")
    tensors["context.norm.weight"][3] = value
    signed(tmp_path, safetensors.torch.save(tensors))
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: 'context\.norm\.weight' is not finite, expected numb"
    ):
        Encoder.load(tmp_path)


def test_spoilt_headers_of_safetensors(tmp_path, fuzz):
    """In memory for the most part; every twentieth through the folder, with its sum made right."""
    content = (toy(tmp_path) / "model.safetensors").read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")

    def read(seed):
        random = np.random.default_rng(seed)
        start = int(random.integers(end)) * int(random.integers(2))
        changed = content[:start] + spoil(content[start:end], random) + content[end:]
        if seed % 20:
            return one_line(parse_tensors, changed, tmp_path / "model.safetensors")
        signed(tmp_path, changed)
        return one_line(Encoder.load, tmp_path)

    found = survey(read, range(fuzz or 9_400))
    assert [row for row in found if row[1] or row[2][0] not in ("", "CheckpointError") or "not one" in row[2][1]] == []


def test_spoilt_records_and_manifests(tmp_path, fuzz):
    """An encoder's record; a checkpoint's manifest, its state, and both with sums made right."""
    folder = toy(tmp_path / "encoder")
    saved = checkpoint.save(tmp_path, checkpoint.Checkpoint(3, Encoder(TOY).state_dict(), {}, {"a": 1}))
    whole = {
        path: path.read_bytes() for path in (folder / "config.json", saved / "MANIFEST.json", saved / "state.json")
    }

    def read(seed):
        random = np.random.default_rng(seed)
        path = list(whole)[seed % 3]
        content = whole[path]
        start = int(random.integers(len(content) - 1))
        path.write_bytes(content[:start] + spoil(content[start:], random))
        if path.name == "state.json":
            entries = {name: checkpoint._entry((saved / name).read_bytes()) for name in checkpoint._FILES}
            (saved / "MANIFEST.json").write_bytes(checkpoint._manifest(saved.name, entries))
        said = one_line(Encoder.load, folder) if seed % 3 == 0 else one_line(checkpoint.load, saved)
        for path, content in whole.items():
            path.write_bytes(content)
        return said

    found = list(survey(read, range(fuzz or 600)))
    kinds = ("", CheckpointError.__name__, ConfigError.__name__)
    assert [row for row in found if row[1] or row[2][0] not in kinds or "not one" in row[2][1]] == []
    assert sum(row[2][0] != "" for row in found) > len(found) / 2


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_shapes_are_known_before_anything_is_built(objective):
    config = settings(objective, "nano").objective.encoder
    assert shapes(config, "x") == {name: value.shape for name, value in Encoder(config).state_dict().items()}
