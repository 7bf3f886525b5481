import json
import math
import os
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mockingjay.core.draw import address
from mockingjay.core.errors import ConfigError, DataError
from mockingjay.core.types import Utterance
from mockingjay.data.manifest import read_manifest, select, write_manifest
from mockingjay.data.quarantine import Quarantine, Refusal
from mockingjay.data.splits import fraction, split

LINE = {"id": "a", "path": "audio/a.wav", "duration_s": 1.5}


def manifest(tmp_path, *lines):
    path = tmp_path / "manifest.jsonl"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def corpus(speakers=12, each=5):
    return tuple(
        Utterance(
            f"{s}-{u}", f"/x/{s}-{u}.wav", 1.0 + (s * 7 + u * 3) % 11, speaker=f"s{s}", labels={"emotion": "ab"[u % 2]}
        )
        for s in range(speakers)
        for u in range(each)
    )


def test_a_line_becomes_an_utterance(tmp_path):
    line = {
        **LINE,
        "start_s": 2,
        "speaker": 103,
        "split": "train",
        "text": "Guten Täg",
        "alignment": [[0, 0.5, "a"], [0.5, 1.5, "b"]],
        "age": 6,
        "score": -1.5,
        "noisy": True,
        "attack": None,
        "emotion": "joy",
        "phones": [["A"]],
        "words": {"x": 1},
    }
    found = read_manifest(manifest(tmp_path, "\ufeff" + json.dumps(line) + "\r\n", "\n", {**LINE, "id": "b"}))
    assert found.name == tmp_path.name and found.seconds == 3.0 and found.speakers == ("103",)
    labels = {"age": "6", "score": "-1.5", "noisy": "true", "emotion": "joy"}
    alignment = ((0.0, 0.5, "a"), (0.5, 1.5, "b"))
    path = str(tmp_path / "audio/a.wav")
    assert found.utterances[0] == Utterance("a", path, 1.5, 2.0, "103", "train", "Guten Täg", labels, alignment)
    assert found.utterances[1] == Utterance("b", path, 1.5)


def test_paths_may_be_absolute_or_lead_to_a_sibling(tmp_path):
    lines = [{**LINE, "id": "b", "path": "/data/x.wav"}, {**LINE, "path": "../other/x.wav"}]
    found = read_manifest(manifest(tmp_path, *lines))
    assert [utterance.path for utterance in found.utterances] == ["/data/x.wav", str(tmp_path.parent / "other/x.wav")]


def test_an_empty_speaker_is_nobody(tmp_path):
    (utterance,) = read_manifest(manifest(tmp_path, {**LINE, "speaker": "", "split": "", "text": ""})).utterances
    assert (utterance.speaker, utterance.split, utterance.text) == (None, None, "")


