"""Long recordings: in stretches as at once, and in no more memory."""

import itertools
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from speech_like import speech_like
from toy_learner import forked
from toy_representation import Toy, speak

from mockingjay import audio
from mockingjay.core.errors import MachineError
from mockingjay.core.types import Frames, Utterance, Waves
from mockingjay.downstream import extract, read_index, recordings
from mockingjay.downstream.extract import file_of
from mockingjay.downstream.features import represent
from mockingjay.encoders.encoder import random_encoder
from mockingjay.encoders.frontends import Waveform
from mockingjay.encoders.stretches import EDGE, cut, represent_in_stretches, stretches_for, within
from mockingjay.objectives import OBJECTIVES
from mockingjay.open import FEATURES, open_representation
from mockingjay.settings import settings

SAMPLES = 5 * 16_000 + 77
LONGEST, OVERLAP = 2 * 16_000, 16_000


def in_stretches(representation, wave, longest=LONGEST, overlap=OVERLAP):
    stretches = stretches_for(representation, len(wave), longest, overlap)
    assert len(stretches) > 1
    with torch.no_grad():
        return stretches, recordings.joined(
            represent_in_stretches(representation, stretches, lambda each: Waves.pad([wave[each.start : each.stop]]))
        )


def at_once(representation, wave):
    with torch.no_grad():
        return representation(Waves.pad([wave]))


def apart(one, other):
    assert one.lengths.tolist() == other.lengths.tolist()
    return max(float((a - b).abs().max()) for a, b in zip(one.layers, other.layers))


