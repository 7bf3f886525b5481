import csv
import shutil

import numpy as np
import pytest
from praatio import textgrid as praat
from praatio.data_classes.interval_tier import IntervalTier

from mockingjay.core.errors import DataError
from mockingjay.core.types import Grid
from mockingjay.data.alignments import fold, read_ctm, read_lab, read_phn, read_textgrid
from mockingjay.data.corpora import open_corpus
from mockingjay.data.phones import (
    ARPABET_41_TO_39,
    ARPABET_72,
    ARPABET_72_TO_41,
    FOLDINGS,
    TIMIT_48_TO_39,
    TIMIT_61_TO_39,
    TIMIT_61_TO_48,
)
from mockingjay.downstream import open_task

GRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1
tiers? <exists>
size = {size}
item []:
{tiers}"""


def tier(index, name, *intervals):
    rows = "".join(
        f'        intervals [{i}]:\n            xmin = {a}\n            xmax = {b}\n            text = "{phone}"\n'
        for i, (a, b, phone) in enumerate(intervals, 1)
    )
    head = f'    item [{index}]:\n        class = "IntervalTier"\n        name = "{name}"\n'
    return f"{head}        xmin = 0\n        xmax = 1\n        intervals: size = {len(intervals)}\n{rows}"


def grid(tmp_path, *tiers):
    path = tmp_path / "x.TextGrid"
    path.write_text(GRID.format(size=len(tiers), tiers="".join(tiers)), "utf-8")
    return path


PHONES = ((0, 0.25, ""), (0.25, 0.5, "HH"), (0.5, 1, "AY1"))


def test_textgrids(tmp_path):
    expected = ((0.0, 0.25, "sil"), (0.25, 0.5, "HH"), (0.5, 1.0, "AY1"))
    assert read_textgrid(grid(tmp_path, tier(1, "words", (0, 1, "hi")), tier(2, "phones", *PHONES))) == expected
    assert read_textgrid(grid(tmp_path, tier(1, "words", (0, 1, "hi")), tier(2, "ann - phones", *PHONES))) == expected
    assert read_textgrid(grid(tmp_path, tier(1, "anything", *PHONES))) == expected
    with pytest.raises(DataError, match=r"no tier is named phones \(interval tiers: a, b\), expected one; rename"):
        read_textgrid(grid(tmp_path, tier(1, "a", *PHONES), tier(2, "b", *PHONES)))
    for content in ("hello", "", GRID[:60]):
        (tmp_path / "x.TextGrid").write_text(content)
        wrong = (
            r"x.TextGrid: not a TextGrid \(\w+\), expected intervals as Praat writes them; export it again from Praat"
        )
        with pytest.raises(DataError, match=wrong):
            read_textgrid(tmp_path / "x.TextGrid")


def test_ctm(tmp_path):
    path = tmp_path / "x.ctm"
    path.write_text(";; made by hand\na 1 0.50 0.25 B\na 1 0.00 0.50 A 0.99\n\nb A 1 1 C\n")
    assert read_ctm(path) == {"a": ((0.0, 0.5, "A"), (0.5, 0.75, "B")), "b": ((1.0, 2.0, "C"),)}
    path.write_text("a 1 0.5 0.25\n")
    with pytest.raises(DataError, match=r"x.ctm:1: 'a 1 0.5 0.25', expected 'utterance channel start duration phone'"):
        read_ctm(path)


def test_lab(tmp_path):
    path = tmp_path / "x.lab"
    path.write_text("0 5000000 sil\n5000000 10000000 a\n")
    expected = ((0.0, 0.5, "sil"), (0.5, 1.0, "a"))
    assert read_lab(path) == expected
    path.write_text("0.0 0.5 sil\n0.5 1.0 a -3.2\n")
    assert read_lab(path) == expected
    for words in ("printing in the only sense\n", "3 little pigs\n", "7\n"):
        path.write_text(words)
        assert read_lab(path) is None
    path.write_text("0.0 0.5 a\n0.4\n")
    with pytest.raises(DataError, match=r"x.lab:2: '0.4', expected 'start end phone'; mend that line"):
        read_lab(path)


def test_phn(tmp_path):
    path = tmp_path / "x.phn"
    path.write_text("0 1600 h#\n1600 16000 sh\n")
    assert read_phn(path) == ((0.0, 0.1, "h#"), (0.1, 1.0, "sh"))
    path.write_text("1600 16000 sh\n0 1600 h#\n")
    with pytest.raises(DataError, match=r"'h#' from 0 to 0.1 s stands after 0.1 s, expected intervals in order"):
        read_phn(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"x.phn: cannot be read \(.*\), expected labels in UTF-8; save it again"):
        read_phn(path)


def write_textgrid(path, intervals):
    grid = praat.Textgrid()
    grid.addTier(IntervalTier("phones", intervals, 0, intervals[-1][1]))
    grid.save(str(path.with_suffix(".TextGrid")), "long_textgrid", includeBlankSpaces=True)


def write_csv(path, intervals, header=("start", "end", "phone"), more=()):
    with path.with_suffix(".csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *([*more, *interval] for interval in intervals)])


def write_lines(suffix, form):
    def write(path, intervals):
        path.with_suffix(suffix).write_text("".join(form(path.stem, *each) for each in intervals), "utf-8")

    return write


@pytest.mark.parametrize(
    "write",
    [
        write_textgrid,
        write_csv,
        lambda path, intervals: write_csv(path, intervals, ("id", "start", "end", "phone"), [path.stem]),
        write_lines(".ctm", lambda id, start, end, phone: f"{id} 1 {start:.3f} {end - start:.3f} {phone}\n"),
        write_lines(".lab", lambda _, start, end, phone: f"{round(start * 1e7)} {round(end * 1e7)} {phone}\n"),
        write_lines(".phn", lambda _, start, end, phone: f"{round(start * 16_000)} {round(end * 16_000)} {phone}\n"),
    ],
    ids=["textgrid", "csv beside", "csv at the root", "ctm", "lab", "phn"],
)
def test_frames_of_timed_speech_are_labelled_right(talking, tmp_path, write):
    """Every frame more than 10 ms from a boundary has the phone that espeak said there; 98 % would do."""
    spoken = open_corpus(talking).utterances[:2]
    for each in spoken:
        shutil.copy(each.path, tmp_path / f"{each.id}.flac")
        write(tmp_path / each.id, each.alignment)
    corpus = open_corpus(tmp_path)
    task = open_task("phone").learn(spoken)
    right = []
    for each, again in zip(sorted(spoken, key=lambda each: each.id), corpus.utterances, strict=True):
        assert each.id == again.id
        frames = int(each.seconds * 100)
        found = task.targets(again, Grid(160, 80.0), frames)
        centres = 0.005 + 0.01 * np.arange(frames)
        bounds = np.array([start for start, _, _ in each.alignment] + [each.alignment[-1][1]])
        inner = np.abs(centres[:, None] - bounds).min(1) > 0.01
        said = [each.alignment[place][2] for place in np.searchsorted(bounds, centres, side="right") - 1]
        heard = [task.outputs[answer] for answer in found.answers[:, 0]]
        labelled = found.counts[:, 0].numpy() > 0
        right += (labelled & (np.array(said) == np.array(heard)))[inner].tolist()
    assert len(right) > 150 and np.mean(right) >= 0.98


def test_folding_tables():
    assert len(TIMIT_61_TO_48) == 61 and len(set(TIMIT_61_TO_48.values())) == 48
    assert len(set(TIMIT_48_TO_39.values())) == 39 and set(TIMIT_48_TO_39) == set(TIMIT_61_TO_48.values())
    silences = {phone for phone, folded in TIMIT_61_TO_39.items() if folded == "sil"}
    assert silences == {"h#", "pau", "epi", "q", "bcl", "dcl", "gcl", "pcl", "tcl", "kcl"}
    assert len(set(ARPABET_72_TO_41.values())) == 41 and set(ARPABET_41_TO_39) == set(ARPABET_72_TO_41.values())
    assert set(TIMIT_61_TO_39.values()) - set(ARPABET_41_TO_39.values()) == {"dx"}
    assert len(set(ARPABET_72)) == 72 and set(ARPABET_72) <= set(ARPABET_72_TO_41)
    assert {name: len(set(table.values())) for name, table in FOLDINGS.items()} == {"48": 48, "41": 41, "39": 39}
    for table in FOLDINGS.values():  # folding twice is folding once, so folded labels may be given again
        assert all(table[phone] == phone for phone in table.values())


def test_fold():
    alignment = ((0.0, 0.1, "dcl"), (0.1, 0.2, "d"), (0.2, 0.3, "ux"))
    assert fold(alignment, TIMIT_61_TO_39) == ((0.0, 0.1, "sil"), (0.1, 0.2, "d"), (0.2, 0.3, "uw"))
    once = fold(((0.0, 0.1, "AO1"), (0.1, 0.2, "sp")), ARPABET_72_TO_41)
    assert fold(once, ARPABET_41_TO_39) == ((0.0, 0.1, "aa"), (0.1, 0.2, "sil"))
    with pytest.raises(DataError, match="'AA1' is not in the folding table, expected one of its 61 phones; fold with"):
        fold(((0.0, 0.1, "AA1"),), TIMIT_61_TO_39)
