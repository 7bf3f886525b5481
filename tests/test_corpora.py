# ruff: noqa: PTH117
import json
import os

import numpy as np
import pytest
import soundfile

from mockingjay.core.errors import DataError
from mockingjay.data.corpora import CORPORA, open_corpus
from mockingjay.data.manifest import write_manifest


def tree(root, *files, seconds=0.5):
    """Make files: audio by their suffix, others with what stands behind the =."""
    for file in files:
        name, _, content = file.partition("=")
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".wav", ".flac") and not content:
            random = np.random.default_rng(len(name))
            form = "FLAC" if path.suffix == ".flac" else "WAV"
            soundfile.write(path, random.uniform(-0.1, 0.1, round(16_000 * seconds)), 16_000, format=form)
        else:
            path.write_text(content, "utf-8")
    return root


def found(corpus, *columns):
    return {
        u.id: tuple(u.label(c) for c in columns) if len(columns) > 1 else u.label(columns[0]) for u in corpus.utterances
    }


def test_the_table_ends_with_the_reader_that_takes_everything():
    assert list(CORPORA)[-1] == "folder" and list(CORPORA).index("manifest") < list(CORPORA).index("manifests")


def test_a_plain_folder_with_speakers(tmp_path):
    tree(
        tmp_path / "x",
        "ann/1.wav",
        "ann/deep/2.flac",
        "bob/1.wav",
        "3.wav",
        "bob/notes.md=hi",
        ".hidden/4.wav",
        "empty/x=",
    )
    corpus = open_corpus(tmp_path / "x")
    assert corpus.name == "x" and corpus.seconds == 2.0 and corpus.refused == ()
    assert found(corpus, "speaker") == {"3": None, "ann/1": "ann", "ann/deep/2": "ann", "bob/1": "bob"}
    assert all(os.path.isabs(u.path) and u.seconds == 0.5 for u in corpus.utterances)


def test_a_plain_folder_without_speakers(tmp_path):
    tree(tmp_path, "only/1.wav", "only/2.wav", "silent/readme.txt=x")
    assert found(open_corpus(tmp_path), "speaker") == {"only/1": None, "only/2": None}


def test_folders_named_as_splits_are_splits(tmp_path):
    tree(tmp_path, "train/ann/1.wav", "train/bob/2.wav", "test/cid/3.wav")
    expected = {"train/ann/1": ("train", "ann"), "train/bob/2": ("train", "bob"), "test/cid/3": ("test", "cid")}
    assert found(open_corpus(tmp_path), "split", "speaker") == expected


def test_folders_that_only_begin_as_splits_are_not(tmp_path):
    tree(tmp_path, "testimonies/1.wav", "training/2.wav")
    expected = {"testimonies/1": (None, "testimonies"), "training/2": (None, "training")}
    assert found(open_corpus(tmp_path), "split", "speaker") == expected
    tree(tmp_path / "sets", "dev-clean/1.wav", "test_clean/2.wav", "train-clean-100/3.wav")
    assert set(found(open_corpus(tmp_path / "sets"), "split").values()) == {
        "dev-clean", "test_clean", "train-clean-100",
    }  # fmt: skip


def test_files_of_one_stem_keep_their_suffix(tmp_path):
    tree(tmp_path, "a.wav", "a.flac", "b.wav")
    assert [u.id for u in open_corpus(tmp_path).utterances] == ["a.flac", "a.wav", "b"]


@pytest.mark.parametrize(
    ("id", "files"),
    [
        ("1-2-0000", ("1/2/1-2-0000.flac", "1/2/1-2-0000.wav", "1/2/1-2.trans.txt=1-2-0000 HI\n")),
        ("a.flac", ("a.flac", "a.flac.wav", "a.wav")),
    ],
)
def test_an_id_is_taken_once(tmp_path, id, files):
    corpus = open_corpus(tree(tmp_path, *files))
    (refusal,) = corpus.refused
    first, again = files[:2]
    assert refusal.kind == "protocol" and refusal.text == (
        f"{tmp_path}: 1 audio files have the id of another (first {again}, {id!r} "
        f"as {first}) and are left out; remove or rename one of the two"
    )
    write_manifest(tmp_path / "out" / "manifest.jsonl", corpus.utterances)
    assert open_corpus(tmp_path / "out").utterances == corpus.utterances


