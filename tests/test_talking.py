import hashlib
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from scipy.stats import chi2_contingency
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mockingjay.core.errors import ConfigError, MachineError
from mockingjay.core.types import SAMPLE_RATE
from mockingjay.data import talking as package
from mockingjay.data.manifest import read_manifest
from mockingjay.data.synthesis import rooms
from mockingjay.data.synthesis.espeak import RATE, SILENCE, start
from mockingjay.data.synthesis.phones import fold
from mockingjay.data.synthesis.sentences import SENTIMENTS, sentences
from mockingjay.data.synthesis.voices import voices
from mockingjay.data.talking import make, talking

VOWELS = set("iɪeɛæaɑɔouʊʌəɜyʏøœ") | {"ɛ̃", "ɔ̃", "ɑ̃", "aɪ", "aʊ", "eɪ", "oʊ", "ɔɪ"}
CONSONANTS = set("pbtdkɡfvθðszʃʒçxhmnŋɲlʎɹɾʁjwβɣ") | {"tʃ", "dʒ", "ts"}
TINY = 0.3  # minutes; one sentence a voice


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return talking(tmp_path_factory.mktemp("cache"), seed=0, minutes=6.0)


@pytest.fixture(scope="module")
def corpus(folder):
    return read_manifest(folder / "manifest.jsonl")


@pytest.fixture(scope="module")
def waves(corpus):
    return {utterance.id: soundfile.read(utterance.path)[0] for utterance in corpus.utterances}


def digest(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_bytes_depend_on_the_seed_and_not_on_the_processes(tmp_path):
    make(tmp_path / "one", seed=3, minutes=TINY)
    make(tmp_path / "two", seed=3, minutes=TINY, workers=2)
    make(tmp_path / "other", seed=4, minutes=TINY)
    one = digest(tmp_path / "one")
    assert len(one) == 25
    assert one == digest(tmp_path / "two")
    assert not set(one.values()) & set(digest(tmp_path / "other").values())


def test_a_sentence_does_not_depend_on_what_was_said_before():
    draw = np.random.default_rng(0)
    cast = voices(draw)
    lines = [(voice, text) for voice in cast for _, (text, _) in zip(range(3), sentences(voice.language, draw, set()))]

    def say(espeak, line):
        return espeak.say(line[1], line[0].accent, line[0].timbre, 170, 50, 50)

    with start() as espeak:
        forward = [say(espeak, line) for line in lines]
        backward = [say(espeak, line) for line in reversed(lines)][::-1]
    for before, after in zip(forward, backward):
        np.testing.assert_array_equal(before.samples, after.samples)
        assert before.onsets == after.onsets


def test_files_are_what_the_manifest_says(corpus, folder):
    assert corpus.seconds >= 6 * 60
    assert {path.name for path in folder.iterdir()} == {"audio", "manifest.jsonl"}
    for utterance in corpus.utterances:
        info = soundfile.info(utterance.path)
        assert (info.samplerate, info.channels, info.format, info.subtype) == (16_000, 1, "FLAC", "PCM_16")
        assert info.frames == round(utterance.seconds * 16_000)


def test_phones_tile_every_utterance(corpus):
    for utterance in corpus.utterances:
        alignment = utterance.alignment
        assert alignment[0][0] == 0 and alignment[-1][1] == utterance.seconds
        assert alignment[0][2] == alignment[-1][2] == SILENCE
        assert all(begin < end for begin, end, _ in alignment)
        for (_, end, phone), (begin, _, following) in pairwise(alignment):
            assert end == begin and (phone, following) != (SILENCE, SILENCE)


def test_the_inventory_is_one_small_set(corpus):
    seconds = Counter()
    english = set()
    for utterance in corpus.utterances:
        for begin, end, phone in utterance.alignment:
            seconds[phone] += end - begin
            if utterance.labels["lang"] == "en":
                english.add(phone)
    assert set(seconds) <= VOWELS | CONSONANTS | {SILENCE}
    assert len(VOWELS | CONSONANTS) == 59
    assert 38 <= len(english) <= 43
    assert 0.08 < seconds[SILENCE] / corpus.seconds < 0.2


@pytest.mark.parametrize(
    ("symbol", "phone"),
    [
        ("ˈɑːɹ", "ɑ"),
        ("ˌaɪɚ", "aɪ"),
        ("iə", "i"),
        ("ə", "ə"),
        ("ə-", "ə"),
        ("ɚ", "ɜ"),
        ("ˈɜː", "ɜ"),
        ("ɹ", "ɹ"),
        ("n̩", "n"),
        ("əl", "l"),
        ("ˈəʊ", "oʊ"),
        ("ˈɔø", "ɔɪ"),
        ("ˈœ̃", "ɛ̃"),
        ("tʃ", "tʃ"),
    ],
)
def test_symbols_fold(symbol, phone):
    assert fold(symbol) == phone


def test_onsets_are_exact_and_closures_belong_to_their_stops():
    voice = voices(np.random.default_rng(0))[2]
    with start() as espeak:
        spoken = espeak.say("I like a tiny cat.", voice.accent, voice.timbre, 150, 50, 50)
    ends = [*(onset for onset, _ in spoken.onsets[1:]), len(spoken.samples)]
    stops = 0
    for (onset, symbol), end in zip(spoken.onsets, ends):
        if symbol in ("t", "k"):
            stops += 1
            closure = np.flatnonzero(spoken.samples[onset:end])[0]
            assert 0.03 * RATE < closure < 0.09 * RATE
            assert spoken.samples[onset - 1] != 0  # to the sample
        elif symbol == SILENCE:
            assert not spoken.samples[onset:end].any()
    assert stops == 4


def test_labels_name_what_is_heard(corpus, waves):
    level, centre = defaultdict(list), defaultdict(list)
    for utterance in corpus.utterances:
        wave = waves[utterance.id]
        loudness = np.mean(wave**2)
        for begin, end, phone in utterance.alignment:
            piece = wave[round(begin * 16_000) : round(end * 16_000)]
            if len(piece) < 400:
                continue
            spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece)))) ** 2
            level[phone].append(10 * np.log10(np.mean(piece**2) / loudness))
            centre[phone].append(np.sum(spectrum * np.fft.rfftfreq(len(piece), 1 / 16_000)) / spectrum.sum())
    for vowel in "aeiɪɛɔ":
        assert np.median(level[vowel]) > np.median(level[SILENCE]) + 15  # dB
        assert np.median(level[vowel]) > np.median(level["t"]) + 8
    for hiss in ("s", "ʃ", "tʃ"):
        assert np.median(centre[hiss]) > 3000 > 2 * np.median(centre["a"])  # Hz
    assert np.median(centre["n"]) < 800