# ---- cutting


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.integers(1, 20_000), st.integers(40, 800), st.integers(1, 60), st.integers(0, 5_000))
def test_stretches_tile_a_recording(samples, hop, steps, overlap):
    stretches = cut(samples, hop, steps * hop, overlap)
    assert stretches[0].read.start == stretches[0].own.start == 0 and stretches[-1].own.stop == samples
    assert all(one.own.stop == other.own.start for one, other in itertools.pairwise(stretches))
    rows = []
    for each in stretches:
        assert len(each.own) <= (max(steps, 2) + 1) * hop
        for inner, outer, margin in [(each.own, each.shown, overlap), (each.shown, each.read, EDGE)]:
            assert inner.start % hop == 0 and outer.start % hop == 0
            assert outer.start == 0 or inner.start - outer.start >= max(1, margin)
            assert outer.stop == samples or outer.stop - inner.stop >= max(1, margin)
        shown = range(-(-samples // hop))[each.shown.start // hop : -(-each.shown.stop // hop)]
        rows += shown[within(each.own, each.shown, hop)]
    assert rows == list(range(-(-samples // hop)))  # a step at every hop


# ---- in stretches as at once


@pytest.mark.parametrize("name", FEATURES)
def test_features_are_those_of_the_whole_recording(name):
    """Their level, mean and variance included, wherever a stretch is louder than the rest."""
    wave = speech_like(SAMPLES, 0) * torch.linspace(0.05, 2, SAMPLES)
    representation = open_representation(name)
    _, pieces = in_stretches(representation, wave)
    assert apart(at_once(representation, wave), pieces) <= 2e-4  # 1e-5 of the largest values; sums of 900 frames differ
    assert apart(at_once(representation, wave), at_once(representation, wave)) == 0  # nothing stays behind


@pytest.fixture(params=list(OBJECTIVES))
def encoder(request):
    encoder = random_encoder(settings(request.param, "nano").objective.encoder, 0)
    encoder.frontend.fit([Waves.pad([speech_like(SAMPLES, 1)])])
    return encoder


def test_an_encoder_reads_a_recording_in_stretches(encoder):
    """Causal or in windows: as at once. Both ways: as if its context had been shown the whole's frames by stretches."""
    window = (encoder.config.window or 0) * encoder.frontend.grid.hop
    wave = speech_like(SAMPLES + 2 * window, 0)
    stretches, pieces = in_stretches(encoder, wave)
    whole = at_once(encoder, wave)
    if isinstance(encoder.frontend, Waveform) and encoder.frontend.leaks != "nothing":
        # Declared: what a learned frontend takes over the utterance is taken over the stretch.
        assert apart(whole, pieces) > 1e-5
        return
    if encoder.context.causal or window:
        assert apart(whole, pieces) <= 1e-5
        return
    with torch.no_grad():
        frames = encoder.frontend(Waves.pad([wave])).values
        layers = [by_hand(encoder, frames, each) for each in stretches]
    expected = [torch.cat(parts, 1) for parts in zip(*layers)]
    assert all(float((a - b).abs().max()) <= 1e-4 for a, b in zip(expected, pieces.layers))
    assert whole.lengths.tolist() == pieces.lengths.tolist()


def by_hand(encoder, frames, stretch):
    """The context's layers over a stretch of the whole recording's frames, without what belongs to its neighbours."""
    hop, steps = encoder.frontend.grid.hop, encoder.hop
    last = None if stretch.shown.stop == SAMPLES else stretch.shown.stop // hop
    values = frames[:, stretch.shown.start // hop : last]
    hidden = encoder.context(Frames(values, torch.tensor([values.shape[1]])))
    first = (stretch.own.start - stretch.shown.start) // steps
    last = None if stretch.own.stop == SAMPLES else first + len(stretch.own) // steps
    return [layer[:, first:last] for layer in hidden.layers]


def test_what_the_overlap_hides_from_a_two_way_context():
    """Recurrent, it forgets faster than that. Attention sees all that is there, and neighbours and positions are not
    those of the whole: docs/reliability.md declares it."""
    wave = speech_like(SAMPLES, 0)
    shares = {}
    for name in ("masked-reconstruction", "tera"):
        config = settings(name, "nano").objective.encoder
        encoder = random_encoder(config.model_copy(update={"window": None}), 0)
        whole = at_once(encoder, wave).last
        for overlap in (160, OVERLAP):
            pieces = in_stretches(encoder, wave, overlap=overlap)[1].last
            shares[name, overlap] = float((pieces - whole).square().mean().sqrt() / whole.std())
    assert shares["masked-reconstruction", OVERLAP] <= 1e-5 < 1e-3 < shares["masked-reconstruction", 160]
    assert 0.01 < shares["tera", OVERLAP] < 2.0


# ---- files


@pytest.fixture
def shorter(monkeypatch):
    """What is long, in tenths of a minute."""
    for name, seconds in {"LONG": 4.0, "STRETCH": 2.0, "OVERLAP": 0.5}.items():
        monkeypatch.setattr(recordings, name, seconds)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    return speak(tmp_path_factory.mktemp("speech"), count=6, seconds=(2.0, 9.0), seed=1)


@pytest.mark.parametrize("layers", ["last", "0,2"])
@pytest.mark.parametrize("format", ["npy", "safetensors", "parquet"])
def test_a_file_written_in_stretches_is_the_file(spoken, tmp_path, monkeypatch, layers, format):
    extract(Toy(), spoken, tmp_path / "whole", layers=layers, format=format)
    for name, seconds in {"LONG": 4.0, "STRETCH": 2.0, "OVERLAP": 0.5}.items():
        monkeypatch.setattr(recordings, name, seconds)
    assert {recordings.is_long(each) for each in spoken} == {True, False}
    extract(Toy(), spoken, tmp_path / "stretches", layers=layers, format=format)
    assert read_index(tmp_path / "whole") == read_index(tmp_path / "stretches")
    for each in spoken:
        whole, stretches = (tmp_path / name / file_of(each.id, format) for name in ("whole", "stretches"))
        if format == "parquet":
            parquet = pytest.importorskip("pyarrow.parquet")
            assert parquet.read_table(whole).equals(parquet.read_table(stretches))
        else:
            assert whole.read_bytes() == stretches.read_bytes()


def test_means_and_probes_of_long_recordings(spoken, tmp_path, shorter):
    extract(Toy(), spoken, tmp_path, pool="mean")
    (indices, hidden), *_ = list(represent(Toy(), spoken))
    whole = at_once(Toy().eval(), audio.read(spoken[indices[0]].path))
    assert apart(whole, hidden) == 0
    found = np.load(tmp_path / file_of(spoken[indices[0]].id))
    np.testing.assert_allclose(found, whole.last[0].mean(0).numpy(), atol=1e-5)


def test_a_long_recording_that_breaks_leaves_nothing(spoken, tmp_path, shorter, monkeypatch):
    long = max(spoken, key=lambda each: each.seconds)
    real = audio.read

    def breaking(path, start=0.0, seconds=None):
        if path == long.path and 4 < start < 6:
            raise audio.AudioError(f"{path}: damaged, expected audio; copy it again", path=path)
        return real(path, start, seconds)

    with monkeypatch.context() as patch:
        patch.setattr(audio, "read", breaking)
        done = extract(Toy(), spoken, tmp_path)
    assert (done.written, done.refused) == (5, 1) and not list(tmp_path.rglob(".tmp-*"))
    assert extract(Toy(), spoken, tmp_path).written == 1


def test_a_disk_that_fills_up_in_the_middle(spoken, tmp_path, shorter):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    extract(Toy(), spoken[:0], tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(MachineError, match=r"\.npy: file size limit reached, 0\.0 MB needed"):
            extract(Toy(), [each for each in spoken if recordings.is_long(each)], tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.rglob("*.npy*"))


# ---- memory


def record(path, seconds):
    """Write a recording block by block."""
    with soundfile.SoundFile(path, "w", 16_000, 1, "PCM_16") as file:
        for block in range(0, round(seconds), 10):
            file.write(speech_like(160_000, block)[: round((seconds - block) * 16_000)].numpy())
    return Utterance(path.stem, str(path), seconds)


def grown(name, utterance, out, lengths=None):
    """Bytes that a process of its own grows by when it extracts a recording."""
    read, write = os.pipe()
    process = forked(extracting, name, utterance, out, lengths, write)
    process.join(3600)
    assert process.exitcode == 0
    return int(os.read(read, 100))


def extracting(name, utterance, out, lengths, write):
    for key, seconds in (lengths or {}).items():
        setattr(recordings, key, seconds)
    representation = open_representation(name)
    first = replace(utterance, id="first", seconds=min(utterance.seconds, 4.0))
    extract(representation, [first], out)  # what is imported on the way
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    extract(representation, [first, utterance], out)
    os.write(write, str(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)).encode())


def test_memory_does_not_know_how_long_a_recording_is(tmp_path):
    lengths = {"LONG": 6.0, "STRETCH": 3.0, "OVERLAP": 0.5}
    short, long = (
        grown("linear", record(tmp_path / f"{seconds}.wav", seconds), tmp_path / f"out-{seconds}", lengths)
        for seconds in (8.0, 64.0)
    )
    assert long < 1.5 * short + 3e6, (short, long)  # the features of 64 s alone are 21 MB
    (row,) = [row for id, row in read_index(tmp_path / "out-64.0").items() if id != "first"]
    assert row["shape"] == [5121, 1025]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["random:apc/nano", "random:mockingjay/nano", "mel"])
def test_three_hours_take_the_memory_of_five_minutes(name, tmp_path):
    """Of whole processes that run the command."""
    peaks = []
    for recording in (record(tmp_path / "minutes.wav", 300.0), record(tmp_path / "hours.wav", 3 * 3600.0)):
        out, folder = tmp_path / recording.id, tmp_path / f"{recording.id}-alone"
        folder.mkdir()
        Path(recording.path).rename(folder / "x.wav")
        words = ["extract", name, "--data", str(folder), "--out", str(out), "--quiet"]
        began = time.monotonic()
        process = subprocess.run([sys.executable, "-c", PEAK, *words], capture_output=True, check=True, text=True)
        peaks.append(1024 * int(process.stdout.split()[-2]))
        print(f"{name}: {recording.id} {peaks[-1] / 1e6:.0f} MB, {time.monotonic() - began:.0f} s")
    assert peaks[1] < 1.5 * peaks[0]
    if "apc" in name:
        (row,) = read_index(tmp_path / "hours").values()
        stretches = np.load(tmp_path / "hours" / row["file"], mmap_mode="r")
        whole = at_once(open_representation(name), audio.read(tmp_path / "hours-alone" / "x.wav")).last[0].numpy()
        assert whole.shape == stretches.shape and np.abs(whole - stretches).max() <= 1e-4


# What a process inherits counts for its parent, so it says itself how much it was.
PEAK = """
import pathlib, sys
sys.argv[0] = "mockingjay"
from mockingjay.cli.main import main
try:
    main()
finally:
    print(next(line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
"""
