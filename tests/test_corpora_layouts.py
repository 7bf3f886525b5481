import gzip
import json

import numpy as np
import pytest
import soundfile
from command import works
from test_alignments import GRID, tier
from test_corpora import found, tree

from mockingjay.core.errors import ConfigError, DataError
from mockingjay.data.corpora import open_corpus
from mockingjay.data.export import export
from mockingjay.data.manifest import read_manifest, write_manifest
from mockingjay.data.phones import ARPABET_72
from mockingjay.data.splits import role
from mockingjay.downstream.partition import partition
from mockingjay.downstream.tasks import build_task, open_task


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def grid(*phones):
    tiers = [tier(1, "words", (0, 0.5, "hi")), tier(2, "phones", *phones)]
    return GRID.format(size=2, tiers="".join(tiers)).replace("xmax = 1\n", "xmax = 0.5\n")


def by_id(corpus):
    return {each.id: each for each in corpus.utterances}


def sides(corpus, task):
    parts = partition(corpus.utterances, open_task(task))
    return parts.rule, *({each.id for each in part} for part in (parts.train, parts.dev, parts.test))


def libri(root, *ids, parts="train-clean-100"):
    for id in ids:
        speaker, chapter, _ = id.split("-")
        place = f"{parts}/{speaker}/{chapter}/{speaker}-{chapter}"
        tree(root, f"{place}-{id.split('-')[2]}.flac", f"{place}.trans.txt={id} HI\n")
    return root


PHONES = ((0, 0.1, ""), (0.1, 0.3, "HH"), (0.3, 0.4, "AY1"), (0.4, 0.5, "spn"))


def test_librispeech_with_textgrids_beside_or_in_another_folder(tmp_path):
    libri(tmp_path / "LibriSpeech", "1-2-0000", "1-2-0001", "3-4-0000")
    libri(tmp_path / "LibriSpeech", "5-6-0000", parts="test-clean")
    tree(
        tmp_path,
        f"LibriSpeech/train-clean-100/1/2/1-2-0000.TextGrid={grid(*PHONES)}",
        f"alignments/train-clean-100/1/2/1-2-0001.TextGrid={grid(*PHONES[1:])}",
        f"alignments/test-clean/5/6/5-6-0000.TextGrid={grid(*PHONES)}",
        "alignments/train-clean-100/3/4/3-4-0000.TextGrid=broken",
    )
    corpus = open_corpus(tmp_path)
    expected = ((0.0, 0.1, "sil"), (0.1, 0.3, "HH"), (0.3, 0.4, "AY1"), (0.4, 0.5, "spn"))
    assert {id: each.alignment for id, each in by_id(corpus).items()} == {
        "1-2-0000": expected,
        "1-2-0001": expected[1:],
        "3-4-0000": None,
        "5-6-0000": expected,
    }
    assert found(corpus, "split")["5-6-0000"] == "test-clean"
    (refusal,) = corpus.refused
    assert (refusal.id, refusal.kind) == ("3-4-0000", "alignment") and "not a TextGrid" in refusal.text


def test_the_phone_task_folds_by_name(tmp_path):
    libri(tmp_path, "1-2-0000")
    tree(tmp_path, f"train-clean-100/1/2/1-2-0000.TextGrid={grid(*PHONES)}")
    (utterance,) = open_corpus(tmp_path).utterances
    names = {text: open_task(text).names(utterance) for text in ("phone", "phone:41", "phone:39")}
    assert names == {
        "phone": ("AY1", "HH", "sil", "spn"),
        "phone:41": ("AY", "HH", "SIL", "SPN"),
        "phone:39": ("ay", "hh", "sil"),
    }
    task = open_task("phone:41").learn([utterance])
    again = build_task(task.config.model_dump(mode="json"), task.outputs)
    assert (again.name, again.outputs) == ("phone:41", ("AY", "HH", "SIL", "SPN")) and len(set(ARPABET_72)) == 72
    with pytest.raises(DataError, match=r"task phone:48: 'HH' is a phone of no set that folds to 48, expected one of"):
        open_task("phone:48").names(utterance)
    with pytest.raises(ConfigError, match="task phone:40: unknown task"):
        open_task("phone:40")


