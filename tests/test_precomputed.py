import io
import json
import struct

import numpy as np
import pytest
import soundfile
import torch
from command import refuses, works
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from shortcuts import quick_probes
from speech_like import speech_like

from mockingjay import audio
from mockingjay.audio import AudioError
from mockingjay.core.config import validate
from mockingjay.core.draw import Draw
from mockingjay.core.errors import DataError
from mockingjay.core.types import Batch, Utterance, Waves
from mockingjay.data.batches import BatchPlan, Loader
from mockingjay.data.corpora import open_corpus
from mockingjay.data.scan import inspect
from mockingjay.encoders.frontends import FRONTENDS, Precomputed, Stacked, build_frontend
from mockingjay.objectives import build_objective
from mockingjay.objectives.mockingjay import Mockingjay
from mockingjay.settings import settings
from mockingjay.studies import compare
from mockingjay.train.loop import Run

PLAIN = Precomputed.Config(dim=40, normalise="none")


def frames(count, dim=40, seed=0):
    """Features that hang together in time, as speech's do."""
    random = np.random.default_rng(seed).standard_normal((count, dim)).cumsum(0)
    return (random - random.mean(0)).astype(np.float32)


def kaldi(matrix, kind=b"FM "):
    values = matrix.astype("<f4" if kind == b"FM " else "<f8")
    return b"\0B" + kind + struct.pack("<bibi", 4, len(values), 4, values.shape[1]) + values.tobytes()


def archive(path, matrices, kind=b"FM "):
    """Write an archive and its list, and return where each matrix begins."""
    data, lines = b"", []
    for key, matrix in matrices.items():
        lines.append(f"{key} {path.name}:{len(data) + len(key) + 1}\n")
        data += key.encode() + b" " + kaldi(matrix, kind)
    path.write_bytes(data)
    path.with_suffix(".scp").write_text("".join(lines))
    return path


