"""Over 200 broken, hostile and odd-but-sound files, each with what a reader must say: its samples, or its fault's name.

They stand for the audio rows of the catalogue in docs/reliability.md. Everything is made here; nothing is sampled.
"""

import base64
import gzip
import io
import json
import lzma
import os
import pickle
import socket
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from audio_bytes import FLOAT, RATE, TIB, chunk, encoded, floats, form, patched, pcm, spoilt, tone, wav

from mockingjay.audio import Kind


@dataclass(frozen=True)
class Case:
    """A file to make, and what becomes of who reads it."""

    name: str  # of the file, as the operating system has it
    make: Callable[[Path], object] | None  # None: it is not there
    fault: Kind | None  # None: it is sound
    samples: int | None = None  # of a sound file at 16 kHz, where that is exact


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, encoded())
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("../../x.wav")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"RIFF"))
    return buffer.getvalue()


def saved(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


class Canary:
    """What runs code where it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch canary",)


def socket_at(path: Path) -> None:
    """Leave a socket behind; its name is bound relatively, for such names are short."""
    here = Path.cwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(here)


def cases() -> Iterator[Case]:
    """List all of them."""
    for section in (_formats, _rates, _samples, _names, _not_files, _not_audio, _wav_headers, _other_headers, _cut):
        yield from section()


def lay(folder: Path) -> dict[Path, Case]:
    """Make all of them in a folder."""
    laid = {}
    for case in cases():
        path = Path(os.path.join(folder, os.fsdecode(case.name.encode("utf-8", "surrogateescape"))))  # noqa: PTH118
        assert path not in laid, case.name
        if case.make is not None:
            case.make(path)
        laid[path] = case
    return laid


def _bytes(name: str, content: bytes, fault: Kind | None, samples: int | None = None) -> Case:
    return Case(name, lambda path: path.write_bytes(content), fault, samples)


WHOLE = [
    ("wav", "WAV", subtype)
    for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM")
] + [
    ("wavex", "WAVEX", "PCM_16"),
    ("rf64", "RF64", "PCM_16"),
    ("rf64", "RF64", "FLOAT"),
    ("w64", "W64", "PCM_16"),
    ("w64", "W64", "PCM_24"),
    ("flac", "FLAC", "PCM_S8"),
    ("flac", "FLAC", "PCM_16"),
    ("flac", "FLAC", "PCM_24"),
    ("ogg", "OGG", "VORBIS"),
    ("opus", "OGG", "OPUS"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
    ("aiff", "AIFF", "PCM_16"),
    ("aiff", "AIFF", "PCM_24"),
    ("aiff", "AIFF", "FLOAT"),
    ("au", "AU", "PCM_16"),
    ("au", "AU", "ULAW"),
    ("caf", "CAF", "PCM_16"),
    ("caf", "CAF", "ALAC_16"),
    ("sph", "NIST", "PCM_16"),
    ("sph", "NIST", "ULAW"),
]


def _formats() -> Iterator[Case]:
    """Every container and coding that is read, and such as carry more than sound."""
    for suffix, container, subtype in WHOLE:
        exact = None if subtype in ("MPEG_LAYER_III", "IMA_ADPCM", "MS_ADPCM") else 4_800
        yield _bytes(f"whole-{container}-{subtype}.{suffix}", encoded(None, RATE, container, subtype), None, exact)
    data = chunk(b"data", pcm())
    for name, content in {
        "list-before": wav(form(), chunk(b"LIST", b"INFOISFT\5\0\0\0me\0\0\0"), data),
        "list-behind": wav(form(), data, chunk(b"LIST", b"INFOISFT\4\0\0\0me\0\0")),
        "junk-first": wav(chunk(b"JUNK", bytes(1000)), form(), data),
        "odd-chunk": wav(form(), chunk(b"note", b"odd"), data),
        "many-chunks": wav(form(), *[chunk(b"note", b"")] * 500, data),
        "rifx": wav(form(order=">"), chunk(b"data", np.frombuffer(pcm(), "<i2").astype(">i2").tobytes(), order=">"),
                    magic=b"RIFX", order=">"),
        "riff-length-0": wav(form(), data, length=0),
        "riff-length-most": wav(form(), data, length=0xFFFFFFFF),
        "piped": wav(form(), chunk(b"data", pcm(), 0xFFFFFFFF), length=0xFFFFFFFF),
        "piped-by-sox": wav(form(), chunk(b"data", pcm(), 0x7FFFFFFF), length=0x7FFFFFFF),
        "garbage-behind": wav(form(), data) + b"tail of another file" * 9,
        "lying-byte-rate": wav(patched(form(), (16, b"\1\0\0\0")), data),
    }.items():  # fmt: skip
        yield _bytes(f"odd-{name}.wav", content, None, 4_800)
    flac, mp3 = encoded(form="FLAC"), encoded(form="MP3")
    yield _bytes("odd-id3-before.mp3", b"ID3\4\0\0\0\0\0\x10TXXX" + bytes(12) + mp3, None)
    yield _bytes("odd-id3-behind.mp3", mp3 + b"TAG" + bytes(125), None)
    padding = struct.pack(">I", 1 << 24 | 2000)[0:4] + bytes(2000)  # a block of type 1 (RFC 9639, section 8.1)
    yield _bytes("odd-padded.flac", flac[:42] + padding + flac[42:], None, 4_800)


def _rates() -> Iterator[Case]:
    """Rates and channels, on both sides of what is allowed."""
    for rate in (4_000, 8_000, 11_025, 12_345, 22_050, 44_100, 48_000, 96_000, 192_000):
        for channels in (1, 2):
            wave = tone(0.3, rate, channels)
            expected = int(np.floor(len(wave) * RATE / rate + 0.5))
            yield _bytes(f"rate-{rate}-{channels}.wav", encoded(wave, rate), None, expected)
    for rate in (1, 100, 3_999, 192_001, 655_350):
        yield _bytes(f"rate-{rate}.wav", wav(form(rate=rate), chunk(b"data", pcm())), "rate")
    yield _bytes("rate-1.flac", encoded(tone(), 1, "FLAC"), "rate")
    yield _bytes("rate-655350.flac", encoded(tone(), 655_350, "FLAC"), "rate")
    for count in (3, 8, 255):
        yield _bytes(
            f"channels-{count}.wav", wav(form(channels=count), chunk(b"data", bytes(2 * count * 100))), "channels"
        )
    yield _bytes("channels-8-96k.flac", encoded(tone(0.1, 96_000, 8), 96_000, "FLAC"), "channels")


def _samples() -> Iterator[Case]:
    """What the samples themselves can be."""
    quiet = np.full(4_800, 1e-30)
    for name, wave in {
        "silence": np.zeros(4_800),
        "offset": np.full(4_800, 0.5),
        "clipped": np.sign(tone()),
        "faint": quiet,
        "denormal": quiet * 1e-10,
        "loud": tone() * 90,
        "one": tone()[:1],
        "shorter-than-a-frame": tone()[:399],
        "one-frame": tone()[:400],
        "negative-zero": np.full(4_800, -0.0),
        "silence-inside": np.concatenate([tone(0.1), np.zeros(1_600), tone(0.1)]),
        "silence-behind": np.concatenate([tone(0.1), np.zeros(3_200)]),
    }.items():
        yield _bytes(f"samples-{name}.wav", floats(wave), None, len(wave))
    for name, value in {"nan": np.nan, "inf": np.inf, "minus-inf": -np.inf}.items():
        for place in (0, 2_400, -1):
            yield _bytes(f"samples-{name}-{place}.wav", floats(spoilt(place, value)), "non-finite")
    stereo = tone(channels=2)
    stereo[77, 1] = np.nan
    yield _bytes("samples-nan-right.wav", encoded(stereo, subtype="FLOAT"), "non-finite")
    yield _bytes("samples-nan.aiff", encoded(spoilt(9, np.nan), form="AIFF", subtype="FLOAT"), "non-finite")
    yield _bytes("samples-nan.au", encoded(spoilt(9, np.nan), form="AU", subtype="FLOAT"), "non-finite")
    huge = wav(form(FLOAT, bits=64), chunk(b"data", np.full(99, 1e300, "<f8").tobytes()))
    yield _bytes("samples-1e300.wav", huge, "non-finite")  # beyond single precision
    for name, value in {"1e30": 1e30, "1e38": -1e38, "101": 101.0, "integers": 32_767.0}.items():
        yield _bytes(f"samples-{name}.wav", floats(spoilt(100, value)), "amplitude")
    for container in ("WAV", "AIFF", "AU", "W64", "CAF", "RF64"):
        yield _bytes(f"samples-none-{container}", encoded(np.zeros(0), form=container), "no-samples")
    yield _bytes("samples-less-than-one.wav", encoded(np.zeros(1), 192_000), "too-short")


def _names() -> Iterator[Case]:
    """Names that break lists, shells and terminals; names that say another format than the content."""
    sound = encoded()
    for name in (
        "a\nb.wav", "a\tb.wav", "a,b;c.wav", "cat x |.wav", "$(touch canary).wav", "`touch canary`.wav", "-rf.wav",
        " lead and trail .wav ", "'single' \"double\".wav", "%s%n%x.wav", "日本語.wav", "\u00f1.wav", "n\u0303.wav",
        "\udcff\udce9.wav",
        "\u202egnp.wav", "\x1b[31mred.wav", "UPPER.WAV", "none", "..wav", "a" * 251 + ".wav", "#hash?query=1.wav",
        "file:x.wav", "pipe:cat.wav", "{a,b}.wav", "*.wav", "a\\b.wav",
    ):  # fmt: skip
        yield _bytes(name, sound, None, 4_800)
    for name, container in {
        "flac.wav": "FLAC",
        "mp3.wav": "MP3",
        "wav.mp3": "WAV",
        "ogg.flac": "OGG",
        "w.txt": "W64",
    }.items():
        yield _bytes(f"content-{name}", encoded(form=container), None)


def _not_files() -> Iterator[Case]:
    """What has a name and is no file, or no name at all."""
    yield Case("missing.wav", None, "missing")
    yield Case("missing-folder/x.wav", None, "missing")
    yield Case("a" * 300 + ".wav", None, "unreadable")
    yield Case("dangling.wav", lambda path: path.symlink_to("nowhere"), "missing")
    yield Case("loop.wav", lambda path: path.symlink_to("loop.wav"), "unreadable")
    yield Case("loop-of-a.wav", lambda path: path.symlink_to("loop-of-b.wav"), "unreadable")
    yield Case("loop-of-b.wav", lambda path: path.symlink_to("loop-of-a.wav"), "unreadable")
    yield _bytes("target.wav", encoded(), None, 4_800)
    yield Case("link.wav", lambda path: path.symlink_to("target.wav"), None, 4_800)
    yield Case("hard-link.wav", lambda path: path.hardlink_to(path.with_name("target.wav")), None, 4_800)
    yield Case("target.wav/x.wav", None, "missing")
    yield Case("folder.wav", lambda path: path.mkdir(), "not-a-file")
    yield Case("link-to-folder.wav", lambda path: path.symlink_to("folder.wav"), "not-a-file")
    yield Case("pipe.wav", os.mkfifo, "not-a-file")
    yield Case("link-to-pipe.wav", lambda path: path.symlink_to("pipe.wav"), "not-a-file")
    yield Case("socket.wav", socket_at, "not-a-file")
    for device in ("null", "zero", "urandom", "tty"):
        yield Case(f"device-{device}.wav", lambda path, to=f"/dev/{device}": path.symlink_to(to), "not-a-file")
    yield Case("mode-444.wav", lambda path: (path.write_bytes(encoded()), path.chmod(0o444)), None, 4_800)
    # To the superuser, as whom containers run tests, no mode says no; test_bad_audio asks as somebody else too.
    refused: Kind | None = None if os.geteuid() == 0 else "unreadable"
    yield Case("mode-000.wav", lambda path: (path.write_bytes(encoded()), path.chmod(0)), refused)


def _not_audio() -> Iterator[Case]:
    """Other things under an audio file's name."""
    sound = encoded()
    for name, content in {
        "html": b"<!DOCTYPE html><html><title>404</title>",
        "html-late": b"\n\n  <html><body>Sign in",
        "s3-error": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 44\n",
        "not-found": b"404: Not Found",
        "json": json.dumps({"error": "quota"}).encode(),
        "csv": b"id,path\n1,x.wav\n",
        "source": b"import os\nos.system('touch canary')\n",
        "script": b"#!/bin/sh\ntouch canary\n",
        "m3u": b"#EXTM3U\n#EXTINF:1,x\nhttp://127.0.0.1/x.wav\n",
        "m3u-of-files": b"/etc/passwd\n",
        "pls": b"[playlist]\nFile1=/etc/passwd\n",
        "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "base64": base64.b64encode(sound),
        "bom": b"\xef\xbb\xbfhello",
        "utf-16": "hello".encode("utf-16"),
        "latin-1": "Grüße".encode("latin-1"),
        **{f"pickle-{protocol}": pickle.dumps([Canary()], protocol) for protocol in range(6)},
        "torch": zipped("archive/data.pkl"),
        "npy": saved(tone()),
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(99),
        "pdf": b"%PDF-1.7\n",
        "png": b"\x89PNG\r\n\x1a\n" + bytes(99),
        "jpeg": b"\xff\xd8\xff\xe0" + bytes(99),
        "gif": b"GIF89a" + bytes(99),
        "elf": b"\x7fELF\2\1\1" + bytes(99),
        "exe": b"MZ\x90\0" + bytes(99),
        "wav.gz": gzip.compress(sound),
        "wav.xz": lzma.compress(sound),
        "wav.zip": zipped("x.wav"),
        "tar": tarred(),
        "zeros": bytes(4_096),
        "ones": b"\xff" * 4_096,
        "one-byte": b"\0",
        "newlines": b"\n" * 100,
        "random": np.random.default_rng(5).bytes(4_096),
        "headless": pcm(),
        "webp": b"RIFF\x24\0\0\0WEBPVP8 " + bytes(24),
        "avi": b"RIFF\x24\0\0\0AVI LIST" + bytes(24),
        "iff-picture": b"FORM\0\0\0\x24ILBMBMHD" + bytes(24),
        "midi": b"MThd\0\0\0\6\0\1\0\1\0\x60MTrk" + bytes(24),
        "theora": b"OggS\0\2" + bytes(8) + b"\1\0\0\0\0\0\0\0\0\0\0\0\1\x2a\x80theora\3\2\1" + bytes(33),
    }.items():  # fmt: skip
        yield _bytes(f"not-audio-{name}.wav", content, "not-audio")
    for name, content in {
        "m4a": b"\0\0\0\x20ftypM4A " + bytes(24),
        "mp4": b"\0\0\0\x18ftypisom" + bytes(24),
        "webm": b"\x1a\x45\xdf\xa3" + bytes(8) + b"webm",
        "wma": b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(24),
        "amr": b"#!AMR\n" + bytes(24),
        "shorten": b"ajkg\2" + bytes(24),
        "wavpack": b"wvpk" + bytes(28),
        "ape": b"MAC \x96\x0f" + bytes(24),
        "aac": b"\xff\xf1\x50\x80\x03\x9f\xfc" + bytes(24),
        "dsf": b"DSD \x1c\0\0\0" + bytes(24),
    }.items():
        yield _bytes(f"undecoded-{name}.wav", content, "format")
    yield _bytes("empty.wav", b"", "empty")
    yield _bytes("empty.flac", b"", "empty")


def _wav_headers() -> Iterator[Case]:
    """WAV headers that lie."""
    data = chunk(b"data", pcm())
    for name, content in {
        "channels-0": wav(form(channels=0), data),
        "channels-65535": wav(form(channels=65_535, align=2), data),
        "rate-0": wav(form(rate=0), data),
        "rate-4-billion": wav(form(rate=0xFFFFFFFF), data),
        "tag-unknown": wav(form(0x9999), data),
        "tag-mpeg": wav(form(0x0055), data),
        "form-missing": wav(data),
        "form-short": wav(chunk(b"fmt ", b"\1\0\1\0"), data),
        "form-huge": wav(chunk(b"fmt ", form()[8:], 0x7FFF0000), data),
        "form-behind": wav(data, form()),
        "data-missing": wav(form()),
        "magic-only": b"RIFF",
        "kind-only": b"RIFF\0\0\0\0WAVE",
        "many-chunks": wav(form(), *[chunk(b"note", b"")] * 2_000, length=0),
        "chunk-past-end": wav(form(), chunk(b"note", b"", 1 << 30), data),
        "adpcm-align-0": wav(form(2, bits=4, align=0), data),
        "adpcm-align-65535": wav(form(2, bits=4, align=65_535), data),
        "gsm-align-1": wav(form(0x31, bits=0, align=1), data),
    }.items():
        yield _bytes(f"wav-{name}.wav", content, "corrupt")
    for name, content in {
        "data-2-GiB": wav(form(), chunk(b"data", pcm(), 0x7FFF0000)),
        "data-1-more": wav(form(), chunk(b"data", pcm(), len(pcm()) + 2)),
        "rf64-4-TiB": wav(chunk(b"ds64", struct.pack("<QQQI", 4 * TIB, 4 * TIB, 2 * TIB, 0)), form(),
                          chunk(b"data", pcm(), 0xFFFFFFFF), magic=b"RF64", length=0xFFFFFFFF),
    }.items():  # fmt: skip
        yield _bytes(f"wav-{name}.wav", content, "truncated")
    yield _bytes("wav-bits-0.wav", wav(form(bits=0), data), "format")
    yield _bytes("wav-bits-65535.wav", wav(form(bits=65_535), data), "format")
    yield _bytes("wav-bits-7.wav", wav(form(bits=7), data), None, len(pcm()))  # in bytes
    yield _bytes("wav-data-0.wav", wav(form(), chunk(b"data", b"")), "no-samples")
    yield _bytes("wav-half-a-sample.wav", wav(form(), chunk(b"data", b"\1")), "no-samples")


def _other_headers() -> Iterator[Case]:
    """Headers of other containers that lie."""
    flac, w64, au, aiff, caf = (encoded(form=name) for name in ("FLAC", "W64", "AU", "AIFF", "CAF"))
    # STREAMINFO: 36 bits of total samples from byte 21 on (RFC 9639, section 8.2)
    most = bytes([flac[21] | 0x0F])
    yield _bytes("flac-68-billion-samples.flac", patched(flac, (21, most + b"\xff" * 4)), "too-long")
    yield _bytes("flac-unknown-length.flac", patched(flac, (21, bytes([flac[21] & 0xF0]) + bytes(4))), "format")
    yield _bytes("flac-4-TiB.flac", patched(flac, (21, bytes([flac[21] & 0xF0]) + b"\x20\0\0\0")), "truncated")
    yield _bytes("flac-rate-0.flac", patched(flac, (18, b"\0\0" + bytes([flac[20] & 0x0F]))), "corrupt")
    yield _bytes("flac-no-blocks.flac", b"fLaC" + bytes(50), "corrupt")
    yield _bytes("flac-metadata-16-MiB.flac", flac[:4] + b"\x84\xff\xff\xff" + flac[42:], "corrupt")
    yield _bytes("flac-hole.flac", _holed(encoded(tone(2.0), form="FLAC")), "corrupt")
    yield _bytes("w64-4-TiB.w64", patched(w64, (16, struct.pack("<Q", 4 * TIB))), "truncated")
    yield _bytes("au-1-GiB.au", patched(au, (8, struct.pack(">I", 1 << 30))), "truncated")
    yield _bytes("au-channels-0.au", patched(au, (20, bytes(4))), "corrupt")
    yield _bytes("au-tag-unknown.au", patched(au, (12, b"\0\0\xff\0")), "corrupt")
    yield _bytes("aiff-1-GiB.aiff", patched(aiff, (4, struct.pack(">I", 1 << 30))), "truncated")
    yield _bytes("aiff-channels-0.aiff", patched(aiff, (aiff.index(b"COMM") + 8, b"\0\0")), "corrupt")
    yield _bytes("caf-4-TiB.caf", patched(caf, (caf.index(b"data") + 4, struct.pack(">Q", 4 * TIB))), "truncated")
    yield _bytes("caf-rate-nan.caf", patched(caf, (20, b"\x7f\xf8" + bytes(6))), "corrupt")
    shorten = encoded(form="NIST").replace(b"-s3 pcm\n", b"-s26 pcm,embedded-shorten-v2.00\n")
    yield _bytes("nist-shorten.sph", shorten[:1_024] + b"ajkg\2" + bytes(400), "format")
    faults: dict[bytes, tuple[Kind, Kind]] = {b"FORM": ("truncated", "not-audio")}
    for magic in (b"fLaC", b"FORM", b".snd", b"caff", b"NIST_1A", b"riff", b"RF64", b"\xff\xfb"):
        bare, continued = faults.get(magic, ("corrupt", "corrupt"))
        yield _bytes(f"magic-{magic!r}", magic, bare)
        yield _bytes(f"magic-and-zeros-{magic!r}", magic + bytes(600), continued)
    vbr = encoded(np.concatenate([tone(2.0, 44_100), tone(2.0, 44_100) * 1e-3]), 44_100, "MP3", bitrate_mode="VARIABLE")
    yield _bytes("mp3-unknown-length.mp3", vbr[vbr.index(vbr[:2], 100) :], "format")
    place = vbr.index(b"Xing") + 8
    yield _bytes("mp3-4-billion-frames.mp3", patched(vbr, (place, b"\xff" * 4)), "too-long")


def _holed(content: bytes) -> bytes:
    middle = len(content) // 2
    return patched(content, (middle, bytes(200)))


def _cut() -> Iterator[Case]:
    """Copies that stopped on their way."""
    for suffix, container, subtype in WHOLE:
        if subtype in ("PCM_16", "VORBIS", "OPUS", "MPEG_LAYER_III", "IMA_ADPCM"):
            content = encoded(tone(2.0), RATE, container, subtype)
            for share in (97, 50, 20):
                name = f"cut-{container}-{subtype}-{share}.{suffix}"
                yield _bytes(name, content[: len(content) * share // 100], "truncated")
