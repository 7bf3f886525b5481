import json

import numpy as np
import pytest
import soundfile

from mockingjay.data import scan as module
from mockingjay.data.corpora import open_corpus
from mockingjay.data.scan import CLIPPED, inspect, scan


def noise(seed, count=16_000, gain=0.1):
    return (np.random.default_rng(seed).uniform(-1, 1, count) * gain).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "corpus"
    (root / "ann").mkdir(parents=True)
    (root / "bob").mkdir()
    clipped = noise(1)
    clipped[:CLIPPED] = 1.0
    files = {
        "ann/plain.wav": (noise(0), 16_000),
        "ann/clipped.wav": (clipped, 16_000),
        "ann/silent.wav": (np.zeros(8_000), 16_000),
        "ann/silent-too.wav": (np.zeros(8_000), 16_000),
        "bob/quiet.wav": (noise(2, gain=1e-3), 16_000),
        "bob/stereo.wav": (np.stack([noise(3, 44_100), noise(4, 44_100)], axis=1), 44_100),
        "bob/short.wav": (noise(5, 100), 16_000),
    }
    for name, (wave, rate) in files.items():
        soundfile.write(root / name, wave, rate)
    plain, _ = soundfile.read(root / "ann/plain.wav", dtype="int16")
    soundfile.write(root / "bob/copy.flac", plain, 16_000)
    wave = noise(6)
    wave[99] = np.nan
    soundfile.write(root / "bob/nan.wav", wave, 16_000, subtype="FLOAT")
    (root / "bob/text.wav").write_text("hello")
    return root


def test_health(folder):
    health = inspect(folder)
    assert {refusal.id: refusal.kind for refusal in health.corpus.refused} == {
        "bob/text": "not-audio",
        "bob/nan": "non-finite",
        "bob/short": "too-short",
    }
    assert len(health.corpus.utterances) == 7 and health.hours == pytest.approx(6 / 3600)
    assert health.rates == {16_000: 6, 44_100: 1} and health.channels == {1: 6, 2: 1}
    assert health.formats == {"WAV": 6, "FLAC": 1} and health.resampled == 1
    assert (health.clipped, health.silent, health.quiet) == (1, 2, 3)
    assert health.duplicates == (("ann/plain", "bob/copy"),)
    assert health.levels[0] == -120 and health.levels[100] == pytest.approx(20 * np.log10(0.1 / np.sqrt(3)), abs=1.0)
    assert health.durations == {0: 0.5, 5: 0.5, 50: 1.0, 95: 1.0, 100: 1.0}


def test_health_is_shown_and_saved(folder):
    health = inspect(folder)
    rows = dict(health.rows())
    assert rows["utterances"] == "7" and rows["speakers"] == "2"
    assert rows["sample rates"] == "16000: 6, 44100: 1" and rows["resampled to 16 kHz"] == "1 (14.3%)"
    assert rows["refused"].startswith("3: ") and "too-short: 1" in rows["refused"]
    saved = json.loads(json.dumps(health.as_dict(), allow_nan=False))
    assert saved["duplicates"] == [["ann/plain", "bob/copy"]] and saved["levels"]["p0"] == -120
    assert len(saved["refused"]) == 3 and saved["rates"] == {"16000": 6, "44100": 1}


def test_too_short_names_length_and_minimum(folder):
    refused = inspect(folder, minimum_seconds=0.75).corpus.refused
    texts = [refusal.text for refusal in refused if refusal.id == "ann/silent"]
    assert texts == [
        f"{folder}/ann/silent.wav: 0.5 s long, expected at least 0.75 s; join it with its neighbours, or remove it"
    ]


def test_shorter_than_wanted_is_no_damage(folder):
    corpus = open_corpus(folder)
    health = scan(corpus, 0.1, wanted_seconds=0.75)
    assert {each.id for each in health.left_out} == {"ann/silent", "ann/silent-too"}
    plain = scan(corpus, 0.1)
    assert not plain.left_out and plain.corpus.refused == health.corpus.refused and health.silent == 0
    assert len(plain.corpus.utterances) == len(health.corpus.utterances) + 2


def test_a_second_scan_decodes_only_what_changed(folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache.jsonl"
    first = inspect(folder, cache=cache)
    with cache.open("a") as file:
        file.write('{"key": "torn')
    read = []
    load = module.load
    monkeypatch.setattr(module, "load", lambda path, *stretch: read.append(path) or load(path, *stretch))
    assert inspect(folder, cache=cache) == first
    assert read == [str(folder / "bob/nan.wav")]  # faults are looked at again: they may be mended
    soundfile.write(folder / "ann/plain.wav", noise(7, 20_000), 16_000)
    again = inspect(folder, cache=cache)
    assert str(folder / "ann/plain.wav") in read and again.duplicates == ()


def test_other_processes_read_what_the_first_has_measured_and_write_nothing(folder, tmp_path, monkeypatch):
    cache, corpus = tmp_path / "cache.jsonl", open_corpus(folder)
    first = scan(corpus, 0.1, cache=cache)
    written, read = cache.read_bytes(), []
    load = module.load
    monkeypatch.setattr(module, "load", lambda path, *stretch: read.append(path) or load(path, *stretch))
    soundfile.write(folder / "ann/plain.wav", noise(7, 20_000), 16_000)
    again = scan(corpus, 0.1, cache=cache, keep=False)
    assert len(again.corpus.utterances) == len(first.corpus.utterances) and cache.read_bytes() == written
    assert set(read) == {str(folder / "ann/plain.wav"), str(folder / "bob/nan.wav")}


def test_lengths_are_those_that_were_decoded_and_order_and_workers_do_not_matter(tmp_path):
    (tmp_path / "x").mkdir()
    rows = []
    for number in range(30):
        count = 8_000 + 37 * number
        soundfile.write(tmp_path / "x" / f"{number:02}.flac", noise(number, count), 16_000)
        rows.append({"id": str(number), "path": f"{number:02}.flac", "duration_s": round(count / 16_000, 2)})
    (tmp_path / "x/manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = open_corpus(tmp_path / "x")
    health = scan(corpus, 0.1, workers=4)
    assert [u.id for u in health.corpus.utterances] == [row["id"] for row in rows]
    assert all(abs(u.seconds - (8_000 + 37 * int(u.id)) / 16_000) <= 0.005 for u in health.corpus.utterances)
    assert scan(corpus, 0.1, workers=1) == health


def test_a_listed_length_that_the_file_does_not_hold_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(0), 16_000)
    (tmp_path / "manifest.jsonl").write_text('{"id": "a", "path": "a.wav", "duration_s": 1.5}\n')
    (refusal,) = scan(open_corpus(tmp_path), 0.1).corpus.refused
    assert refusal.kind == "range" and "from 0 s to 1.5 s is asked for, but the file holds 1 s" in refusal.text


def test_an_empty_result_has_health_too(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(0), 16_000)
    health = inspect(tmp_path, minimum_seconds=9.0)
    assert health.corpus.utterances == () and health.levels == {}
    assert dict(health.rows())["clipped (≥ 8 samples at full scale)"] == "0"


@pytest.mark.real
def test_real_speech_is_healthy(speech):
    health = inspect(speech / "emodb")
    assert health.corpus.refused == () and health.rates == {16_000: 339} and health.silent == 0