def test_librispeech_with_the_cpc_labels_and_splits(tmp_path):
    ids = [f"{speaker}-2-{number:04}" for speaker in (1, 3) for number in range(12)]
    libri(tmp_path, *ids, "9-9-0000")
    count = (8000 - 400) // 160 + 1
    labels = {id: ["7"] * 10 + ["40"] * (count - 10) for id in ids[:-1]}
    labels[ids[1]] = ["7"] * (count + 2)
    tree(
        tmp_path,
        "converted_aligned_phones.txt=" + "".join(f"{id} {' '.join(row)}\n" for id, row in labels.items()),
        "train_split.txt=" + "\n".join(ids[:20]) + "\n",
        "test_split.txt=" + "\n".join([*ids[20:], "8-8-0000"]) + "\n",
    )
    corpus = open_corpus(tmp_path)
    splits = found(corpus, "split")
    assert {id for id, split in splits.items() if split == "test"} == set(ids[20:])
    assert list(splits.values()).count("dev") == 2 and list(splits.values()).count("train") == 18
    assert splits == found(open_corpus(tmp_path), "split") and "9-9-0000" not in splits
    # Label k lies around 10 k + 12.5 ms.
    assert by_id(corpus)[ids[0]].alignment == ((0.0075, 0.1075, "7"), (0.1075, 0.0075 + count / 100, "40"))
    assert [by_id(corpus)[id].alignment for id in (ids[1], ids[-1])] == [None, None]
    texts = " ".join(each.text for each in corpus.refused)
    assert "1 utterances are in no split list and left out; move the lists away" in texts
    assert "1 of its 25 utterances have no audio" in texts
    assert f"converted_aligned_phones.txt:2: 50 labels of '{ids[1]}', expected 48 for its 8000 samples; take" in texts
    assert sides(corpus, "phone")[0] == "given" and sides(corpus, "label:speaker")[0] == "given"


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("converted_aligned_phones.txt", "1-2-0000 1 x\n", "phones.txt:1: '1-2-0000 1 x', expected an utterance's id"),
        ("converted_aligned_phones.txt", "1-2-0000 1\n1-2-0000 1\n", "phones.txt:2: '1-2-0000' stands twice"),
        ("train_split.txt", "1-2-0000\n1-2-0000\n", "train_split.txt:2: '1-2-0000' stands twice, expected one id"),
        ("train_split.txt", "1-2-0000 x\n", "train_split.txt:1: '1-2-0000 x', expected one id a line"),
        ("train_split.txt", "4-4-0000\n", "train_split.txt: none of its 1 utterances is below"),
    ],
)
def test_wrong_cpc_lists_are_named(tmp_path, file, content, says):
    libri(tmp_path, "1-2-0000")
    tree(tmp_path, f"{file}={content}")
    with pytest.raises(DataError) as caught:
        open_corpus(tmp_path)
    assert says in str(caught.value)


def sphere(path, coding="pcm", seconds=0.5):
    """Write NIST's header and samples, as TIMIT comes from its CD."""
    samples = np.random.default_rng(0).integers(-3000, 3000, round(16_000 * seconds)).astype("<i2")
    fields = {"sample_count": len(samples), "sample_rate": 16_000, "channel_count": 1, "sample_n_bytes": 2}
    head = "".join(f"{name} -i {value}\n" for name, value in fields.items())
    head += f"sample_byte_format -s2 01\nsample_sig_bits -i 16\nsample_coding -s{len(coding)} {coding}\nend_head\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"NIST_1A\n   1024\n{head}".encode().ljust(1024) + samples.tobytes())


def test_timit_as_it_comes(tmp_path):
    for place in ("TRAIN/DR1/FCJF0/SA1", "TRAIN/DR1/FCJF0/SX37", "TEST/DR1/MDAB0/SI1039", "TEST/DR1/MREB0/SX205"):
        sphere(tmp_path / f"{place}.WAV")
        tree(tmp_path, f"{place}.PHN=0 1600 h#\n1600 4000 ux\n4000 8000 q\n", f"{place}.WRD=1600 4000 you\n")
    corpus = open_corpus(tmp_path)
    assert found(corpus, "split", "speaker", "text") == {
        "test-dr1-mdab0-si1039": ("test", "mdab0", "you"),
        "test-dr1-mreb0-sx205": ("dev", "mreb0", "you"),
        "train-dr1-fcjf0-sx37": ("train", "fcjf0", "you"),
    }
    assert corpus.utterances[0].alignment == ((0.0, 0.1, "h#"), (0.1, 0.25, "ux"), (0.25, 0.5, "q"))
    assert (
        open_task("phone:48").names(corpus.utterances[0])
        == ("sil", "uw")
        == open_task("phone:39").names(corpus.utterances[0])
    )
    (refusal,) = corpus.refused
    assert refusal.kind == "protocol" and "1 sa sentences are left out, as every speaker says the same" in refusal.text
    assert sides(corpus, "phone")[0] == "given"
    sphere(tmp_path / "TRAIN/DR1/FCJF0/SX37.WAV", "pcm,embedded-shorten-v2.00")
    kinds = {each.id: each.kind for each in open_corpus(tmp_path).refused}
    assert kinds == {None: "protocol", "train-dr1-fcjf0-sx37": "format"}