def saved(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def cut(wave, config=PLAIN):
    return build_frontend(config)(Waves.pad([wave])).values[0]


def corpus(folder, count=12, dim=40, length=130):
    for number in range(count):
        path = folder / f"s{number % 3}" / f"{number:02d}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, frames(length + number, dim, number))
    return folder


# Files


@pytest.mark.parametrize("dim", [1, 40, 160])
@pytest.mark.parametrize("kind", ["npy", b"FM ", b"DM "])
def test_values_come_back_bit_for_bit(tmp_path, dim, kind):
    matrix, path = frames(37, dim), tmp_path / "x.npy"
    np.save(path, matrix)
    if kind != "npy":
        archive(tmp_path / "x.ark", {"other": frames(5), "this": matrix}, kind)
        path = open_corpus(tmp_path / "x.scp").utterances[1].path
    header, wave = audio.load(path)
    assert (header.dim, header.frames, header.seconds, header.rate) == (dim, 37 * 160, 0.37, 16_000)
    assert wave.shape == (37 * 160,)
    hops = wave.view(37, 160)
    assert torch.equal(hops[:, :dim], torch.from_numpy(matrix)) and not hops[:, dim:].any()
    assert torch.equal(cut(wave, Precomputed.Config(dim=dim, normalise="none")), torch.from_numpy(matrix))


@hypothesis_settings(max_examples=40, deadline=None)
@given(first=st.integers(0, 49), count=st.integers(1, 50), jitter=st.floats(-0.004, 0.004))
def test_a_stretch_is_of_whole_frames(tmp_path_factory, first, count, jitter):
    path = tmp_path_factory.getbasetemp() / "stretch.npy"
    if not path.exists():
        np.save(path, frames(100))
    wave = audio.read(path, max(0.0, first / 100 + jitter), count / 100 + jitter)
    assert torch.equal(cut(wave), torch.from_numpy(frames(100)[first : first + count]))


def test_float64_is_rounded_and_what_float32_cannot_hold_is_refused(tmp_path):
    matrix = frames(9).astype(np.float64) / 3
    np.save(tmp_path / "x.npy", matrix)
    assert torch.equal(cut(audio.read(tmp_path / "x.npy")), torch.from_numpy(matrix.astype(np.float32)))
    matrix[4, 7] = 1e300
    np.save(tmp_path / "x.npy", matrix)
    with pytest.raises(AudioError, match=r"x.npy: frame 4 holds a value that is not finite, expected finite numbers"):
        audio.read(tmp_path / "x.npy")


HOSTILE = {
    "empty": (b"", "empty", r"empty \(0 bytes\), expected features"),
    "text": (b"hello, I am no array" * 9, "not-audio", "no numpy array by its first bytes"),
    "objects": (saved(np.array([{}, {}])), "format", r"an array of another kind \(.*'\|O'.*\), expected float32"),
    "integers": (saved(np.ones((3, 4), np.int16)), "format", r"\(.*'<i2'.*\), expected float32 \[time, dim\]"),
    "one axis": (saved(np.ones(3, np.float32)), "format", "an array of another kind"),
    "columns first": (saved(np.asfortranarray(np.ones((3, 4), np.float32))), "format", "'fortran_order': True"),
    "wide": (saved(np.ones((3, 161), np.float32)), "format", "161 values a frame, expected 1 to 160"),
    "no values": (saved(np.ones((3, 0), np.float32)), "format", "0 values a frame"),
    "no frames": (saved(np.ones((0, 4), np.float32)), "no-samples", "0 frames, expected features"),
    "cut": (saved(np.ones((30, 4), np.float32))[:-1], "truncated", "truncated: 607 bytes of the 608 its header"),
    "huge": (
        saved(np.ones((3, 4), np.float32)).replace(b"(3, 4), }                ", b"(99999999999999999, 4), }"),
        "truncated",
        "truncated: 176 bytes of the",
    ),
    "code": (
        saved(np.ones((3, 4), np.float32)).replace(b"(3, 4), }   ", b"exit(3, 4)} "),
        "format",
        "an array of another kind",
    ),
}


@pytest.mark.parametrize(("data", "kind", "text"), HOSTILE.values(), ids=HOSTILE)
def test_arrays_that_are_no_features_are_refused(tmp_path, data, kind, text):
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(AudioError, match=text) as error:
        audio.read(tmp_path / "x.npy")
    assert error.value.kind == kind and "; " in str(error.value)


def changed(offset, data):
    whole = kaldi(frames(6))
    return whole[:offset] + data + whole[offset + len(data) :]


KALDI = {
    "compressed": (b"\0BCM " + b"\0" * 99, "format", "a compressed matrix at that byte.*copy-feats --compress=false"),
    "vector": (b"\0BFV " + b"\0" * 99, "format", "no binary matrix at that byte"),
    "text": (b" [\n 1 2 3 ]\n", "format", "no binary matrix"),
    "negative": (changed(6, struct.pack("<i", -1)), "corrupt", "-1 frames, expected 1 or more"),
    "huge": (changed(6, struct.pack("<i", 2**31 - 1)), "truncated", "truncated: 975 bytes of the 343597383535"),
    "wide": (changed(11, struct.pack("<i", 2**31 - 1)), "format", "2147483647 values a frame"),
    "cut": (kaldi(frames(6))[:-1], "truncated", "truncated: 974 bytes of the 975"),
    "header cut": (kaldi(frames(6))[:9], "format", "no binary matrix"),
}


@pytest.mark.parametrize(("data", "kind", "text"), KALDI.values(), ids=KALDI)
def test_matrices_that_are_none_are_refused(tmp_path, data, kind, text):
    (tmp_path / "x.ark").write_bytes(data)
    with pytest.raises(AudioError, match=text) as error:
        audio.read(f"{tmp_path / 'x.ark'}:0")
    assert error.value.kind == kind


def test_a_place_beyond_the_file_and_a_missing_one(tmp_path):
    path = archive(tmp_path / "x.ark", {"a": frames(3)})
    with pytest.raises(AudioError, match="no binary matrix at that byte"):
        audio.read(f"{path}:99999999")
    with pytest.raises(AudioError, match=r"none.ark: no such file"):
        audio.read(f"{tmp_path / 'none.ark'}:2")


# Corpora


def test_lists_archives_and_folders_are_corpora(tmp_path):
    matrices = {f"ann-{index}": frames(50 + index, seed=index) for index in range(3)}
    (tmp_path / "k").mkdir()
    archive(tmp_path / "k" / "feats.ark", matrices)
    (tmp_path / "k" / "utt2spk").write_text("ann-0 ann\nann-1 bob\n")
    (tmp_path / "k" / "text").write_text("ann-0 she had\n")
    for path in (tmp_path / "k", tmp_path / "k" / "feats.scp", tmp_path / "k" / "feats.ark"):
        found = open_corpus(path).utterances
        assert [(each.id, each.seconds) for each in found] == [("ann-0", 0.5), ("ann-1", 0.51), ("ann-2", 0.52)]
        assert [each.speaker for each in found] == ["ann", "bob", None] and found[0].text == "she had"
        for each in found:
            assert torch.equal(cut(audio.read(each.path, 0.0, each.seconds)), torch.from_numpy(matrices[each.id]))
    found = open_corpus(corpus(tmp_path / "n")).utterances
    assert len(found) == 12 and {each.speaker for each in found} == {"s0", "s1", "s2"}
    (single,) = open_corpus(tmp_path / "n" / "s0" / "00.npy").utterances
    assert single.seconds == 1.3


def test_lists_are_read_as_kaldi_writes_them(tmp_path):
    """Paths from where the recipe ran, tabs, and an utterance's own id where nobody is named."""
    folder = tmp_path / "data" / "train"
    for each in (tmp_path / "mfcc", folder):
        each.mkdir(parents=True)
    archive(tmp_path / "mfcc" / "raw.ark", {"ann-0": frames(50), "x": frames(51)})
    (folder / "feats.scp").write_text((tmp_path / "mfcc" / "raw.scp").read_text().replace(" ", "\tmfcc/"))
    (folder / "utt2spk").write_text("ann-0\tann\nx x\n")
    (folder / "text").write_text("ann-0\tshe had\nx\n")
    found = open_corpus(folder).utterances
    assert [(each.id, each.speaker, each.text) for each in found] == [("ann-0", "ann", "she had"), ("x", None, None)]
    assert torch.equal(cut(audio.read(found[1].path)), torch.from_numpy(frames(51)))


def test_arrays_beside_audio_are_passed_over(tmp_path):
    corpus(tmp_path, count=3)
    soundfile.write(tmp_path / "a.wav", speech_like(16_000, 0).numpy(), 16_000)
    assert [each.id for each in open_corpus(tmp_path).utterances] == ["a"]


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ("a cat feats.ark |", r"feats.scp:1: path 'cat feats.ark \|' is a URL or a command"),
        ("a feats.ark:2[0:3]", r"feats.scp:1: 'a feats.ark:2\[0:3\]', expected an id and a place such as"),
        ("lonely", r"feats.scp:1: 'lonely', expected an id and a place"),
        ("\nlonely", r"feats.scp:2: 'lonely', expected an id and a place"),
        ("a feats.ark:2\na feats.ark:2", r"id 'a' stands twice, expected each once"),
        ("a feats.ark:7", r"none of its 1 matrices can be used, .* the first says: .*no binary matrix at that byte"),
    ],
)
def test_lists_that_are_wrong_are_refused(tmp_path, lines, text):
    archive(tmp_path / "feats.ark", {"a": frames(30)})
    (tmp_path / "feats.scp").write_text(lines + "\n")
    with pytest.raises(DataError, match=text):
        open_corpus(tmp_path)