def test_a_corpus_whose_name_is_not_utf8_can_be_printed(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    assert read_manifest(manifest(folder, LINE)).name == "caf\\xe9"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON at column 2"),
        ('{"id": "a",}', "not JSON at column 12"),
        ('{"id": "a", "id": "b"}', "key 'id' stands twice, expected once; remove"),
        ('{"id": "a", "path": "x", "duration_s": NaN}', "holds NaN, expected finite numbers; use null"),
        ('{"id": "a", "path": "x", "duration_s": 1e999}', "key 'duration_s' is inf, expected seconds"),
        ('{"id": "a", "path": "x", "duration_s": 1, "snr": 1e999}', "key 'snr' is inf, expected a finite number"),
        ("[" * 100_000, "nested too deeply"),
        ("3", "is a int, expected an object"),
        ({"path": "x", "duration_s": 1}, "key 'id' is missing, expected a text; mend"),
        ({**LINE, "id": ""}, "key 'id' is '', expected a text"),
        ({**LINE, "id": 3}, "key 'id' is 3, expected a text"),
        ({**LINE, "id": "a\nb"}, "holds control characters"),
        ({"id": "a", "duration_s": 1}, "key 'path' is missing"),
        ({"id": "a", "path": "x"}, "duration_s is None, expected the length in seconds; measure it"),
        ({**LINE, "duration_s": 0}, "duration_s is 0.0, expected the length"),
        ({**LINE, "duration_s": "1"}, "key 'duration_s' is '1', expected seconds"),
        ({**LINE, "duration_s": True}, "key 'duration_s' is True"),
        ({**LINE, "start_s": -1}, "key 'start_s' is -1"),
        ({**LINE, "speaker": 1.5}, "key 'speaker' is 1.5, expected a text or null"),
        ({**LINE, "text": ["a"]}, "key 'text' is ['a']"),
        (
            {**LINE, "path": "https://x/y.wav"},
            "is a URL or a command, expected a file's path; nothing is fetched or run",
        ),
        ({**LINE, "path": "sox x.wav - |"}, "is a URL or a command"),
        ({**LINE, "path": "pipe:rm -rf x"}, "is a URL or a command"),
        ({**LINE, "path": "a\0b"}, "is a URL or a command"),
        ({**LINE, "alignment": "a b"}, "key 'alignment' is 'a b', expected [[start, end, phone]"),
        ({**LINE, "alignment": [[0, 1]]}, "alignment holds [0, 1], expected [start, end, phone]"),
        ({**LINE, "alignment": [[1, 0, "a"]]}, "alignment holds [1, 0, 'a']"),
        ({**LINE, "alignment": [[1, 2, "a"], [0, 1, "b"]]}, "in seconds, in order"),
    ],
)
def test_wrong_lines_are_named(tmp_path, line, says):
    path = manifest(tmp_path, {**LINE, "id": "first"}, line)
    with pytest.raises(DataError) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(f"{path}:2: ") and says in str(caught.value) and "; " in str(caught.value)


def test_repeated_ids_are_counted(tmp_path):
    path = manifest(tmp_path, LINE, {**LINE, "id": "b"}, LINE, LINE)
    with pytest.raises(DataError, match=r":3: id 'a' stands already on line 1 \(2 lines repeat an id: 'a', 'a'\)"):
        read_manifest(path)


def test_files_that_are_no_manifest(tmp_path):
    with pytest.raises(DataError, match="holds no utterances"):
        read_manifest(manifest(tmp_path, "\n"))
    with pytest.raises(DataError, match="No such file"):
        read_manifest(tmp_path / "none.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "a"}\n{"id": "\xe9"}\n'[12:])
    with pytest.raises(DataError, match=r"latin.jsonl:1: not UTF-8 \(byte 0xe9 at column 9\)"):
        read_manifest(tmp_path / "latin.jsonl")


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8)
names = words.filter(lambda name: name.strip() == name and name not in (".", "..") and not set("/|:") & set(name))
seconds = st.floats(1e-3, 1e6)
own = {"id", "path", "duration_s", "start_s", "speaker", "split", "text", "alignment"}


@st.composite
def fields(draw):  # the utterances are built in the test: beartype draws numbers of its own
    times = sorted(draw(st.lists(st.floats(0, 100), min_size=2, max_size=6)))
    return dict(  # noqa: C408
        id=draw(words),
        path="/corpus/" + draw(names),
        seconds=draw(seconds),
        start=draw(st.just(0.0) | seconds),
        speaker=draw(st.none() | words),
        split=draw(st.none() | words),
        text=draw(st.none() | st.text(st.characters(codec="utf-8"))),
        labels=draw(st.dictionaries(words.filter(lambda key: key not in own), st.text(st.characters(codec="utf-8")))),
        alignment=draw(st.none() | st.just(tuple((a, b, "p") for a, b in pairwise(times)))),
    )


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(fields(), min_size=1, max_size=4, unique_by=lambda row: row["id"]))
def test_writing_and_reading_is_the_identity(tmp_path_factory, rows):
    rows = [Utterance(**row) for row in rows]
    path = tmp_path_factory.mktemp("m") / "manifest.jsonl"
    write_manifest(path, rows)
    assert read_manifest(path).utterances == tuple(rows)
    assert [entry.name for entry in path.parent.iterdir()] == ["manifest.jsonl"]