FOLDS = "# names\nstandard_train_fold = ['a-1']\nstandard_valid_fold = ['b']\nstandard_test_fold = ['c']\n"


def test_mosei_scores_and_the_folds_of_the_sdk(tmp_path):
    tree(tmp_path / "Raw", *(f"Audio/Full/WAV_16000/{video}.wav" for video in ("a-1", "b", "c", "d")), seconds=4)
    tree(
        tmp_path / "Raw",
        "mosei_no_semi.csv=key,filename,start,end,sentiment,length\n"
        "k0,a-1,-0.4,1.5,0.6667,118\nk1,a-1,1.5,4.2,-0.05,118\nk2,b,0,2,0,158\nk3,c,1,2,-3.3,78\nk4,d,0,1,1,78\n"
        "k5,d,9,10,1,78\nk6,e,0,1,1,78\n",
        f"labels/cmu_mosei_std_folds.py={FOLDS}",
    )
    corpus = open_corpus(tmp_path / "Raw")
    assert found(corpus, "split", "speaker", "sentiment", "polarity", "score") == {
        "k0": ("train", "a-1", "positive", "nonnegative", "0.6667"),
        "k1": ("train", "a-1", None, "negative", "-0.05"),
        "k2": ("dev", "b", None, "nonnegative", "0"),
        "k3": ("test", "c", "negative", "negative", "-3.3"),
        "k4": (None, "d", "positive", "nonnegative", "1"),
    }
    assert [(each.start, each.seconds) for each in corpus.utterances[:2]] == [(0.0, 1.5), (1.5, 2.5)]
    assert {each.id: each.kind for each in corpus.refused} == {"k5": "range", "k6": "missing"}
    assert found(open_corpus(tmp_path / "Raw/mosei_no_semi.csv"), "sentiment") == found(corpus, "sentiment")
    (tmp_path / "Raw/labels/cmu_mosei_std_folds.py").write_text("standard_train_fold = [open('x')]")
    with pytest.raises(DataError, match=r"cmu_mosei_std_folds.py: no lists of videos \(ValueError\), expected the SDK"):
        open_corpus(tmp_path / "Raw")


def test_mosei_as_s3prl_lists_it(tmp_path):
    tree(tmp_path, "Segmented_Audio/train/-a_0.wav", "Segmented_Audio/test/b_1.wav", "Segmented_Audio/x/c_0.wav")
    head = ",file,index,start,end,label2a,label2b,label6,label7,split\n"
    rows = "0,-a,0,23.1,30.3,1,1,0,1,0\n1,b,1,82.7,100.5,0,-1,3,-2,2\n2,c,0,1,2,1,0,0,0,3\n"
    tree(tmp_path, f"CMU_MOSEI_Labels.csv={head}{rows}")
    corpus = open_corpus(tmp_path)
    assert found(corpus, "split", "sentiment", "polarity", "label6") == {
        "-a_0": ("train", "positive", "nonnegative", "0"),
        "b_1": ("test", "negative", "negative", "3"),
        "c_0": (None, None, "nonnegative", "0"),
    }
    assert all((each.start, each.seconds) == (0.0, 0.5) for each in corpus.utterances)
    tree(tmp_path, f"CMU_MOSEI_Labels.csv={head}0,-a,0,1,2,1,,0,1,0\n")
    with pytest.raises(DataError, match=r"Labels.csv:2: the label2b is None, expected a number, below 0 for negative"):
        open_corpus(tmp_path)