def test_a_folder_that_cannot_be_read_is_refused_and_the_others_stay(tmp_path, monkeypatch):
    tree(tmp_path, "a/1.wav", "lost+found/2.wav")
    scandir = os.scandir

    def refusing(path):
        if os.fspath(path).rstrip("/").endswith("lost+found"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    corpus = open_corpus(tmp_path)
    assert [each.id for each in corpus.utterances] == ["a/1"]
    (refusal,) = corpus.refused
    assert (refusal.kind, refusal.text) == (
        "unreadable",
        f"{tmp_path}/lost+found: cannot be read (Permission denied), expected a folder; check its permissions",
    )
    for folder in (tmp_path / "lost+found", tree(tmp_path / "alone", "lost+found/2.wav")):
        with pytest.raises(DataError, match=r"lost\+found/?: cannot be read \(Permission denied\), expected a folder"):
            open_corpus(folder)


def test_a_folder_that_may_be_listed_and_not_entered_is_refused(tmp_path, monkeypatch):
    tree(tmp_path, "a.wav")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.X_OK)
    with pytest.raises(DataError, match=r"a folder that may not be entered, expected a corpus; check its perm"):
        open_corpus(tmp_path)


def test_a_single_file_is_a_corpus_of_one(tmp_path):
    tree(tmp_path, "a.wav", "b.wav")
    assert [u.id for u in open_corpus(str(tmp_path / "a.wav")).utterances] == ["a"]


def test_bad_files_are_refused_and_the_others_stay(tmp_path):
    tree(tmp_path, "a.wav", "b.wav=<html>", "c.m4a=xxxxftypM4A ", "d.mp3=")
    os.mkfifo(tmp_path / "e.wav")
    (tmp_path / "f.wav").symlink_to("f.wav")
    (tmp_path / "g.wav").symlink_to("nowhere")
    corpus = open_corpus(tmp_path)
    assert [u.id for u in corpus.utterances] == ["a"]
    kinds = {r.id: r.kind for r in corpus.refused}
    assert kinds == {
        "b": "not-audio",
        "c": "format",
        "d": "empty",
        "e": "not-a-file",
        "f": "unreadable",
        "g": "missing",
    }
    assert all(r.text.startswith(r.path) and r.text.endswith(r.mend) for r in corpus.refused)


def test_folders_are_entered_once(tmp_path):
    tree(tmp_path / "x", "a/1.wav")
    (tmp_path / "x" / "a" / "up").symlink_to(tmp_path / "x")
    (tmp_path / "x" / "self").symlink_to("self")
    assert len(open_corpus(tmp_path / "x").utterances) == 1


def test_names_that_are_not_utf8(tmp_path):
    tree(tmp_path, "a.wav")
    (tmp_path / "a.wav").rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav"))
    (utterance,) = open_corpus(tmp_path).utterances
    assert utterance.id == "\\xff"
    write_manifest(tmp_path / "manifest.jsonl", [utterance])
    assert open_corpus(tmp_path).utterances == (utterance,)


def test_what_is_no_corpus_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none: no such file or folder, expected a corpus; check the path"):
        open_corpus(tmp_path / "none")
    with pytest.raises(DataError, match=r"an empty folder, expected audio; name a folder with wav"):
        open_corpus(tmp_path)
    tree(tmp_path, "x.md=hello")
    with pytest.raises(DataError, match=r"no audio in 1 files, expected audio; name"):
        open_corpus(tmp_path)
    with pytest.raises(DataError, match=r"a file that ends in .md, expected a corpus; name a folder of audio"):
        open_corpus(tmp_path / "x.md")
    tree(tmp_path, "a.wav=text", "b.wav=text")
    with pytest.raises(
        DataError, match=r"none of 2 audio files can be used, expected .*; the first says: .*not audio but text"
    ):
        open_corpus(tmp_path)


def test_labels_beside_the_audio(tmp_path):
    tree(
        tmp_path,
        "a.wav",
        "a.phn=0 1600 h#\n1600 8000 aa\n",
        "b.wav",
        "b.lab=0 2500000 sil\n2500000 5000000 AA1\n",
        "b.txt=hello\nthere\n",
        "c.wav",
        "c.lab=Guten Tag\n",
        "d.wav",
        "all.ctm=;; comment\nd 1 0.2 0.3 B\nd 1 0.0 0.2 A 0.9\n",
        "e.wav",
        "e.phn=0 x y\n",
    )
    corpus = open_corpus(tmp_path)
    by_id = {u.id: u for u in corpus.utterances}
    assert by_id["a"].alignment == ((0.0, 0.1, "h#"), (0.1, 0.5, "aa"))
    assert by_id["b"].alignment == ((0.0, 0.25, "sil"), (0.25, 0.5, "AA1")) and by_id["b"].text == "hello there"
    assert by_id["c"].alignment is None and by_id["c"].text == "Guten Tag"
    assert by_id["d"].alignment == ((0.0, 0.2, "A"), (0.2, 0.5, "B"))
    assert by_id["e"].alignment is None
    (refusal,) = corpus.refused
    assert refusal.kind == "alignment" and "e.phn:1: '0 x y', expected 'start end phone'" in refusal.text


