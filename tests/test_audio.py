# ruff: noqa: PTH118, PTH123
import os
import pickle
import socket
import time

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mockingjay import audio
from mockingjay.audio import KINDS, AudioError
from mockingjay.audio.decode import LOUDEST


def sound(rate=16_000, seconds=1.0, channels=1, seed=0):
    """Speech-like noise below 3 kHz."""
    count = round(rate * seconds)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal((channels, count)))
    frequencies = np.fft.rfftfreq(count, 1 / rate)
    wave = np.fft.irfft(np.where((frequencies > 100) & (frequencies < 3000), spectrum, 0), count)
    return (0.2 * wave / wave.std()).clip(-0.99, 0.99).astype(np.float32).T.squeeze()


def write(path, wave, rate=16_000, **form):
    soundfile.write(path, wave, rate, **form)
    return path


def refusal(path, kind, **stretch):
    with pytest.raises(AudioError) as caught:
        audio.read(path, **stretch)
    error = caught.value
    assert error.kind == kind and kind in KINDS
    text = str(error)
    assert text.startswith(audio.shown(path) + ": ") and "; " in text and "\n" not in text and text.endswith(error.mend)
    return text


FORMATS = [
    ("wav", "WAV", "PCM_16", 1e-4),
    ("wav", "WAV", "PCM_U8", 0.02),
    ("wav", "WAV", "PCM_24", 1e-6),
    ("wav", "WAV", "FLOAT", 0),
    ("wav", "WAV", "DOUBLE", 1e-7),
    ("wav", "WAV", "ULAW", 0.05),
    ("flac", "FLAC", "PCM_16", 1e-4),
    ("ogg", "OGG", "VORBIS", None),
    ("opus", "OGG", "OPUS", None),
    ("mp3", "MP3", "MPEG_LAYER_III", None),
    ("aiff", "AIFF", "PCM_16", 1e-4),
    ("au", "AU", "PCM_16", 1e-4),
    ("caf", "CAF", "PCM_16", 1e-4),
    ("w64", "W64", "PCM_16", 1e-4),
    ("rf64", "RF64", "PCM_16", 1e-4),
    ("sph", "NIST", "PCM_16", 1e-4),
]


@pytest.mark.parametrize(("suffix", "form", "subtype", "tolerance"), FORMATS)
def test_every_format_is_read_and_its_stretches_are_those_of_the_whole(tmp_path, suffix, form, subtype, tolerance):
    wave = sound(seconds=3.0)
    path = write(tmp_path / f"x.{suffix}", wave, format=form, subtype=subtype)
    whole = audio.read(path)
    assert whole.dtype == torch.float32 and len(whole) == len(wave)
    assert audio.header(path) == audio.Header(3.0, 16_000, 1, 48_000, form, path.stat().st_size)
    if tolerance is None:
        assert np.corrcoef(whole, wave)[0, 1] > 0.95
    else:
        assert np.abs(whole.numpy() - wave).max() <= tolerance
    for start, seconds in [(0.0, 0.5), (0.123, 1.0), (2.0, None)]:
        part = audio.read(path, start, seconds)
        first = round(start * 16_000)
        assert len(part) == (48_000 - first if seconds is None else round(seconds * 16_000))
        tolerance = 0.01 if subtype == "OPUS" else 1e-6  # its decoder keeps a state from the seek on
        torch.testing.assert_close(part, whole[first : first + len(part)], atol=tolerance, rtol=0)