def test_a_list_is_moseis_by_its_name_too(tmp_path):
    tree(tmp_path, "a.wav", "list.csv=path,file,start,end,sentiment\na.wav,a.wav,0.1,0.3,glad\n")
    (one,) = open_corpus(tmp_path / "list.csv").utterances
    assert (one.start, one.label("sentiment"), one.label("file")) == (0.1, "glad", "a.wav")
    assert open_corpus(tmp_path).utterances[0].id == "a"


def test_asvspoof(tmp_path):
    place = "LA/ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm"
    tree(
        tmp_path,
        "LA/ASVspoof2019_LA_train/flac/LA_T_1.flac",
        "LA/ASVspoof2019_LA_train/flac/LA_T_2.flac",
        "LA/ASVspoof2019_LA_dev/flac/LA_D_1.flac",
        f"{place}.train.trn.txt=LA_79 LA_T_1 - - bonafide\nLA_79 LA_T_2 - A01 spoof\nLA_79 ../LA_T_2 - A01 spoof\n",
        f"{place}.dev.trl.txt=LA_70 LA_D_1 - A06 spoof\n",
        f"{place}.eval.trl.txt=LA_1 LA_E_1 - A07 spoof\n",
    )
    corpus = open_corpus(tmp_path)
    assert found(corpus, "split", "speaker", "spoof", "attack") == {
        "LA_D_1": ("dev", "LA_70", "spoof", "A06"),
        "LA_T_1": ("train", "LA_79", "bonafide", None),
        "LA_T_2": ("train", "LA_79", "spoof", "A01"),
    }
    texts = [each.text for each in corpus.refused]
    assert "eval.trl.txt: none of its 1 files is below" in texts[0]
    assert texts[0].endswith("; unpack that part too, if it is wanted")
    assert "train.trn.txt:3: no audio file is named '../LA_T_2', expected one below" in texts[1]
    tree(tmp_path, f"{place}.dev.trl.txt=LA_70 LA_D_1 - A06 bonafide\n")
    with pytest.raises(DataError, match=r"dev.trl.txt:1: 'LA_70 LA_D_1 - A06 bonafide', expected 'speaker file - sys"):
        open_corpus(tmp_path)


def test_voxceleb(tmp_path):
    files = ("vox1_dev_wav/wav/id10001/1zcIwhmdeo4/00001", "vox1_dev_wav/wav/id10001/1zcIwhmdeo4/00002")
    tree(tmp_path, *(f"{file}.wav" for file in files), "vox1_test_wav/wav/id10270/5r0dWxy17C8/00001.wav")
    assert found(open_corpus(tmp_path), "speaker", "split", "video") == {
        "id10001/1zcIwhmdeo4/00001": ("id10001", "train", "1zcIwhmdeo4"),
        "id10001/1zcIwhmdeo4/00002": ("id10001", "train", "1zcIwhmdeo4"),
        "id10270/5r0dWxy17C8/00001": ("id10270", "test", "5r0dWxy17C8"),
    }
    listed = "3 id10001/1zcIwhmdeo4/00001.wav\n2 id10270/5r0dWxy17C8/00001.wav\n"
    tree(tmp_path, f"iden_split.txt={listed}")
    assert list(found(open_corpus(tmp_path), "split").values()) == ["test", None, "dev"]
    tree(tmp_path, f"iden_split.txt={listed}4 id10001/1zcIwhmdeo4/00001.wav\n")
    with pytest.raises(DataError, match=r"iden_split.txt:3: '4 id10001/1z.*expected a split's number \(1, 2, 3\)"):
        open_corpus(tmp_path)