def test_phone_times_of_a_name_that_several_files_have_are_nobodys(tmp_path):
    tree(tmp_path, "ann/1.wav", "bob/1.wav", "cid/1.wav", "cid/2.wav")
    tree(tmp_path, "all.ctm=1 1 0.0 0.5 A\nbob/1 1 0.0 0.5 B\n2 1 0.0 0.5 C\n")
    corpus = open_corpus(tmp_path)
    aligned = {u.id: u.alignment and u.alignment[0][2] for u in corpus.utterances}
    assert aligned == {"ann/1": None, "bob/1": "B", "cid/1": None, "cid/2": "C"}
    (refusal,) = corpus.refused
    assert refusal.kind == "alignment" and "2 audio files (first 'ann/1') have a name that" in refusal.text


def test_phone_times_in_csv(tmp_path):
    expected = ((0.0, 0.2, "sil"), (0.2, 0.5, "AA1"))
    tree(
        tmp_path,
        "ann/a.wav",
        "ann/a.csv=\ufeffstart,end,phone,score\r\n0,0.2,,\r\n0.2,0.5,AA1,0.9\r\n",
        "ann/b.wav",
        "bob/c.wav",
        "times.csv=id,start,end,phone\nann/b,0,0.2,sil\nC,0,0.2,sil\nann/b,0.2,0.5,AA1\nC,0.2,0.5,AA1\n",
        "bob/d.wav",
        "bob/d.csv=Begin,End,Label,Type,Speaker\n0,0.5,ah,words,bob\n0,0.2,,phones,bob\n0.2,0.5,AA1,phones,bob\n",
        "bob/e.wav",
        "bob/e.csv=path,start,end,phone\ne.wav,0,0.5,AA1\n",  # a list of audio
        "bob/f.wav",
        "bob/f.csv=time,pitch\n0,100\n",
        "list.csv=path,id,start,end,phone\nbob/f.wav,bob/f,0,0.5,AA1\n",
    )
    corpus = open_corpus(tmp_path)
    aligned = {u.id: u.alignment for u in corpus.utterances}
    assert corpus.refused == () and {id for id in aligned if aligned[id] is None} == {"bob/e", "bob/f"}
    assert {id: aligned[id] for id in ("ann/a", "ann/b", "bob/c", "bob/d")} == dict.fromkeys(
        ("ann/a", "ann/b", "bob/c", "bob/d"), expected
    )
    (one,) = open_corpus(tmp_path / "list.csv").utterances
    assert (one.label("phone"), one.alignment) == ("AA1", None)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("start,end,phone\n0,x,a\n", "a.csv:2: the end is 'x', expected seconds, 0 or more; correct it"),
        ("start,end,phone\n0,1,a\n,2,b\n", "a.csv:3: the start is None, expected seconds, 0 or more; correct it"),
        ("start,end,phone\n-1,1,a\n", "a.csv:2: the start is '-1', expected seconds, 0 or more; correct it"),
        ("start,end,phone\n0,1\n", "a.csv:2: 2 cells, expected 3 as in the header; quote cells that hold a ','"),
        ("start,end,phone\n0,1,a\n1,0.5,b\n", "a.csv:3: 'b' from 1 to 0.5 s stands after 0 s, expected intervals in"),
        ("start,end,phone\n1,2,a\n0,1,b\n", "a.csv:3: 'b' from 0 to 1 s stands after 1 s, expected intervals in order"),
        ("start,end,phone,phone\n", "a.csv:1: the header is 'start,end,phone,phone', expected different names"),
        ('start,end,phone\n0,1,"a"b\n', "a.csv:2: not CSV in UTF-8"),
        ("id,start,end,phone\n,0,1,a\n", "a.csv:2: the id is empty, expected an utterance's; fill it in, or remove"),
    ],
)
def test_wrong_phone_times_in_csv_are_named(tmp_path, content, says):
    tree(tmp_path, "a.wav", f"a.csv={content}")
    corpus = open_corpus(tmp_path)
    (refusal,) = corpus.refused
    assert refusal.kind == "alignment" and refusal.text.startswith(str(tmp_path)) and says in refusal.text
    assert [u.alignment for u in corpus.utterances] == [None]