def test_paths_below_the_manifest_are_written_relative(tmp_path):
    inside = str(tmp_path / "audio" / "a.wav")
    odd = str(tmp_path / "b\udcff.wav")
    write_manifest(tmp_path / "m.jsonl", [Utterance("a", inside, 1.0), Utterance("b", odd, 1.0)])
    assert json.loads((tmp_path / "m.jsonl").read_text().splitlines()[0])["path"] == "audio/a.wav"
    assert [utterance.path for utterance in read_manifest(tmp_path / "m.jsonl").utterances] == [inside, odd]


def test_a_manifest_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((tmp_path / "m.jsonl").exists()) or fsync(file))
    write_manifest(tmp_path / "m.jsonl", [Utterance("a", "/a.wav", 1.0)])
    assert synced == [False, True]  # the file, then the folder


def test_select():
    assert len(select(corpus(), {"speaker": "s3"})) == 5
    assert len(select(corpus(), {"speaker": "s3", "emotion": "a"})) == 3
    with pytest.raises(DataError, match="speaker=x: no utterance has it, expected one of: s0, s1, s10"):
        select(corpus(), {"speaker": "x"})
    with pytest.raises(DataError, match="colour=red: no utterance has it, expected one of: no values at all"):
        select(corpus(), {"colour": "red"})


@settings(max_examples=60, deadline=None)
@given(speakers=st.integers(3, 40), each=st.integers(1, 6), seed=st.integers(0, 999), test=st.floats(0.05, 0.4))
def test_splits_are_disjoint_whole_balanced_and_independent_of_order(speakers, each, seed, test):
    rows = corpus(speakers, each)
    shares = {"train": 1 - test - 0.05, "dev": 0.05, "test": test}
    parts = split(rows, shares, seed)
    assert list(parts) == ["train", "dev", "test"] and all(parts.values())
    assert sorted(u.id for part in parts.values() for u in part) == sorted(u.id for u in rows)
    owners = [{u.speaker for u in part} for part in parts.values()]
    assert sum(map(len, owners)) == len(set().union(*owners))
    total = sum(u.seconds for u in rows)
    largest = max(sum(u.seconds for u in rows if u.speaker == s) for s in {u.speaker for u in rows})
    for name, part in parts.items():
        assert abs(sum(u.seconds for u in part) - shares[name] * total) <= 2 * largest
    turned = split(rows[::-1], shares, seed)
    assert {name: {u.id for u in part} for name, part in parts.items()} == {
        n: {u.id for u in p} for n, p in turned.items()
    }


def test_splits_by_utterance_are_close_to_their_shares_and_change_with_the_seed():
    rows = corpus(40, 20)
    parts = split(rows, {"a": 0.9, "b": 0.1}, 0, by="utterance")
    assert abs(sum(u.seconds for u in parts["b"]) / sum(u.seconds for u in rows) - 0.1) < 0.001
    assert parts["b"] == tuple(u for u in rows if u in parts["b"])
    assert parts["b"] != split(rows, {"a": 0.9, "b": 0.1}, 1, by="utterance")["b"]
    chosen = [split(rows, {"a": 0.9, "b": 0.1}, seed)["b"][0].speaker for seed in range(20)]
    assert len(set(chosen)) > 5


def test_the_first_group_is_drawn_by_its_name_alone():
    """Another order would be another division of every corpus that has been divided."""
    rows = corpus()
    for seed in range(20):
        speaker = min({u.speaker for u in rows}, key=lambda name: address(seed, "split", name))
        one = min(rows, key=lambda u: address(seed, "split", u.id))
        shares = {"a": 0.6, "b": 0.4}  # the first goes where most is lacking
        assert speaker in {u.speaker for u in split(rows, shares, seed)["a"]}
        assert one in split(rows, shares, seed, by="utterance")["a"]