def test_phones_are_learnt_across_voices(corpus, waves):
    """A linear classifier of spectra, trained on the labels, must tell them in voices it never heard."""
    sets = {"train": ([], []), "test": ([], [])}
    for utterance in corpus.utterances:
        if utterance.split in sets:
            frames = np.lib.stride_tricks.sliding_window_view(waves[utterance.id], 400)[::160]
            spectra = np.abs(np.fft.rfft(frames * np.hanning(400)))[:, 1:] ** 2
            bands = np.log([band.sum(1) + 1e-9 for band in np.array_split(spectra, 25, axis=1)]).T
            ends = np.array([end for _, end, _ in utterance.alignment])
            index = np.searchsorted(ends, (np.arange(len(frames)) * 160 + 200) / 16_000, side="right")
            sets[utterance.split][0].append(bands - bands.mean(0))
            sets[utterance.split][1].extend(utterance.alignment[i][2] for i in index)
    (train, train_phones), (test, test_phones) = sets.values()
    model = LinearDiscriminantAnalysis().fit(np.concatenate(train), train_phones)
    accuracy = np.mean(model.predict(np.concatenate(test)) == np.array(test_phones))
    assert accuracy > 0.35  # 60 classes, the most frequent 13 %


def test_voices_and_languages_balance(corpus):
    speakers = {utterance.speaker: utterance for utterance in corpus.utterances}
    assert len(speakers) == 24
    cells = Counter((u.labels["lang"], u.labels["gender"], u.split == "train") for u in speakers.values())
    assert set(Counter(u.labels["lang"] for u in speakers.values()).values()) == {6}
    assert all(cells[language, sex, True] == 2 for language in ("en", "de", "es", "fr") for sex in "mf")
    assert all(cells[language, sex, False] == 1 for language in ("en", "de", "es", "fr") for sex in "mf")
    assert len({u.labels["gender"] for u in speakers.values() if u.split == "test"}) == 2


def test_splits_share_neither_voices_nor_sentences(corpus):
    assert len({utterance.text for utterance in corpus.utterances}) == len(corpus.utterances)
    homes = defaultdict(set)
    for utterance in corpus.utterances:
        homes[utterance.speaker].add(utterance.split)
    assert all(len(splits) == 1 for splits in homes.values())
    assert {split for splits in homes.values() for split in splits} == {"train", "dev", "test"}


def test_voices_differ(corpus):
    cast = voices(np.random.default_rng(1))
    assert len({voice.timbre for voice in cast}) == len({voice.name for voice in cast}) == 24
    assert cast == voices(np.random.default_rng(1))


@pytest.mark.parametrize("language", ["en", "de", "es", "fr"])
def test_senses_balance_within_every_voice(language):
    said = set()
    drawn = [pair for _, pair in zip(range(100), sentences(language, np.random.default_rng(0), said))]
    assert Counter(sentiment for _, sentiment in drawn) == dict(zip(SENTIMENTS, (40, 40, 20)))
    assert said == {text for text, _ in drawn} and len(said) == 100
    assert all(text[0].isupper() and text.endswith(".") and "{" not in text for text in said)