def test_librispeech(tmp_path):
    tree(
        tmp_path / "LibriSpeech",
        "SPEAKERS.TXT=; comment\n103 | F | train-clean-100 | 25.1 | Ann\n",
        "train-clean-100/103/1240/103-1240-0000.flac",
        "train-clean-100/103/1240/103-1240.trans.txt=103-1240-0000 HELLO THERE\n103-1240-0001 GONE\n",
        "test-clean/7/9/7-9-0000.flac",
        "test-clean/7/9/7-9.trans.txt=7-9-0000 YES\n",
    )
    corpus = open_corpus(tmp_path / "LibriSpeech")
    assert found(corpus, "speaker", "split", "text", "chapter", "gender") == {
        "7-9-0000": ("7", "test-clean", "YES", "9", None),
        "103-1240-0000": ("103", "train-clean-100", "HELLO THERE", "1240", "f"),
    }
    one = open_corpus(tmp_path / "LibriSpeech" / "test-clean")
    assert found(one, "split", "text") == {"7-9-0000": ("test-clean", "YES")}
    tree(tmp_path / "LibriSpeech", "test-clean/7/9/7-9.trans.txt=7-9-0000\n")
    with pytest.raises(DataError, match=r"7-9.trans.txt:1: '7-9-0000', expected an utterance's id and its words; mend"):
        open_corpus(tmp_path / "LibriSpeech")


def test_timit(tmp_path):
    tree(
        tmp_path,
        "TRAIN/DR1/FCJF0/SI1.WAV",
        "TRAIN/DR1/FCJF0/SI1.WAV.wav",
        "TRAIN/DR1/FCJF0/SI1.PHN=0 3200 h#\n3200 8000 sh\n",
        "TRAIN/DR1/FCJF0/SI1.TXT=0 46797 She had your dark suit.\n",
        "TEST/DR2/MABC1/SX33.WAV",
        "TEST/DR2/MABC1/SX33.PHN=0 8000 h#\n",
    )
    corpus = open_corpus(tmp_path)
    assert found(corpus, "speaker", "split", "text", "dialect", "gender", "sentence") == {
        "test-dr2-mabc1-sx33": ("mabc1", "dev", None, "dr2", "m", "sx"),
        "train-dr1-fcjf0-si1": ("fcjf0", "train", "She had your dark suit.", "dr1", "f", "si"),
    }
    assert corpus.utterances[1].alignment == ((0.0, 0.2, "h#"), (0.2, 0.5, "sh"))


def test_csv(tmp_path):
    tree(
        tmp_path,
        "clips/a.wav",
        "clips/b.wav",
        "list.csv=\ufeffpath,label,start,end,speaker,note\r\n"
        'clips/a.wav,happy,,,ann,"one, two"\r\n\r\nclips/b.wav,sad,0.1,0.3,bob,\r\nclips/none.wav,sad,,,bob,\r\n',
    )
    corpus = open_corpus(tmp_path / "list.csv")
    assert found(corpus, "label", "speaker", "note") == {
        "clips/a": ("happy", "ann", "one, two"),
        "clips/b@0.1": ("sad", "bob", None),
    }
    assert [(u.start, round(u.seconds, 6)) for u in corpus.utterances] == [(0.0, 0.5), (0.1, 0.2)]
    assert [r.kind for r in corpus.refused] == ["missing"]


def test_a_folder_with_metadata(tmp_path):
    tree(tmp_path, "a.wav", "metadata.csv=file_name,emotion\na.wav,joy\n")
    assert found(open_corpus(tmp_path), "emotion") == {"a": "joy"}
    tree(tmp_path, "b.tsv=path\tid\ttext\na.wav\tone\tHello, you\n")
    assert found(open_corpus(tmp_path / "b.tsv"), "text") == {"one": "Hello, you"}