def test_an_archive_that_breaks_off_is_refused(tmp_path):
    path = archive(tmp_path / "feats.ark", {"a": frames(30)})
    path.write_bytes(path.read_bytes() + b"garbage")
    with pytest.raises(AudioError, match=r"no key at byte \d+, expected one and a space before every matrix"):
        open_corpus(path)


def test_health_says_nothing_of_sound(tmp_path):
    corpus(tmp_path, count=4)
    np.save(tmp_path / "s0" / "copy.npy", frames(130, seed=0))
    np.save(tmp_path / "s0" / "zero.npy", np.zeros((90, 40), np.float32))
    health = inspect(tmp_path, cache=tmp_path / "scan.jsonl")
    rows = dict(health.rows())
    assert rows["values a frame"] == "40: 6" and rows["formats"] == "NPY: 6"
    assert not {"sample rates", "channels", "resampled to 16 kHz", "level, dBFS", "digital silence"} & set(rows)
    assert not any("clipped" in row or "energy" in row for row in rows)
    assert (health.clipped, health.silent, health.quiet, health.resampled, health.levels) == (0, 0, 0, 0, {})
    assert health.duplicates == (("s0/00", "s0/copy"),) and json.dumps(health.as_dict(), allow_nan=False)
    again = inspect(tmp_path, cache=tmp_path / "scan.jsonl")
    assert again == health


def test_matrices_of_one_archive_are_measured_apart(tmp_path):
    archive(tmp_path / "feats.ark", {"a": frames(30), "b": frames(40), "c": frames(30, seed=1)})
    health = inspect(tmp_path / "feats.scp", cache=tmp_path / "scan.jsonl")
    again = inspect(tmp_path / "feats.scp", cache=tmp_path / "scan.jsonl")
    assert [each.seconds for each in health.corpus.utterances] == [0.3, 0.4, 0.3]
    assert again == health and health.duplicates == () and health.formats == {"ARK": 3}