def test_a_stereo_file_at_22050_hz_is_its_mono_version_at_16_khz(tmp_path):
    stereo = sound(22_050, 4.0, channels=2)
    path = write(tmp_path / "stereo.wav", stereo, 22_050)
    wave = audio.read(path).numpy()
    count = len(stereo)
    spectrum = np.fft.rfft(stereo.mean(axis=1))[: 64_000 // 2 + 1]
    expected = np.fft.irfft(spectrum, 64_000) * 64_000 / count
    assert len(wave) == 64_000
    assert np.corrcoef(wave, expected)[0, 1] > 0.999
    assert audio.header(path).channels == 2


@settings(max_examples=40, deadline=None)
@given(
    rate=st.integers(4_000, 192_000), frames=st.integers(1, 30_000), start=st.floats(0, 0.9), share=st.floats(0.05, 1)
)
def test_resampled_lengths_and_stretches(tmp_path_factory, rate, frames, start, share):
    path = tmp_path_factory.mktemp("rate") / "x.wav"
    write(path, np.random.default_rng(frames).standard_normal(frames).astype(np.float32) * 0.1, rate, subtype="FLOAT")
    expected = int(np.floor(frames * 16_000 / rate + 0.5))
    if expected == 0:
        refusal(path, "too-short")
        return
    whole = audio.read(path)
    assert len(whole) == expected
    begin = start * len(whole) / 16_000
    seconds = share * (len(whole) / 16_000 - begin)
    if round(seconds * 16_000) > 0 and round(begin * 16_000) < len(whole):
        part = audio.read(path, begin, seconds)
        first = round(begin * 16_000)
        assert len(part) == min(round(seconds * 16_000), len(whole) - first)
        torch.testing.assert_close(part, whole[first : first + len(part)], atol=1e-4, rtol=0)


def test_long_files_are_read_in_blocks(tmp_path, monkeypatch):
    wave = sound(48_000, 2.0)
    path = write(tmp_path / "x.wav", wave, 48_000)
    at_once = audio.read(path)
    monkeypatch.setattr("mockingjay.audio.decode._BLOCK", 1000)
    torch.testing.assert_close(audio.read(path), at_once, atol=1e-6, rtol=0)


def test_content_decides_not_the_name(tmp_path):
    path = write(tmp_path / "really-flac.wav", sound(), format="FLAC")
    assert audio.header(path).format == "FLAC" and len(audio.read(path)) == 16_000


def test_names_of_all_kinds(tmp_path):
    for name in [b"caf\xe9 \xff.wav", b"a\nb,c|$(x) 'q'.wav", "日本語 é.flac".encode(), b"-n.wav"]:
        path = os.path.join(os.fspath(tmp_path), os.fsdecode(name))
        with open(os.fsencode(path), "wb") as file:
            soundfile.write(file, sound(), 16_000, format="WAV")
        assert len(audio.read(path)) == 16_000
        with open(os.fsencode(path), "wb"):
            pass
        refusal(path, "empty").encode("utf-8")
    assert audio.shown(os.fsdecode(b"a\xff\n.wav")) == "a\\xff\\x0a.wav"


@pytest.mark.parametrize(
    ("content", "kind", "says"),
    [
        (b"", "empty", "0 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "not-audio", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "not-audio", "an HTML page"),
        (b"hello there", "not-audio", "text"),
        ("häß\n".encode(), "not-audio", "text"),
        (pickle.dumps([1]), "not-audio", "a Python pickle"),
        (b"#EXTM3U\nhttp://x", "not-audio", "a playlist"),
        (b"PK\x03\x04....", "not-audio", "a zip archive"),
        (bytes(100), "not-audio", "of an unknown format"),
        (b"\xff\xfeh\0e\0", "not-audio", "of an unknown format"),
        (b"\0\0\0\x20ftypM4A ", "format", "MP4 or M4A"),
        (b"\x1a\x45\xdf\xa3webm", "format", "Matroska or WebM"),
        (b"RIFF\0\0\0\0WAVE", "corrupt", "cannot be decoded"),
        (b"fLaC" + bytes(50), "corrupt", "cannot be decoded"),
        (b"OggS", "truncated", "4 bytes of the 27"),
    ],
)
def test_what_is_not_audio_is_named(tmp_path, content, kind, says):
    path = tmp_path / "x.wav"
    path.write_bytes(content)
    assert says in refusal(path, kind)


def test_missing_files_folders_links_and_pipes(tmp_path):
    refusal(tmp_path / "none.wav", "missing")
    refusal(tmp_path / "none" / "x.wav", "missing")
    (tmp_path / "dangling.wav").symlink_to("nowhere")
    refusal(tmp_path / "dangling.wav", "missing")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    refusal(tmp_path / "loop.wav", "unreadable")
    refusal("nul\0.wav", "unreadable")
    assert "a folder" in refusal(tmp_path, "not-a-file")
    assert "a device" in refusal("/dev/null", "not-a-file")
    os.mkfifo(tmp_path / "pipe.wav")
    before = time.monotonic()
    assert "a pipe" in refusal(tmp_path / "pipe.wav", "not-a-file")
    assert time.monotonic() - before < 1
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "s.wav"))
        assert "a socket" in refusal(tmp_path / "s.wav", "not-a-file")


