import itertools
import json
import math
import sys
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from toy_representation import Onsets, Toy, speak

from mockingjay.core import config
from mockingjay.core.errors import CheckpointError, ConfigError, DataError, MachineError
from mockingjay.core.types import Utterance
from mockingjay.downstream import fit_probe, open_task, predict, save_probe
from mockingjay.downstream.decode import Decoder, greedy
from mockingjay.downstream.features import load
from mockingjay.downstream.fit import Config
from mockingjay.downstream.frozen import FrozenTraining
from mockingjay.downstream.predict import predict_wave
from mockingjay.downstream.tasks import Targets, Transcript
from mockingjay.downstream.words import WordSearch, _open, choose_language

pytest.importorskip("flashlight.lib.text.decoder.kenlm", reason="needs the extra lm")

UNITS = ("", " ", "a", "b")
GRAMS = {  # of log probabilities to base 10, and what backing off costs
    ("<unk>",): (-1.5, 0.0), ("<s>",): (-99.0, -0.3), ("</s>",): (-0.7, 0.0),
    ("a",): (-0.9, -0.1), ("ab",): (-0.6, -0.2), ("ba",): (-0.8, -0.4), ("aa",): (-1.2, 0.0),
    ("<s>", "ab"): (-0.4, 0.0), ("ab", "ba"): (-0.2, 0.0), ("ba", "</s>"): (-0.4, 0.0), ("a", "a"): (-0.5, 0.0),
}  # fmt: skip


def arpa(path, grams):
    """Write n-grams of words in ARPA's format."""
    orders = sorted({len(gram) for gram in grams})
    lines = ["\\data\\", *(f"ngram {order}={sum(len(gram) == order for gram in grams)}" for order in orders)]
    for order in orders:
        lines += ["", f"\\{order}-grams:"]
        lines += [
            "\t".join([f"{score}", " ".join(gram), *([f"{back}"] if order < orders[-1] else [])])
            for gram, (score, back) in grams.items()
            if len(gram) == order
        ]
    path.write_text("\n".join([*lines, "", "\\end\\", ""]))
    return path


def bigrams(sentences, write=str):
    """Count a bigram model with a tenth of the mass for unigrams."""
    pairs = defaultdict(lambda: defaultdict(int))
    for first, second in itertools.chain.from_iterable(
        itertools.pairwise(["<s>", *map(write, words), "</s>"]) for words in sentences
    ):
        pairs[first][second] += 1
    words = sorted({word for after in pairs.values() for word in after} - {"</s>"})
    flat = math.log10(1 / (len(words) + 2))
    grams = {(word,): (flat, -1.0) for word in words} | {("<unk>",): (flat - 2, 0.0), ("</s>",): (flat, 0.0)}
    grams |= {("<s>",): (-99.0, -1.0)}
    for first, after in pairs.items():
        total = sum(after.values())
        grams |= {(first, second): (math.log10(0.9 * count / total), 0.0) for second, count in after.items()}
    return grams


def likely(words):
    """The natural log probability that `GRAMS` give words, up to the sentence's end."""
    known = [word if (word,) in GRAMS else "<unk>" for word in words]
    total = 0.0
    for first, second in itertools.pairwise(["<s>", *known, "</s>"]):
        pair = GRAMS.get((first, second))
        total += pair[0] if pair else GRAMS[first,][1] + GRAMS[second,][0]
    return total * math.log(10)


def lexicon(path, *words):
    path.write_text("\n".join([*words, ""]))
    return path


@pytest.fixture
def model(tmp_path):
    return arpa(tmp_path / "toy.arpa", GRAMS)


def decoder(model, words="", **other):
    return Decoder(**{"beam": 100, "threshold": 1e6, **other}, language=str(model), lexicon=str(words or ""))


def search(model, *words, outputs=UNITS, weight=0.0, bonus=0.0, **other):
    chosen = decoder(model, lexicon(model.parent / f"{len(words)}.txt", *words), **other)
    return WordSearch(choose_language(chosen, outputs, []), outputs, chosen.beam, weight, bonus)


