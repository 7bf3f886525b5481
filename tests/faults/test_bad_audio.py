"""The promise: no file crashes, hangs or starves a reader, none is taken for what it is not, and each is named."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from audio_bytes import encoded, floats, form, pcm, spoilt, wav
from bad_audio import lay
from child import survey
from command import refuses, works
from speech_like import corpus
from test_pretrain import command, final, quarantined

from mockingjay import audio
from mockingjay.audio import KINDS, AudioError
from mockingjay.core.types import Utterance
from mockingjay.data.manifest import Corpus
from mockingjay.data.scan import scan

BAD = {
    "nan.wav": (floats(spoilt(100, float("nan"))), "non-finite"),
    "cut.flac": (encoded(form="FLAC")[:2_000], "truncated"),
    "page.wav": (b"<html>404</html>", "not-audio"),
}


@pytest.fixture(scope="module")
def laid(tmp_path_factory):
    return lay(tmp_path_factory.mktemp("bad"))


def look(path):
    """What a reader is told: (fault, its sentence) or (None, samples)."""
    try:
        wave = audio.read(path)
    except AudioError as error:
        assert error.path == str(path) and str(error).endswith(f"; {error.mend}")
        return error.kind, str(error)
    assert wave.isfinite().all()
    return None, len(wave)


def test_every_file_is_read_or_named(laid):
    assert len(laid) >= 300 and {case.fault for case in laid.values()} >= set(KINDS) - {"range"}
    wrong = {}
    for path, fate, said in survey(look, laid):
        case = laid[path]
        expected = [case.fault, case.samples if case.samples is not None else said and said[1]]
        if case.fault is not None and said:
            one_line = said[1].startswith(f"{audio.shown(path)}: ") and said[1].isprintable()
            expected[1] = said[1] if one_line else "one line that begins with the name"
        if fate or said != expected:
            wrong[case.name] = fate, said, expected
    assert not wrong


def test_a_scan_refuses_the_bad_ones_exactly(laid):
    """As a corpus lists them; a scan's threads meet all of them at once."""
    utterances = tuple(Utterance(str(number), str(path), promised(path)) for number, path in enumerate(laid))
    health = scan(Corpus("bad", utterances, ()), 0.0, workers=4)
    assert {row.path: row.kind for row in health.corpus.refused} == {
        str(path): case.fault for path, case in laid.items() if case.fault
    }
    sound = [str(path) for path, case in laid.items() if case.fault is None]
    assert [each.path for each in health.corpus.utterances] == sound
    assert sum(health.rates.values()) == len(sound) and json.dumps(health.as_dict(), allow_nan=False)


def promised(path):
    try:
        return audio.header(path).seconds
    except AudioError:
        return 0.3


def test_a_file_without_permission_is_named(request):
    """As somebody whom modes bind; the superuser reads everything."""
    folder = Path(tempfile.mkdtemp())  # the tests' own folders are closed to others
    request.addfinalizer(lambda: shutil.rmtree(folder))
    folder.chmod(0o755)
    path = folder / "x.wav"
    path.write_bytes(encoded())
    path.chmod(0)

    def as_nobody(path):
        if os.geteuid() == 0:
            os.setresgid(65_534, 65_534, 65_534)
            os.setresuid(65_534, 65_534, 65_534)
        return look(path)

    ((_, fate, said),) = survey(as_nobody, [path])
    sentence = f"{path}: cannot be read (Permission denied); check its permissions and its disk"
    assert (fate, said) == ("", ["unreadable", sentence])


def test_a_header_cannot_ask_for_memory_or_time(tmp_path):
    """Chunks and blocks by the million, and lengths beyond all disks."""
    path = tmp_path / "x.wav"
    for content in (
        wav(form(), b"note\0\0\0\0" * 1_000_000),
        b"caff\0\1\0\0" + b"free" + bytes(8) * 1_000_000,
        b"fLaC" + b"\1\0\0\0" * 1_000_000,
        b"OggS" * 1_000_000,
        b"\xff\xfb\x90\x00" * 1_000_000,
        b"ID3\4\0\0\x7f\x7f\x7f\x7f" + bytes(4_000_000),
        b"FORM\x7f\0\0\0AIFF" + b"NAME\0\0\0\0" * 500_000,
        b"NIST_1A\n   1024\n" + b"sample_count -i 9" + b"9" * 1_000 + b"\n",
    ):
        path.write_bytes(content)
        ((_, fate, said),) = survey(look, [path])
        assert fate == "" and said[0] in ("corrupt", "truncated", "format", "not-audio"), (content[:20], fate, said)


def test_training_on_a_poisoned_corpus_is_training_on_its_clean_part(tmp_path):
    clean, poisoned = corpus(tmp_path / "a" / "x", 57), corpus(tmp_path / "b" / "x", 57)
    for name, (content, _) in BAD.items():
        (poisoned / "s0" / name).write_bytes(content)
    for data, out in ((clean, tmp_path / "clean"), (poisoned, tmp_path / "poisoned")):
        works(*command(data, out, 4, "--set", "upkeep.refused=0.05"))
    assert final(tmp_path / "poisoned", 4) == final(tmp_path / "clean", 4)
    encoder = Path("encoder", "model.safetensors")
    assert (tmp_path / "poisoned" / encoder).read_bytes() == (tmp_path / "clean" / encoder).read_bytes()
    found = {row["path"]: row["class"] for row in quarantined(tmp_path / "poisoned")}
    assert found == {str(poisoned / "s0" / name): kind for name, (_, kind) in BAD.items()}
    assert not (tmp_path / "clean" / "quarantine.jsonl").exists()
    sentence = "3 of 60 files cannot be used, expected at most 2"
    refuses(3, sentence, *command(poisoned, tmp_path / "strict", 4, "--set", "upkeep.refused=0.04"))


def test_labels_that_are_pipes_are_passed_over(tmp_path):
    (tmp_path / "x.wav").write_bytes(wav(form(), b"data" + len(pcm()).to_bytes(4, "little") + pcm()))
    for suffix in ("TextGrid", "phn", "lab", "txt", "ctm"):
        os.mkfifo(tmp_path / f"x.{suffix}")
    ((_, fate, said),) = survey(lambda folder: works("corpus", "inspect", folder, "--json"), [tmp_path])
    assert fate == "" and json.loads(said)["utterances"] == 1