def test_kaldi(tmp_path):
    tree(tmp_path, "wav/talk one.wav", "wav/b.wav", seconds=2)
    tree(
        tmp_path / "data",
        "train/wav.scp=talk wav/talk one.wav\n",  # from where the recipe ran
        "train/segments=ann-1 talk 0.5 1.25\nann-2 talk 1.25 -1\nann-3 talk 1.9 2.3\n",
        "train/text=ann-1 HELLO THERE\nann-2\n",
        "train/utt2spk=ann-1 ann\nann-2 ann\nann-3 ann\n",
        "train/spk2gender=ann F\n",
        f"test_clean/wav.scp=b {tmp_path}/wav/b.wav\n",
    )
    corpus = open_corpus(tmp_path / "data")
    assert found(corpus, "split", "speaker", "text", "gender") == {
        "ann-1": ("train", "ann", "HELLO THERE", "f"),
        "ann-2": ("train", "ann", None, "f"),
        "ann-3": ("train", "ann", None, "f"),
        "b": ("test_clean", None, None, None),
    }
    times = [(each.start, round(each.seconds, 6)) for each in corpus.utterances]
    assert times == [(0.0, 2.0), (0.5, 0.75), (1.25, 0.75), (1.9, 0.1)]
    one = found(open_corpus(tmp_path / "data/train"), "split")
    assert one == found(open_corpus(tmp_path / "data/train/wav.scp"), "split") == dict.fromkeys(one)


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("wav.scp", "a sph2pipe -f wav a.sph |\n", "wav.scp:1: path 'sph2pipe -f wav a.sph |' is a URL or a command"),
        ("wav.scp", "a a.wav\na a.wav\n", "wav.scp:2: 'a' stands already on another line"),
        ("wav.scp", "a\n", "wav.scp:1: 'a' alone, expected an id and a path"),
        ("segments", "u b 0 1\n", "segments:1: 'u b 0 1', expected 'utterance recording start end'"),
        ("segments", "u a 0 x\n", "segments:1: the end is 'x', expected seconds, a finite number"),
        ("segments", "u a 0.4 0.2\n", "segments:1: the end is 0.2 s, expected more than the start (0.4 s)"),
        ("segments", "u a -1 0.2\n", "segments:1: the start is '-1', expected seconds, 0 or more"),
        (
            "wav.scp",
            "a none.wav\n",
            "wav.scp: none of its 1 files can be used, expected at least one; the first says: ",
        ),
    ],
)
def test_wrong_kaldi_lists_are_named(tmp_path, file, content, says):
    tree(tmp_path, "a.wav", "wav.scp=a a.wav\n")
    tree(tmp_path, f"{file}={content}")
    with pytest.raises(DataError) as caught:
        open_corpus(tmp_path)
    assert says in str(caught.value)


def test_audio_folders(tmp_path):
    tree(tmp_path / "one", "x/a.wav", "b.wav")
    tree(tmp_path / "one", "metadata.jsonl=" + lines(
        {"file_name": "x/a.wav", "transcription": "hi", "emotion": "joy", "speaker_id": 3, "objects": {"no": 1}},
        {"file_name": "b.wav", "text": "you", "noisy": True, "path": "mine"},
    ))  # fmt: skip
    assert found(open_corpus(tmp_path / "one"), "text", "speaker", "emotion", "noisy", "path") == {
        "x/a": ("hi", "3", "joy", None, None),
        "b": ("you", None, None, "true", None),
    }
    tree(tmp_path / "two", "train/1.wav", "test/1.wav", "train/metadata.csv=file_name,label\n1.wav,yes\n")
    tree(tmp_path / "two", 'test/metadata.jsonl={"file_name": "1.wav", "label": "no"}\n')
    assert found(open_corpus(tmp_path / "two"), "split", "label") == {
        "test/1": ("test", "no"),
        "train/1": ("train", "yes"),
    }
    assert found(open_corpus(tmp_path / "one/metadata.jsonl"), "text") == {"x/a": "hi", "b": "you"}


def test_fairseq(tmp_path):
    tree(tmp_path, "audio/s/a.wav", "audio/s/b.wav", "audio/c.wav")
    tree(
        tmp_path / "lists",
        "train.tsv=../audio\ns/a.wav\t8000\ns/b.wav\t8000\n",
        "train.ltr=H I | Y O U |\n\n",
        "train.km=3 3 17\n4\n",
        "train.phn=hh ay\n\n",
        f"valid.tsv={tmp_path}/audio\nc.wav\t8000\n",
        "valid.ltr=N O |\n",
        "valid.wrd=no\n",
        "dict.ltr.txt=H 1\n",
    )
    expected = {
        "s/a": ("train", "HI YOU", "hh ay", "3 3 17"),
        "s/b": ("train", None, None, "4"),
        "c": ("valid", "no", None, None),
    }
    assert found(open_corpus(tmp_path / "lists"), "split", "text", "phones", "units") == expected
    assert found(open_corpus(tmp_path / "lists/train.tsv"), "text") == {"s/a": "HI YOU", "s/b": None}
    tree(tmp_path / "lists", "train.km=3\n")
    with pytest.raises(DataError, match=r"train.km: 1 lines for the 2 files of .*train.tsv, expected one each; make"):
        open_corpus(tmp_path / "lists")
    tree(tmp_path / "lists", "train.km=3\n4\n", "train.tsv=../audio\ns/a.wav\t8000\ns/b.wav\n")
    with pytest.raises(DataError, match=r"train.tsv:3: 's/b.wav', expected a path, a tab and a number of samples"):
        open_corpus(tmp_path / "lists")
    tree(tmp_path / "gone", "x.tsv=/nowhere\na.wav\t8000\n")
    with pytest.raises(DataError, match=r"x.tsv: none of its 1 files can be used.*nowhere/a.wav: no such file"):
        open_corpus(tmp_path / "gone/x.tsv")