def brute(scores, words, weight, bonus, outputs=UNITS):
    """The best words by adding up every path there is that says nothing else."""
    sums = defaultdict(float)
    rows = scores.tolist()
    for path in itertools.product(range(scores.shape[1]), repeat=scores.shape[0]):
        text = "".join(outputs[unit] for unit, _ in itertools.groupby(path))
        said = tuple(text.split())
        if set(said) <= set(words):
            sums[said] += math.exp(sum(row[unit] for row, unit in zip(rows, path)))
    return max(sums, key=lambda said: math.log(sums[said]) + weight * likely(said) + bonus * len(said))


def random_logits(seed, steps, outputs=4, scale=2.0):
    return torch.randn(1, steps, outputs, generator=torch.Generator().manual_seed(seed)) * scale


def write(units, outputs=UNITS):
    return "".join(outputs[unit] for unit in units)


def path(text, outputs=UNITS):
    """Sure logits, a blank after each unit."""
    steps = [each for unit in text for each in (outputs.index(unit), 0)]
    return torch.nn.functional.one_hot(torch.tensor(steps), len(outputs)).float()[None] * 9


# What is found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("weight", "bonus"), [(0.0, 0.0), (0.8, 0.0), (0.3, 1.5), (2.0, -1.0)])
def test_a_wide_search_adds_up_every_path(model, seed, weight, bonus):
    words = ("a", "ab", "ba", "aa", "b")  # b is not known to the model
    logits = random_logits(seed, 6)
    (found,) = search(model, *words, weight=weight, bonus=bonus)(logits, torch.tensor([6]))
    assert tuple(write(found).split()) == brute(logits[0].log_softmax(-1), words, weight, bonus)


def test_without_a_blank_between_words_one_is_said_at_most(model):
    units, words = ("", "a", "b"), ("a", "ab", "ba")
    for seed in range(4):
        logits = random_logits(seed, 5, 3)
        (found,) = search(model, *words, outputs=units, weight=0.5)(logits, torch.tensor([5]))
        assert (write(found, units),) == (brute(logits[0].log_softmax(-1), words, 0.5, 0.0, units) or ("",))


def test_a_language_settles_what_is_unclear(model):
    logits = path("ab ba")
    logits[0, 6, 2], logits[0, 8, 3], logits[0, 8, 0] = 9.2, 9.0, 9.0  # ab a, ab ab, ab ba
    steps = torch.tensor([10])
    assert write(greedy(logits, steps)[0]) != "ab ba"
    assert write(search(model, "ab", "ba", "a", "aa", weight=1.0)(logits, steps)[0]) == "ab ba"


def test_nothing_outside_the_lexicon_is_said(model):
    assert write(search(model, "ab", "a")(path("ab bb"), torch.tensor([10]))[0]) == "ab ab"
    for beam, seed in itertools.product((1, 3), range(5)):
        (found,) = search(model, "aa", "ba", beam=beam)(random_logits(seed, 40), torch.tensor([40]))
        assert set(write(found).split()) <= {"aa", "ba"}


def test_batch_mates_and_padding_change_nothing(model):
    find, lengths = search(model, "a", "ab", "ba", weight=0.5, beam=8, threshold=25.0), torch.tensor([30, 9, 0, 1])
    logits = torch.randn(4, 33, 4, generator=torch.Generator().manual_seed(0)) * 3
    together = find(logits, lengths)
    assert together == find(logits, lengths) and together[2] == () and len(together[0]) > 5
    assert together == [find(each[None, :length], length[None])[0] for each, length in zip(logits, lengths)]
    for row, length in zip(logits, lengths.tolist()):
        row[length:] = torch.randn(33 - length, 4) * 50
    assert find(logits, lengths) == together
    assert find(torch.full((1, 3, 4), torch.nan), torch.tensor([3])) == [()]


def test_words_are_looked_up_as_the_model_writes_them(tmp_path):
    large = arpa(tmp_path / "large.arpa", bigrams([["AB", "BA"]] * 3 + [["Öl"]]))
    for words in (("ab", "ba\tb a |", "<unk>"), ("AB", "BA"), ("Ab,", "ba", "bA", "öl", "?")):
        find = search(large, *words, weight=1.0)
        assert (find.words, find.left_out) == (2, 2 if "?" in words else 0)
        logits = path("ab ba")
        logits[0, 8, 2:] = 9.0
        assert write(find(logits, torch.tensor([10]))[0]) == "ab ba"