@pytest.mark.parametrize("column", ["speaker", "lang", "gender", "split"])
def test_sense_is_independent_of(column, corpus):
    counts = Counter((u.label(column), u.labels["sentiment"]) for u in corpus.utterances)
    values = sorted({value for value, _ in counts})
    table = [[counts[value, sentiment] for sentiment in SENTIMENTS] for value in values]
    assert chi2_contingency(table).pvalue > 0.05


def test_nothing_is_separable_by_accident(corpus, waves):
    rows, senses, speakers = [], [], []
    for utterance in corpus.utterances:
        wave = waves[utterance.id]
        frames = 10 * np.log10(np.mean(wave[: len(wave) // 160 * 160].reshape(-1, 160) ** 2, axis=1) + 1e-10)
        lead, tail = utterance.alignment[0][1], utterance.seconds - utterance.alignment[-1][0]
        rows.append([utterance.seconds, np.mean(wave**2) ** 0.5, np.percentile(frames, 5), np.ptp(frames), lead, tail])
        senses.append(utterance.labels["sentiment"])
        speakers.append(utterance.speaker)
    rows, senses, speakers = np.array(rows), np.array(senses), np.array(speakers)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    polar = senses != "neutral"
    chance = cross_val_score(model, rows[polar], senses[polar], cv=5).mean()
    assert abs(chance - 0.5) < 2.5 * (0.25 / polar.sum()) ** 0.5
    chance = cross_val_score(model, rows[:, 1:], speakers, cv=3).mean()
    assert chance < 1 / 24 + 3 * (1 / 24 / len(rows)) ** 0.5


def test_the_rate_is_the_models():
    assert rooms.RATE == SAMPLE_RATE


def test_a_process_of_the_synthesiser_starts_without_torch():
    code = "import sys, mockingjay.data.synthesis.speak; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_room_keeps_the_direct_sound_in_place():
    click = np.zeros(16_000)
    click[4000] = 1.0
    for seed in range(20):
        heard = rooms.place(click, np.random.default_rng(seed))
        assert np.argmax(np.abs(heard)) == 4000
        assert np.abs(heard).max() <= 0.981


def test_the_cache_is_filled_once(tmp_path, monkeypatch):
    first = talking(tmp_path / "new" / "cache", seed=1, minutes=TINY)
    assert [path.name for path in (tmp_path / "new" / "cache").iterdir()] == [first.name]
    assert first.name.startswith("talking-1-espeak-1.") and first.name.endswith("-seed-1-minutes-0.3")
    monkeypatch.setattr(package, "speak", None)
    assert talking(tmp_path / "new" / "cache", seed=1, minutes=TINY) == first
    with pytest.raises(TypeError):
        talking(tmp_path / "new" / "cache", seed=2, minutes=TINY)
    assert [path.name for path in (tmp_path / "new" / "cache").iterdir()] == [first.name]  # no draft is left


def test_callers_at_the_same_time_get_one_whole_corpus(tmp_path):
    found = []
    threads = [threading.Thread(target=lambda: found.append(talking(tmp_path, minutes=TINY))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and found[0] == found[1]
    assert [path.name for path in tmp_path.iterdir()] == [found[0].name]
    assert all(soundfile.info(u.path).frames for u in read_manifest(found[0] / "manifest.jsonl").utterances)


def test_the_cache_lies_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setattr(package, "make", lambda folder, *_: (folder / "manifest.jsonl").touch())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("MOCKINGJAY_CACHE", raising=False)
    assert talking().parent == tmp_path / "xdg" / "mockingjay"
    monkeypatch.setenv("MOCKINGJAY_CACHE", str(tmp_path / "ours"))
    assert talking().parent == tmp_path / "ours" / "mockingjay"
    monkeypatch.delenv("MOCKINGJAY_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert talking().parent == tmp_path / "home" / ".cache" / "mockingjay"


def test_errors_name_the_mend(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"talking: minutes is 0.0, expected more than 0 and at most 3000; change it"):
        make(tmp_path / "x", minutes=0.0)
    with pytest.raises(ConfigError, match=r"talking: workers is 0, expected 1 or more processes; change it"):
        make(tmp_path / "x", workers=0)
    (tmp_path / "file").touch()
    mend = r"file/cache: cannot be written \(Not a directory\), expected a folder .*; set MOCKINGJAY_CACHE to one"
    with pytest.raises(MachineError, match=mend):
        talking(tmp_path / "file" / "cache")
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(MachineError, match=r"talking: .* run pip install 'mockingjay-speech\[talking\]'"):
        talking(tmp_path)