def test_an_utterance_without_a_speaker_goes_by_itself():
    strays = tuple(Utterance(f"s{number}", f"/x/s{number}.wav", 3.0) for number in range(12))  # called as speakers are
    rows, joined = (*corpus(), *strays), []
    for seed in range(5):
        parts = split(rows, {"a": 0.6, "b": 0.4}, seed)
        assert sorted(u.id for part in parts.values() for u in part) == sorted(u.id for u in rows)
        owners = [{u.speaker for u in part} - {None} for part in parts.values()]
        assert not owners[0] & owners[1] and len(owners[0] | owners[1]) == 12
        joined += [(stray in parts["a"]) == (stray.id in owners[0]) for stray in strays]
        assert {u.id for u in parts["a"]} == {u.id for u in split(rows[::-1], {"a": 0.6, "b": 0.4}, seed)["a"]}
    assert 0.2 < sum(joined) / len(joined) < 0.8


def test_no_part_is_of_utterances_without_a_speaker_alone():
    strays = tuple(Utterance(f"stray {number}", "/x", 0.5) for number in range(3))
    for seed in range(20):
        parts = split((*corpus(3), *strays), {"train": 0.8, "dev": 0.1, "test": 0.1}, seed)
        assert all(len({u.speaker for u in part} - {None}) == 1 for part in parts.values())


def test_splits_that_cannot_be():
    with pytest.raises(DataError, match="split: 2 speakers for 3 parts"):
        split(corpus(2), {"a": 0.4, "b": 0.3, "c": 0.3}, 0)
    strays = tuple(Utterance(f"stray {number}", "/x", 1.0) for number in range(9))
    with pytest.raises(DataError, match="split: 2 speakers for 3 parts"):
        split((*corpus(2), *strays), {"a": 0.4, "b": 0.3, "c": 0.3}, 0)
    with pytest.raises(DataError, match=r"split: 0 speakers for 1 parts \(a\), expected .* or split by utterance"):
        split(strays, {"a": 1.0}, 0)
    for shares in ({}, {"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": math.nan}):
        with pytest.raises(ConfigError, match="expected positive numbers that sum to 1"):
            split(corpus(), shares, 0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 99),
    shares=st.lists(st.floats(0.001, 1), min_size=2, max_size=5),
    column=st.sampled_from([None, "emotion"]),
)
def test_fractions_lie_inside_each_other(seed, shares, column):
    rows = corpus()
    total = sum(u.seconds for u in rows)
    before = ()
    for share in sorted(shares):
        part = fraction(rows, share, seed, column)
        assert {u.id for u in before} <= {u.id for u in part}
        assert share * total * (1 - 1e-6) <= sum(u.seconds for u in part) <= share * total + 2 * 11
        assert {u.id for u in part} == {u.id for u in fraction(rows[::-1], share, seed, column)}
        if column:
            assert {u.label(column) for u in part} == {"a", "b"}
        before = part
    assert fraction(rows, 1.0, seed, column) == rows


def test_shares_outside_the_range_are_refused():
    for share in (0.0, 1.1, math.nan):
        with pytest.raises(ConfigError, match="expected more than 0 and at most 1"):
            fraction(corpus(), share, 0)


def refusal(name, kind="empty"):
    return Refusal(f"/x/{name}", kind, f"/x/{name}: empty; remove it", "remove it", id=name)


def test_quarantine_names_each_file_once_and_survives_a_restart(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    kept = Quarantine(path)
    for name in ("a", "b", "a"):
        kept.add(refusal(name))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["path"] for row in rows] == ["/x/a", "/x/b"]
    assert rows[0].keys() == {"path", "id", "class", "text", "first_seen"} and rows[0]["first_seen"].endswith("+00:00")
    with path.open("a") as file:
        file.write('{"path": "/x/to')
    again = Quarantine(path)
    again.add(refusal("a"))
    assert len(again) == 2 and "a" in again and "c" not in again


def test_quarantine_has_a_budget_and_always_room_for_one():
    kept = Quarantine(budget=0.01)
    kept.check(0)
    kept.add(refusal("a"))
    kept.check(10)
    kept.add(refusal("b"))
    kept.check(200)
    with pytest.raises(DataError) as caught:
        kept.check(199)
    assert str(caught.value) == (
        "quarantine: 2 of 199 files cannot be used, expected at most 1 (1.0%); "
        "mend or remove them, or in pre-training allow more by upkeep.refused; "
        "the first are: /x/a: empty; remove it | /x/b: empty; remove it"
    )