# What it is good for

SENTENCES = [line.split() for line in ("the cat sat", "the dog ran", "a cat ran off", "a dog sat down")]
LETTERS = ("", *sorted(set("".join(" ".join(each) for each in SENTENCES))))


def test_it_makes_fewer_errors_in_noise_than_greedy_reading(tmp_path):
    file = arpa(tmp_path / "cats.arpa", bigrams(SENTENCES))
    generator = torch.Generator().manual_seed(1)
    texts = [" ".join(SENTENCES[number % 4]) for number in range(24)]
    logits = [path(text, LETTERS)[0] / 3 for text in texts]
    padded = torch.nn.utils.rnn.pad_sequence(logits, batch_first=True)
    padded += torch.randn(padded.shape, generator=generator) * 1.1
    steps = torch.tensor([len(each) for each in logits])
    spelt = [torch.tensor([[LETTERS.index(each) for each in text]]) for text in texts]
    wanted = [Targets(units, torch.ones(units.shape)) for units in spelt]
    task = Transcript(Transcript.Config(kind="text"), LETTERS)
    said = [Utterance(id="u", path="/u.wav", seconds=1.0, text=text) for text in texts]
    (found,) = task.searched(Decoder(beam=20, language=str(file), weights=(1.0,)), said)
    plainly, searched = (
        float(each.in_words().earned(padded, Targets.pad(wanted, 1), steps).sum()) for each in (task, found)
    )
    assert searched < 0.5 * plainly and plainly > 10
    assert found.decoding == "beam 20, cats.arpa × 1 over 8 words"


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """The toy's codes as letters and blanks; what lasts is one letter."""
    found = []
    for each in speak(tmp_path_factory.mktemp("speech"), count=24, seconds=(0.5, 0.9)):
        letters = ("abcdef  "[int(phone[1:])] for *_, phone in each.alignment)
        found.append(replace(each, text="".join(letter for letter, _ in itertools.groupby(letters)).strip()))
    return found


def told(folder, utterances):
    return [each.text for each in predict(folder, [each.path for each in utterances], lambda name: Onsets())]


def test_a_probe_on_disk_answers_equally(spoken, tmp_path):
    sentences, test = [each.text.split() for each in spoken], spoken[18:]
    file = arpa(tmp_path / "toy.arpa", bigrams(sentences, str.upper))
    words = lexicon(tmp_path / "words.txt", *sorted({word for each in sentences for word in each}), "ö")
    texts = ["beam=5", "weights=[0.2,0.8]", f"language={file}", f"lexicon={words}", "bonus=0.1"]
    changes = config.assignments([f"decoder.{text}" for text in texts])
    quick = FrozenTraining.Config(learning_rates=(1e-1,), updates=60, sequences=8, evaluations=2)
    settings = config.overlay(Config(frozen=quick, seeds=1), changes)
    result = fit_probe(Onsets(), open_task("text"), spoken[:12], spoken[12:18], test, settings, "toy", "made")
    rows = (result.row, *result.others)
    assert [row["metric"] for row in rows] == ["CER", "WER", "CER", "WER"] and rows[3]["value"] <= rows[1]["value"]
    count = len(words.read_text().split())
    said = [f"beam 5, toy.arpa × {weight} over {count - 1} of {count} words" for weight in (0.2, 0.8)]
    assert rows[2]["decoder"] == rows[3]["decoder"] and rows[3]["decoder"] in said
    before = [predict_wave(result.probe, load(each)).text for each in test]
    save_probe(result.probe, tmp_path / "probe", "toy", result.row)
    _open.cache_clear()
    assert told(tmp_path / "probe", test) == before and {*" ".join(before).split()} <= {*words.read_text().split()}
    card = json.loads((tmp_path / "probe" / "probe.json").read_text())["task"]["language"]
    assert card["model"]["path"] == str(file) and card["words"] == ""
    file.write_text(file.read_text() + "\n")
    _open.cache_clear()
    with pytest.raises(
        CheckpointError, match=r"toy\.arpa: has changed \(SHA-256 .*…\), expected .*… as when the probe"
    ):
        told(tmp_path / "probe", test)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"toy\.arpa: cannot be read \(No such file or directory\), expected the"):
        told(tmp_path / "probe", test)