# Batches


@pytest.mark.parametrize("crop", [0.5, 0.333, 1.0])
@pytest.mark.parametrize("length", [120, 1200])  # the second is read only where it is cropped
def test_crops_are_cut_between_frames(tmp_path, crop, length):
    corpus(tmp_path, count=6, length=length)
    plan = BatchPlan(open_corpus(tmp_path).utterances, BatchPlan.Config(seconds=3, crop=crop))
    starts = set()
    steps = Loader(plan, workers=0).steps()
    for _ in range(3 * plan.steps_per_epoch):
        (batch,) = next(steps)
        assert (batch.waves.lengths == int(crop * 100) * 160).all()
        for utterance, wave in zip(batch.utterances, batch.waves.samples):
            whole = frames(length + int(utterance.id[-2:]), seed=int(utterance.id[-2:]))
            first, samples = plan.stretch(utterance, batch.epoch)
            assert first % 160 == samples % 160 == 0
            starts.add(first)
            found = cut(wave[:samples]).numpy()
            assert np.array_equal(found, whole[first // 160 : (first + samples) // 160])
    assert len(starts) > 6


def test_every_start_is_reached_and_sound_is_cropped_as_before():
    config = BatchPlan.Config(seconds=3, crop=0.1)
    named = [Utterance("u", f"/u{suffix}", 0.14) for suffix in (".npy", ".wav")]
    found = [{BatchPlan([each], config).stretch(each, epoch)[0] for epoch in range(300)} for each in named]
    assert found[0] == {0, 160, 320, 480, 640} and len(found[1]) > 100


# The frontend


def batch_of(lengths=(100, 70, 83), dim=40, config=PLAIN, noise=False):
    waves = []
    for seed, length in enumerate(lengths):
        hops = torch.zeros(length, 160)
        hops[:, :dim] = torch.from_numpy(frames(length, dim, seed))
        waves.append(hops.flatten())
    waves = Waves.pad(waves)
    if noise:
        padding = torch.arange(waves.samples.shape[1]) >= waves.lengths[:, None]
        waves = Waves(torch.where(padding, torch.full_like(waves.samples, torch.nan), waves.samples), waves.lengths)
    utterances = tuple(Utterance(f"u{index}", f"/u{index}.npy", count / 100) for index, count in enumerate(lengths))
    return Batch(waves, utterances)


@pytest.mark.parametrize("normalise", ["none", "utterance", "global"])
@pytest.mark.parametrize("stacked", [False, True])
def test_padding_content_and_batch_mates_do_not_matter_to_features(normalise, stacked):
    inner = Precomputed.Config(normalise=normalise)
    frontend = build_frontend(Stacked.Config(inner=inner) if stacked else inner)
    clean, dirty = batch_of(), batch_of(noise=True)
    frontend.fit([clean.waves])
    together = frontend(dirty.waves)
    assert together.lengths.tolist() == frontend.count(clean.waves.lengths).tolist()
    assert together.lengths.tolist() == [length // (3 if stacked else 1) for length in (100, 70, 83)]
    assert not together.values[~together.valid].any()
    for row, length in enumerate(clean.waves.lengths.tolist()):
        alone = frontend(Waves.pad([clean.waves.samples[row, :length]])).values[0]
        torch.testing.assert_close(together.values[row, : len(alone)], alone, atol=1e-5, rtol=0)


def test_the_grid_is_kaldi_s():
    frontend = build_frontend(Precomputed.Config())
    assert (frontend.grid.hop, frontend.grid.centre, frontend.receptive, frontend.reads) == (160, 200.0, 320, 40)
    assert build_frontend(Stacked.Config(inner=Precomputed.Config())).reads == 40 and "precomputed" in FRONTENDS
    assert build_frontend(Stacked.Config()).reads is None


def test_sound_and_wider_frames_are_refused():
    frontend = build_frontend(PLAIN)
    for waves in (Waves.pad([speech_like(16_000, 0)]), batch_of(dim=41).waves):
        with pytest.raises(
            DataError, match=r"more than 40 values in a frame, expected features of that width; set its"
        ):
            frontend(waves)


def test_a_target_made_of_sound_is_refused():
    values = {"encoder": {"frontend": {"kind": "precomputed"}}, "target": {"kind": "fbank"}}
    with pytest.raises(Exception, match="one of target and input reads features and the other sound"):
        validate(Mockingjay.Config, values)


# Training and use

NANO = (
    "--preset", "nano", "--set", "objective.encoder.frontend.inner.kind=precomputed",
    "--set", "objective.encoder.context.layers=1", "--set", "objective.encoder.context.dim=16",
    "--set", "objective.encoder.context.feedforward=32", "--set", "batches.seconds=8", "--set", "batches.crop=1",
)  # fmt: skip


def test_tera_learns_from_features():
    small = {"layers": 1, "dim": 48, "feedforward": 96, "attention_dropout": 0.0}
    chosen = settings("tera", "fmllr", [f"objective.encoder.context.{key}={value}" for key, value in small.items()])
    torch.manual_seed(0)
    objective = build_objective(chosen.objective)
    batch = batch_of()
    losses = [tick.loss for tick in Run(objective, Run.Config(steps=40, learning_rate=2e-3)).ticks([(batch,)] * 40)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    parts = objective.eval()(batch, 0.0, Draw(0)).parts
    assert all(part.isfinite() for part in parts.values())


def test_pretraining_extraction_and_probing_on_features(tmp_path):
    data, out = corpus(tmp_path / "data"), tmp_path / "run"
    works("pretrain", "tera", *NANO, "--data", data, "--out", out, "--steps", 3)
    assert json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 3
    works("extract", out, "--data", data, "--out", tmp_path / "features")
    index = (tmp_path / "features" / "index.jsonl").read_text().splitlines()
    assert len(index) == 12 and json.loads(index[0])["shape"] == [130 // 3, 16]
    fit = ("--set", "seeds=1", "--set", "frozen.updates=20")
    works("probe", out, "--data", data, "--task", "label:speaker", "--out", tmp_path / "probe", *fit)
    works("probe", "precomputed:40", "--data", data, "--task", "label:speaker", "--out", tmp_path / "plain", *fit)
    assert "s" in works("predict", tmp_path / "plain", data / "s0" / "00.npy")


def test_objectives_are_compared_on_features(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "PROBES", quick_probes(5))
    data, out = corpus(tmp_path / "data", count=48), tmp_path / "run"
    few = ("--set", "upkeep.validate_every=2", "--set", "train.steps=2")
    where = ("--data", data, "--out", out)
    works("compare", "--objectives", "tera", *NANO, *few, *where)
    rows = json.loads((out / "results.json").read_text())
    assert rows[0]["representation"] == "precomputed:40"
    assert rows[-2]["over"].keys() == {"precomputed:40", "random:tera"}
    assert "surely better than the features: " in (out / "report" / "index.html").read_text()
    mixed = ("--objectives", "apc:nano,tera:fmllr", "--steps", 2)
    refuses(2, "the objectives read audio, features of 40 values, expected all", "compare", *mixed, *where)


def test_features_and_sound_are_never_taken_for_each_other(tmp_path, trained):
    features, out = corpus(tmp_path / "features"), tmp_path / "run"
    sound = tmp_path / "sound" / "a.wav"
    sound.parent.mkdir()
    soundfile.write(sound, speech_like(16_000, 0).numpy(), 16_000)
    given_features = r"\d.npy: features of 40 values a frame \(so are \d+ of \d+ files\), expected sound, which is what"
    given_sound = r"a.wav: sound \(so are 1 of 1 files\), expected features of 40 values a frame, which is what"
    narrow = r"features of 40 values a frame \(so are 12 of 12 files\), expected features of 39 values a frame"
    tera = ("pretrain", "tera", *NANO, "--out", out, "--data")
    refuses(3, given_features, "pretrain", "tera", "--preset", "nano", "--out", out, "--data", features)
    refuses(3, given_sound, *tera, sound.parent)
    refuses(3, narrow, *tera, features, "--set", "objective.encoder.frontend.inner.dim=39")
    refuses(3, given_features, "extract", "mel", "--data", features, "--out", tmp_path / "x")
    speakers = ("--task", "label:speaker", "--out", tmp_path / "y")
    refuses(3, given_features, "probe", trained, "--data", features, *speakers)


def test_mixed_lists_are_refused(tmp_path):
    corpus(tmp_path, count=3)
    soundfile.write(tmp_path / "a.wav", speech_like(16_000, 0).numpy(), 16_000)
    (tmp_path / "list.csv").write_text("path,speaker\na.wav,x\n" + "".join(f"s{n}/0{n}.npy,s{n}\n" for n in range(3)))
    said = r"features of 40 values a frame \(so are 3 of 4 files\), expected sound, which is what"
    refuses(3, said, "pretrain", "tera", "--preset", "nano", "--data", tmp_path / "list.csv", "--out", tmp_path / "run")