def test_refused_permission_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "x.wav", sound())

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", refuse)
    assert "Permission denied" in refusal(path, "unreadable")


@pytest.mark.parametrize(
    ("suffix", "form", "subtype"),
    [form[:3] for form in FORMATS],
)
def test_truncated_files_are_noticed(tmp_path, suffix, form, subtype):
    path = write(tmp_path / f"x.{suffix}", sound(seconds=4.0), format=form, subtype=subtype)
    content = path.read_bytes()
    for share in (0.97, 0.5, 0.2):
        path.write_bytes(content[: int(len(content) * share)])
        assert "truncated" in refusal(path, "truncated")


def test_what_a_truncated_file_holds_is_told(tmp_path):
    path = write(tmp_path / "x.wav", sound(seconds=4.0))
    path.write_bytes(path.read_bytes()[: 44 + 64_000])
    text = refusal(path, "truncated")
    assert "64044 bytes of the 128044 its header promises" in text
    path = write(tmp_path / "x.flac", sound(seconds=4.0))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    held = float(refusal(path, "truncated").split("after ")[1].split(" s")[0])
    assert 1.7 < held < 2.1


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_written_to_a_pipe_is_read_to_its_end(tmp_path, length):
    path = write(tmp_path / "x.wav", sound())
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = length.to_bytes(4, "little")
    path.write_bytes(content)
    if length:
        assert len(audio.read(path)) == 16_000
    else:
        refusal(path, "no-samples")