def test_nemo(tmp_path):
    tree(tmp_path, "wav/a.wav", "wav/b.wav")
    first = {"audio_filepath": "wav/a.wav", "duration": 0.5, "text": "hi", "speaker": "ann", "lang": "en"}
    rows = [first, {"audio_filepath": "wav/b.wav", "offset": 0.1, "duration": 0.2}]
    tree(tmp_path, f"train_manifest.json={lines(*rows)}")
    (tmp_path / "val_manifest.jsonl.gz").write_bytes(gzip.compress(lines({**first, "id": "again"}).encode()))
    corpus = open_corpus(tmp_path)
    assert found(corpus, "split", "text", "speaker", "lang") == {
        "wav/a": ("train", "hi", "ann", "en"),
        "wav/b@0.1": ("train", None, None, None),
        "again": ("val", "hi", "ann", "en"),
    }
    assert [(each.start, round(each.seconds, 6)) for each in corpus.utterances] == [(0.0, 0.5), (0.1, 0.2), (0.0, 0.5)]
    assert len(open_corpus(tmp_path / "train_manifest.json").utterances) == 2
    for wrong, says in {
        '{"audio_filepath": ""}': "key 'audio_filepath' is missing or empty, expected a text",
        '{"audio_filepath": "s3://x/a.wav"}': "path 's3://x/a.wav' is a URL or a command",
        '{"audio_filepath": "a\\ud800.wav"}': "is no text, expected a file's path",
        '{"audio_filepath": "wav/b.wav", "duration": "x"}': "the duration is 'x', expected seconds, 0 or more",
        '{"audio_filepath": "wav/b.wav", "text": []}': "key 'text' is [], expected a text or null",
        "{": "not JSON at column 2",
    }.items():
        tree(tmp_path, f"train_manifest.json={lines(first)}{wrong}\n")
        with pytest.raises(DataError) as caught:
            open_corpus(tmp_path / "train_manifest.json")
        assert "train_manifest.json:2: " in str(caught.value) and says in str(caught.value)
    (tmp_path / "val_manifest.jsonl.gz").write_bytes(gzip.compress(lines(first).encode())[:-9])
    with pytest.raises(DataError, match=r"val_manifest.jsonl.gz: .*expected a corpus"):
        open_corpus(tmp_path / "val_manifest.jsonl.gz")


def recording(name, **more):
    source = {"type": "file", "channels": [0], "source": f"wav/{name}.wav"}
    return {"id": name, "sources": [source], "sampling_rate": 16_000, "num_samples": 8000, "duration": 0.5, **more}


def supervision(id, recording, start, duration, **more):
    return {"id": id, "recording_id": recording, "start": start, "duration": duration, "channel": 0, **more}


def test_lhotse_recordings_and_supervisions(tmp_path):
    tree(tmp_path, "wav/a.wav", "wav/b.wav")
    manifests = tmp_path / "data/manifests"
    manifests.mkdir(parents=True)
    phone = {"phone": [["AA", 0.1, 0.1, None], ["B", 0.2, 0.2, 0.9]], "word": [["x", 0, 1, None]]}
    said = [
        supervision("a-1", "a", 0.1, 0.3, text="ab", speaker="s", gender="f", custom={"mood": "x"}, alignment=phone)
    ]
    rows = {"recordings": [recording("a"), recording("b")], "supervisions": [*said, supervision("a-2", "a", 0.4, 0.1)]}
    for kind, each in rows.items():
        (manifests / f"x_{kind}_dev-clean.jsonl.gz").write_bytes(gzip.compress(lines(*each).encode()))
    corpus = open_corpus(manifests)
    assert found(corpus, "split", "text", "speaker", "gender", "mood") == {
        "a-1": ("dev-clean", "ab", "s", "f", "x"),
        "a-2": ("dev-clean", None, None, None, None),
        "b": ("dev-clean", None, None, None, None),
    }
    assert corpus.utterances[0].alignment == ((0.0, 0.1, "AA"), (0.1, 0.3, "B"))
    assert open_corpus(manifests / "x_supervisions_dev-clean.jsonl.gz").utterances == corpus.utterances