def test_metadata_that_list_no_audio_are_passed_over(tmp_path):
    tree(tmp_path / "LJ", "wavs/1.wav", "wavs/2.wav", "metadata.csv=1|Printing, in the|Printing, in the\n2|only|only\n")
    corpus = open_corpus(tmp_path / "LJ")
    assert found(corpus, "split") == {"wavs/1": None, "wavs/2": None}
    (refusal,) = corpus.refused
    assert (refusal.kind, refusal.text) == (
        "protocol",
        f"{tmp_path}/LJ/metadata.csv: not read, for its first line names no path or file_name; {refusal.mend}",
    )
    assert found(open_corpus(tmp_path), "split") == {"LJ/wavs/1": None, "LJ/wavs/2": None}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", ":1: the header is '', expected different names, 'path' among them; name"),
        ("label\nx\n", ":1: the header is 'label'"),
        ("path,a,a\n", ":1: the header is 'path,a,a'"),
        ("path,label\n", "holds no rows below its header"),
        ("path,label\na.wav\n", ":2: 1 cells, expected 2 as in the header; quote"),
        ("path,label\n,x\n", ":2: the path is empty"),
        ("path,label\na.wav,x\na.wav,y\n", ":3: id 'a' stands already in row 1"),
        ("path,start\na.wav,x\n", ":2: the start is 'x', expected seconds"),
        ("path,start,end\na.wav,1,nan\n", ":2: the end is 'nan', expected seconds"),
        ("path,start,end\na.wav,1,0.5\n", ":2: the end is 0.5 s, expected more than the start (1 s)"),
        ("id,path,duration_s,start_s\na,a.wav,0.2,\nb,a.wav,0.2,0.2\n", ":3: start_s is 0.2, a manifest's column"),
        ("path,label\nhttp://x/a.wav,x\n", ":2: path 'http://x/a.wav' is a URL"),
        ('path,label\n"a.wav"x,y\n', "not CSV in UTF-8"),
        ("path,label\nnone.wav,x\n", "none of its 1 files can be used"),
        ("path,start\na.wav,9\n", ":2: the start is 9 s, but the file holds 0.5 s"),
    ],
)
def test_wrong_lists_are_named(tmp_path, content, says):
    tree(tmp_path, "a.wav")
    (tmp_path / "list.csv").write_text(content, "utf-8")
    with pytest.raises(DataError) as caught:
        open_corpus(tmp_path / "list.csv")
    assert str(caught.value).startswith(str(tmp_path / "list.csv")) and says in str(caught.value)


def line(id, path, **more):
    return json.dumps({"id": id, "path": path, "duration_s": 0.5, **more}) + "\n"


def test_manifests_side_by_side(tmp_path):
    tree(tmp_path, "one/a.wav", "two/b.wav", "notes/x.md=")
    (tmp_path / "one/manifest.jsonl").write_text(line("a", "a.wav", text="HI") + line("c", "c.wav"))
    (tmp_path / "two/manifest.jsonl").write_text(line("z", "../one/a.wav", label="real") + line("c", "b.wav"))
    corpus = open_corpus(tmp_path)
    assert found(corpus, "corpus", "text", "label") == {
        "a": ("one", "HI", "real"),
        "c": ("one", None, None),
        "two/c": ("two", None, None),
    }
    assert open_corpus(tmp_path / "one").utterances == open_corpus(tmp_path / "one/manifest.jsonl").utterances
    tree(tmp_path, ".talking-draft/d.wav", f".talking-draft/manifest.jsonl={line('d', 'd.wav')}")
    assert open_corpus(tmp_path) == corpus


LAYOUTS = {
    "LibriSpeech": ("train-clean-100/1/2/1-2-0000.flac", "train-clean-100/1/2/1-2.trans.txt=1-2-0000 HI\n"),
    "TIMIT": ("TRAIN/DR1/FCJF0/SI1.WAV", "TRAIN/DR1/FCJF0/SI1.PHN=0 8000 h#\n"),
    "VoxCeleb": ("wav/id10001/x/00001.wav",),
    "several manifests": ("one/a.wav", f"one/manifest.jsonl={line('a', 'a.wav')}"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_lies_beside_a_layout_is_counted_and_a_small_part_is_no_layout(tmp_path, layout):
    left_out = (
        f"{tmp_path}: 1 of 2 audio files (first other/b.wav) lie otherwise than in {layout} and are left out; "
        "move them to a folder of their own to use them"
    )
    taken = (
        f"{tmp_path}: 1 of 3 audio files lie as in {layout}, and all are read without its splits and labels; "
        "name their folder alone to have these"
    )
    tree(tmp_path, *LAYOUTS[layout])
    for name, used, said in (("other/b.wav", 1, left_out), ("other/c.wav", 3, taken)):
        tree(tmp_path, name)
        corpus = open_corpus(tmp_path)
        assert len(corpus.utterances) == used
        assert [(refusal.kind, refusal.text) for refusal in corpus.refused] == [("protocol", said)]


@pytest.mark.real
def test_real_corpora(speech):
    counts = {"emodb": 339, "librispeech": 471, "speechocean762": 998, "spoof_derived": 232, "timit_nltk": 160}
    for name, count in counts.items():
        corpus = open_corpus(speech / name)
        assert (corpus.name, len(corpus.utterances), corpus.refused) == (name, count, ())
    together = open_corpus(speech)
    assert len(together.utterances) == sum(counts.values()) - 58
    assert len({u.id for u in together.utterances}) == len(together.utterances)