def test_damage_inside_a_flac_is_noticed(tmp_path):
    path = write(tmp_path / "x.flac", sound(seconds=4.0))
    content = path.read_bytes()
    whole = audio.read(path)
    for place in np.random.default_rng(0).integers(4, len(content), 60):
        spoilt = bytearray(content)
        spoilt[place] ^= 0x10
        path.write_bytes(spoilt)
        try:
            assert torch.equal(audio.read(path), whole)  # in its metadata
        except AudioError as error:
            assert error.path == str(path)
    spoilt = bytearray(content)
    spoilt[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    path.write_bytes(spoilt)
    held = float(refusal(path, "corrupt").split("damaged after ")[1].split(" s")[0])
    assert 1.5 < held < 2.1


def test_headers_that_lie(tmp_path):
    path = write(tmp_path / "x.flac", sound())
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4  # 2^36 - 1 samples (RFC 9639, section 8.2)
    path.write_bytes(content)
    refusal(path, "too-long")
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert "states no length" in refusal(path, "format")


def test_an_mp3_whose_length_cannot_be_known_is_refused(tmp_path):
    wave = sound(44_100, 4.0)
    wave[88_200:] *= 1e-3
    path = write(tmp_path / "x.mp3", wave, 44_100, bitrate_mode="VARIABLE")
    assert len(audio.read(path)) == 64_000
    content = path.read_bytes()
    second = content.index(content[:2], 100)
    path.write_bytes(content[second:])
    assert "states no length" in refusal(path, "format")
    write(path, wave, 44_100, bitrate_mode="CONSTANT", compression_level=0.5)
    content = path.read_bytes()
    path.write_bytes(b"ID3\x04\0\0\0\0\x08\0" + bytes(1024) + content[content.index(content[:3], 100) :])
    assert abs(len(audio.read(path)) / 16_000 - 4) < 0.1


def test_samples_channels_and_rates_that_no_model_can_use(tmp_path):
    refusal(write(tmp_path / "x.wav", np.zeros(0, np.float32)), "no-samples")
    assert "3 channels" in refusal(write(tmp_path / "x.wav", sound(channels=3)), "channels")
    assert "1 samples per second" in refusal(write(tmp_path / "x.wav", sound(), 1), "rate")
    assert "655350 samples" in refusal(write(tmp_path / "x.wav", sound(), 655_350), "rate")
    wave = sound()
    wave[1234] = np.nan
    assert "sample 1234 is nan" in refusal(write(tmp_path / "x.wav", wave, subtype="FLOAT"), "non-finite")
    stereo = sound(channels=2)
    stereo[77, 1] = -np.inf
    assert "sample 77 is -inf" in refusal(write(tmp_path / "x.wav", stereo, subtype="FLOAT"), "non-finite")
    assert "samples reach 29" in refusal(
        write(tmp_path / "x.wav", sound() / 0.99 * 32_767, subtype="FLOAT"), "amplitude"
    )
    loud = np.full(100, LOUDEST, np.float32)
    assert audio.read(write(tmp_path / "x.wav", loud, subtype="FLOAT")).max() == LOUDEST
    assert len(audio.read(write(tmp_path / "x.wav", np.zeros(1, np.float32)))) == 1


def test_stretches_outside_the_file(tmp_path):
    path = write(tmp_path / "x.wav", sound())
    assert "the file holds 1 s" in refusal(path, "range", start=1.0)
    refusal(path, "range", start=-0.1)
    refusal(path, "range", start=0.5, seconds=0.0)
    refusal(path, "range", start=0.5, seconds=0.52)
    assert len(audio.read(path, 0.5, 0.505)) == 8_000


def test_long_files_are_refused_in_one_piece_but_not_in_stretches(tmp_path, monkeypatch):
    path = write(tmp_path / "x.wav", sound(seconds=2.0))
    monkeypatch.setattr("mockingjay.audio.decode.LONGEST", 1.0)
    assert "0.0 hours, expected at most 0 in one piece" in refusal(path, "too-long")
    refusal(path, "too-long", seconds=2.0)
    assert len(audio.read(path, 0.5, 1.0)) == 16_000


def test_errors_cross_processes():
    error = audio.fault("x.wav", "empty", "empty", "remove it")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.kind, copy.path, copy.mend) == ("x.wav: empty; remove it", "empty", "x.wav", "remove it")


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff", "au", "w64"])
def test_spoilt_headers_end_in_samples_or_in_our_error(tmp_path, suffix):
    path = write(tmp_path / f"x.{suffix}", sound(seconds=0.3))
    content = path.read_bytes()
    random = np.random.default_rng(1)
    for _ in range(60):
        spoilt = bytearray(content)
        for place in random.integers(0, 60, 3):
            spoilt[place] = random.integers(256)
        path.write_bytes(spoilt)
        try:
            assert audio.read(path).isfinite().all()
        except AudioError as error:
            assert str(error).startswith(str(path))


@pytest.mark.real
def test_real_files_hold_what_their_manifest_says(speech):
    import json

    for manifest in sorted(speech.glob("*/manifest.jsonl")):
        for line in manifest.read_text().splitlines()[::60]:
            row = json.loads(line)
            assert abs(len(audio.read(manifest.parent / row["path"])) / 16_000 - row["duration_s"]) < 0.001