def test_lhotse_cuts(tmp_path):
    tree(tmp_path, "wav/a.wav")
    said = [supervision("s1", "a", 0.05, 0.1, text="one"), supervision("s2", "a", 0.2, 0.1, text="two")]
    cut = {"type": "MonoCut", "id": "c", "start": 0.1, "duration": 0.3, "channel": 0, "recording": recording("a")}
    tree(tmp_path, "cuts_train.jsonl=" + lines(
        {**cut, "supervisions": said}, {**cut, "id": "d", "supervisions": said[:1]}, {**cut, "id": "e"}
    ))  # fmt: skip
    corpus = open_corpus(tmp_path)
    found_ = {each.id: (round(each.start, 6), round(each.seconds, 6), each.text) for each in corpus.utterances}
    assert found_ == {"s1": (0.15, 0.1, "one"), "s2": (0.3, 0.1, "two"), "d": (0.1, 0.3, "one"), "e": (0.1, 0.3, None)}
    assert {each.split for each in corpus.utterances} == {"train"}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"recording": recording("a", sources=[{"type": "command", "source": "rm x"}])}, "of type 'command', which is"),
        ({"recording": recording("a", sources=[{"type": "url", "source": "http://x"}])}, "of type 'url', which is not"),
        ({"recording": recording("a", sources=[])}, "no single source, expected a recording of one file"),
        ({"recording": recording("a", transforms=[{"name": "Speed"}])}, "changed on the fly"),
        ({"recording": recording("a", channel_ids=[0, 1])}, "channel 0 of [0, 1], expected all that the recording has"),
        ({"tracks": [{}], "type": "MixedCut"}, "a MixedCut without a recording of its own"),
        ({"recording": recording("a"), "start": -1}, "the start is -1, expected seconds, 0 or more"),
        ({"recording": recording("a"), "supervisions": [3]}, "the supervisions are [3], expected objects"),
        (
            {
                "recording": recording("a"),
                "supervisions": [supervision("s", "a", 0, 1, alignment={"phone": [["A", 0]]})],
            },
            "alignment holds ['A', 0], expected [phone, start, duration]",
        ),
    ],
)
def test_what_lhotse_asks_beyond_a_file_is_refused_by_name(tmp_path, row, says):
    tree(tmp_path, "wav/a.wav")
    tree(
        tmp_path,
        "cuts.jsonl=" + lines({"type": "MonoCut", "id": "c", "start": 0, "duration": 0.3, "channel": 0, **row}),
    )
    with pytest.raises(DataError) as caught:
        open_corpus(tmp_path)
    assert "cuts.jsonl:1: " in str(caught.value) and says in str(caught.value) and "; " in str(caught.value)


def spoken(tmp_path):
    """A corpus with everything that a list may have to say."""
    tree(tmp_path, "a.wav", "b.wav")
    soundfile.write(tmp_path / "c.wav", np.random.default_rng(0).uniform(-0.1, 0.1, (4000, 2)), 8_000)
    rows = [
        {"id": "ann-1", "path": "a.wav", "duration_s": 0.2, "start_s": 0.1, "speaker": "ann", "text": "HI YOU"},
        {"id": "ann-2", "path": "a.wav", "duration_s": 0.2, "start_s": 0.3, "speaker": "ann", "gender": "f"},
        {"id": "bob-1", "path": "b.wav", "duration_s": 0.5, "speaker": "bob", "mood": "gay", "gender": "m"},
        {"id": "z", "path": "c.wav", "duration_s": 0.5},
    ]
    for row in rows[:3]:
        row["split"] = "train" if row["speaker"] == "ann" else "test"
    rows[0]["alignment"] = [[0.0, 0.05, "HH"], [0.05, 0.2, "AY1"]]
    (tmp_path / "manifest.jsonl").write_text(lines(*rows))
    return open_corpus(tmp_path)