# What is refused


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["language=x", "order=2", "beam=2"], "decoder: language 'x' beside order 2, expected one of the two"),
        (["language=x"], "decoder: language 'x' without a beam, expected beam 1 or more"),
        (["order=3"], "decoder: order 3 without a beam, expected beam 1 or more"),
        (["lexicon=y", "beam=2"], "decoder: lexicon 'y' without a language, expected both"),
        (["threshold=0"], "decoder.threshold: input should be greater than 0"),
    ],
)
def test_settings_at_odds_are_refused(texts, said):
    with pytest.raises(ConfigError) as error:
        config.overlay(Config(), config.assignments([f"decoder.{text}" for text in texts]))
    assert str(error.value).startswith(said) and "change it in the config or with --set" in str(error.value)


@pytest.mark.parametrize("task", ["phones", "phone", "label:mood"])
def test_words_are_of_text(spoken, model, task):
    with pytest.raises(ConfigError, match=rf"decoder\.language: .*toy\.arpa' for task {task}, expected task text, who"):
        fit_probe(Toy(), open_task(task), spoken, spoken, spoken, Config(decoder=decoder(model)))


def test_files_that_are_none_are_refused(spoken, model, tmp_path):
    def refused(said, error, language=model, words="", outputs=UNITS, texts=("a",)):
        with pytest.raises(error) as caught:
            choose_language(decoder(language, words), outputs, texts)
        assert said in str(caught.value), caught.value

    none, missing = str(tmp_path / "none"), "cannot be read (No such file or directory), expected"
    refused(f"decoder.language: {none} {missing} an ARPA or KenLM file of words; check the path", ConfigError, none)
    refused(f"decoder.lexicon: {none} {missing} a list of words; check the path", ConfigError, words=none)
    refused(f"decoder.language: {tmp_path} cannot be read (not a file), expected an ARPA or", ConfigError, tmp_path)
    for content, what in (
        (b"", "End of file Byte: 0"),
        (b"hello\n", 'first non-empty line was "hello" not'),
        (b"\xff\xfe\xe9\n", "'utf-8' codec"),
        (model.read_bytes()[:90], "Could not parse"),
    ):
        (tmp_path / "bad.arpa").write_bytes(content)
        refused(f"bad.arpa: no language model ({what}", DataError, tmp_path / "bad.arpa")
    latin = tmp_path / "latin.txt"
    latin.write_bytes("a\nöl\n".encode("latin-1"))
    refused("latin.txt: not UTF-8 (byte 2), expected a word on each line; write it in UTF-8", DataError, words=latin)
    refused("empty.txt: no word, expected one on each", DataError, words=lexicon(tmp_path / "empty.txt", "", "<unk>"))
    refused("the training transcripts: no word, expected one", DataError, texts=["", "?"])
    other = lexicon(tmp_path / "other.txt", "öl", "?", "cat")
    refused("other.txt: none of 3 words (first 'öl') can be spelt with the task's 3", DataError, words=other)
    strange = lexicon(tmp_path / "strange.txt", "bb", "abab")
    refused("toy.arpa: knows none of 2 words (first 'abab'), expected those that may be", DataError, words=strange)
    many = [f"{number:09d}" * 1000 for number in range(100)]
    refused("decoder.lexicon: none, and 100 words of the training transcripts are too many for", DataError, texts=many)


def test_without_the_extra_it_says_which(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "flashlight.lib.text.decoder.kenlm", None)
    _open.cache_clear()
    with pytest.raises(MachineError, match=r"decoder\.language: the package flashlight-text is not .*\(Py.*\[lm\]$"):
        choose_language(decoder(model), UNITS, ["a"])