def test_what_is_exported_is_read_back(tmp_path):
    corpus = spoken(tmp_path)
    for to, kept in {"lhotse": ("mood", "alignment"), "nemo": ("mood",), "kaldi": ()}.items():
        export(corpus, to, tmp_path / to)
        again = by_id(open_corpus(tmp_path / to))
        assert again.keys() == by_id(corpus).keys()
        for each in corpus.utterances:
            read = again[each.id]
            assert (read.path, read.text, read.speaker) == (each.path, each.text, each.speaker)
            assert to == "kaldi" or read.label("gender") == each.label("gender")
            assert (read.start, read.seconds) == pytest.approx((each.start, each.seconds), abs=1e-6)
            assert read.split == (each.split or ("rest" if to == "kaldi" else None))
            assert read.label("mood") == (each.label("mood") if "mood" in kept else None)
            assert (read.alignment is not None) == (each.alignment is not None and "alignment" in kept)
    assert by_id(open_corpus(tmp_path / "lhotse"))["ann-1"].alignment == ((0.0, 0.05, "HH"), (0.05, 0.2, "AY1"))
    assert (tmp_path / "kaldi/train/segments").read_text().startswith("ann-1 a 0.100000 0.300000\nann-2 a 0.3")
    assert not (tmp_path / "kaldi/test/segments").exists()
    assert (tmp_path / "kaldi/test/spk2gender").read_text() == "bob m\n"
    write_manifest(tmp_path / "again.jsonl", open_corpus(tmp_path / "nemo").utterances)
    assert len(read_manifest(tmp_path / "again.jsonl").utterances) == 4


def test_exports_that_cannot_be(tmp_path):
    tree(tmp_path, "a.wav")
    (tmp_path / "manifest.jsonl").write_text(lines({"id": "a b", "path": "a.wav", "duration_s": 0.5}))
    with pytest.raises(DataError, match=r"wav.scp: 'a b' holds a space or a line's end, which Kaldi's lists cannot"):
        export(open_corpus(tmp_path), "kaldi", tmp_path / "kaldi")
    np.save(tmp_path / "a.npy", np.zeros((50, 40), np.float32))
    (tmp_path / "manifest.jsonl").write_text(lines({"id": "a", "path": "a.npy", "duration_s": 0.5}))
    with pytest.raises(DataError, match=r"a.npy: features, expected sound; export the corpus they were made of"):
        export(open_corpus(tmp_path), "nemo", tmp_path / "nemo")


def test_an_export_over_another_is_read_as_itself(tmp_path):
    tree(tmp_path, "a.wav")
    for row in ({"id": "x", "duration_s": 0.2, "start_s": 0.1}, {"id": "a", "duration_s": 0.5}):
        (tmp_path / "manifest.jsonl").write_text(lines({**row, "path": "a.wav"}))
        export(open_corpus(tmp_path), "kaldi", tmp_path / "kaldi")
        (one,) = open_corpus(tmp_path / "kaldi").utterances
        assert one.id == row["id"]
        assert (one.start, one.seconds) == pytest.approx((row.get("start_s", 0.0), row["duration_s"]), abs=1e-6)


def test_what_an_export_says_no_more_is_not_read(tmp_path):
    tree(tmp_path, "a.wav")
    row = {"id": "ann-1", "path": "a.wav", "duration_s": 0.5, "speaker": "ann"}
    for more in ({"text": "HI", "gender": "f"}, {}):
        (tmp_path / "manifest.jsonl").write_text(lines({**row, **more}))
        export(open_corpus(tmp_path), "kaldi", tmp_path / "kaldi")
        (one,) = open_corpus(tmp_path / "kaldi").utterances
        assert (one.text, one.label("gender")) == (more.get("text"), more.get("gender"))


def test_the_command_exports(tmp_path):
    spoken(tmp_path)
    said = works("corpus", "export", tmp_path, "--to", "lhotse", "--out", tmp_path / "out")
    assert said.split() == [str(tmp_path / "out" / f"{name}.jsonl") for name in ("recordings", "supervisions")]


@pytest.mark.parametrize(
    ("split", "what"),
    [
        ("train-clean-100", "train"),
        ("dev_other", "dev"),
        ("eval92", "test"),
        ("val", "dev"),
        ("testbed", None),
        ("testimonies", None),
        ("testset2", "test"),
        ("training", "train"),
        (None, None),
    ],
)
def test_roles_of_splits(split, what):
    assert role(split) == what
