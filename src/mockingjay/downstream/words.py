"""A search among the words of a lexicon, weighed by a language model in a file; the one file that needs the extra `lm`.

The model is the user's, an ARPA or KenLM file of words (Heafield, WMT 2011); the search through the lexicon's trie is
flashlight-text's (Kahn et al., ICML 2022, arXiv 2201.12465). A word is spelt by its characters and ended by the blank
between words, or by the utterance's end. As in `beam`, all paths that say the same words are added up, which is what
the loss trains for; flashlight's own default is the likeliest path. What is sought has the largest

    log p(words | sound) + weight · log p(words) + bonus · number of words

in natural logarithms: flashlight multiplies those to base 10, so a published weight of 2 is 2 / ln 10 = 0.87 here.
"""

import math
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from mockingjay.core.config import Config as Table
from mockingjay.core.errors import DataError, MachineError
from mockingjay.core.untrusted import printable
from mockingjay.downstream.decode import BLANK, Decoder, Units
from mockingjay.downstream.pinned import Pinned, pin

GAP = " "  # between words
UNKNOWN = "<unk>"  # what a model has for words that it does not know
ROOM = 3 << 18  # bytes of words on a probe's card, which may have 1 << 20 in all
NEVER = -1e9  # log probability of what cannot be said at a step; finite, for sums of infinities are not numbers


class Language(Table):
    """What searches for words: all that a probe on disk needs to answer so again."""

    model: Pinned
    """An ARPA or KenLM file of words."""
    lexicon: Pinned | None = None
    """The words that may be said, the first of each line; none: `words`."""
    words: str = ""
    """Of the training transcripts, with blanks between."""
    threshold: float = Field(default=25.0, gt=0)
    """Log probability below the best prefix's at which others are dropped."""

    def __hash__(self) -> int:  # what was opened is found again by it
        return hash(self.model_dump_json())

    def written(self) -> list[str]:
        """List the words as they are written, without marks such as <unk>.

        Raises:
            DataError: The lexicon is not UTF-8.
        """
        if not self.lexicon:
            return self.words.split()
        try:
            lines = Path(self.lexicon.path).read_text("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{printable(self.lexicon.path)}: not UTF-8 (byte {error.start}), expected a word on each line; "
                "write it in UTF-8"
            ) from None
        return [fields[0] for line in lines if (fields := line.split()) and not fields[0].startswith("<")]


def choose_language(decoder: Decoder, outputs: tuple[str, ...], texts: Sequence[str]) -> Language:
    """Pin the files that a decoder names, and take the words of texts where it names no lexicon.

    Args:
        decoder: Names a file of words.
        outputs: Characters, the blank first.
        texts: The training transcripts.

    Raises:
        ConfigError: A file cannot be read.
        DataError: As `WordSearch`, or the transcripts have more words than a card holds.
        MachineError: flashlight-text is not installed.
    """
    model = pin(decoder.language, "decoder.language", "an ARPA or KenLM file of words")
    lexicon = pin(decoder.lexicon, "decoder.lexicon", "a list of words") if decoder.lexicon else None
    words = "" if lexicon else GAP.join(sorted({word for text in texts for word in plain(text).split()}))
    if len(words.encode()) > ROOM:
        raise DataError(
            f"decoder.lexicon: none, and {words.count(GAP) + 1} words of the training transcripts are too many for a "
            f"probe's card, expected {ROOM} bytes at most; write them into a file, one a line, and name that"
        )
    language = Language(model=model, lexicon=lexicon, words=words, threshold=decoder.threshold)
    _open(language, outputs)
    return language


def plain(text: str) -> str:
    """Write a text in small letters, digits and apostrophes, with single blanks between words."""
    text = unicodedata.normalize("NFC", text.casefold().replace("’", "'"))
    words = "".join(each if each.isalnum() or each == "'" else " " for each in text).split()
    return " ".join(filter(None, (word.strip("'") for word in words)))


class WordSearch:
    """Answers in words of a lexicon.

    Attributes:
        name: Of the model's file.
        words: How many may be said.
        left_out: How many of the lexicon may not, for a character that is not among the outputs.
    """

    def __init__(self, language: Language, outputs: tuple[str, ...], beam: int, weight: float, bonus: float) -> None:
        """Open the files; the last ones stay open.

        Args:
            language: The files, as they were pinned.
            outputs: Characters, the blank first; without the blank between words one word is said at most.
            beam: Prefixes kept at every step.
            weight: Of the language's log probability.
            bonus: Added for each word.

        Raises:
            CheckpointError: A file is missing or has changed.
            DataError: The model is none or knows no word, or no word can be spelt.
            MachineError: flashlight-text is not installed.
        """
        self._opened, self._gap = _open(language, outputs), _gap(outputs)
        self.name = Path(language.model.path).name
        self.words, self.left_out = len(self._opened.spellings), self._opened.left_out
        self._search = self._opened.search(language.threshold, beam, weight, bonus)

    def __call__(self, logits: Float[Tensor, "batch time outputs"], lengths: Int[Tensor, " batch"]) -> list[Units]:
        """Search for the likeliest words of each utterance, over its own steps."""
        scores = logits.detach().float().log_softmax(-1).cpu().numpy()
        return [self._best(each[:length]) for each, length in zip(scores, lengths.tolist())]

    def _best(self, scores: Float[np.ndarray, "time outputs"]) -> Units:
        steps, outputs = scores.shape
        # One step more, at which a word ends and nothing else can be: the last needs no blank behind it.
        emissions = np.full((steps + 1, max(outputs, self._gap + 1)), NEVER, dtype=np.float32)
        emissions[:steps, :outputs] = scores
        emissions[steps, self._gap] = 0.0
        found = self._search.decode(emissions.ctypes.data, *emissions.shape)
        said: Units = ()
        for word in found[0].words if found else ():  # nothing is found where scores are not numbers
            if word >= 0:
                said += ((self._gap,) if said else ()) + self._opened.spellings[word]
        return said


@dataclass(frozen=True, slots=True)
class _Opened:
    model: Any
    trie: Any
    spellings: Mapping[int, Units]  # of the words, by their place among the model's
    unknown: int  # place of the unknown word
    gap: int
    left_out: int

    def search(self, threshold: float, beam: int, weight: float, bonus: float) -> Any:
        from flashlight.lib.text.decoder import CriterionType, LexiconDecoder, LexiconDecoderOptions

        options = LexiconDecoderOptions(
            beam_size=beam,
            beam_size_token=10**6,  # all
            beam_threshold=threshold,
            lm_weight=weight * math.log(10),
            word_score=bonus,
            unk_score=-math.inf,  # nothing is said that is not in the lexicon
            sil_score=0.0,
            log_add=True,
            criterion_type=CriterionType.CTC,
        )
        return LexiconDecoder(options, self.trie, self.model, self.gap, BLANK, self.unknown, [], False)


@lru_cache(maxsize=1)  # models take gigabytes
def _open(language: Language, outputs: tuple[str, ...]) -> _Opened:
    """Read the files and spell the words."""
    try:
        from flashlight.lib.text.decoder import SmearingMode, Trie
        from flashlight.lib.text.decoder.kenlm import KenLM
        from flashlight.lib.text.dictionary import Dictionary
    except ImportError as error:
        raise MachineError(
            "decoder.language: the package flashlight-text is not installed, expected it for a language model of words "
            "(Python 3.11 or 3.12); pip install mockingjay-speech[lm]"
        ) from error
    for each in filter(None, (language.model, language.lexicon)):
        each.check()
    writings, left_out = _spell(language, outputs)
    listed = dict.fromkeys([*(way for ways in writings.values() for way in ways), UNKNOWN])
    try:
        model = KenLM(language.model.path, Dictionary(list(listed)))
    except (RuntimeError, ValueError) as error:  # what C++ throws, and a message of it that is not UTF-8
        told = printable(str(error).rpartition("\n")[2])
        raise DataError(
            f"{printable(language.model.path)}: no language model ({told}), expected an ARPA or KenLM file of words; "
            "choose another decoder.language"
        ) from None
    places = {way: place for place, way in enumerate(listed)}
    scores = {way: model.score(model.start(False), place)[1] for way, place in places.items()}
    known = {way for way in listed if scores[way] != scores[UNKNOWN]}
    _check_known(known, writings, language)
    gap, numbers = _gap(outputs), _numbers(outputs)
    trie, spellings = Trie(len(outputs) + 1, gap), {}
    for word, ways in writings.items():
        way = max(ways, key=known.__contains__)  # the first that the model knows
        spellings[places[way]] = tuple(numbers[each] for each in word)
        trie.insert([*spellings[places[way]], gap], places[way], scores[way])
    trie.smear(SmearingMode.MAX)
    return _Opened(model, trie, spellings, places[UNKNOWN], gap, left_out)


def _check_known(known: set[str], writings: Mapping[str, list[str]], language: Language) -> None:
    """Refuse a model of other words: it would make all answers alike, or worse."""
    if not known:
        raise DataError(
            f"{printable(language.model.path)}: knows none of {len(writings)} words (first "
            f"{printable(min(writings))!r}), expected those that may be said; choose another decoder.language or "
            "decoder.lexicon"
        )


def _spell(language: Language, outputs: tuple[str, ...]) -> tuple[dict[str, list[str]], int]:
    """Find the words that outputs spell, each with the ways in which a model may write it, and count the others."""
    written, characters, left_out = language.written(), _numbers(outputs).keys(), 0
    where = printable(language.lexicon.path) if language.lexicon else "the training transcripts"
    if not written:
        raise DataError(f"{where}: no word, expected one on each line; add words or name another decoder.lexicon")
    ways: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for word in written:
        spelling = plain(word)
        if not spelling or not characters >= set(spelling):
            left_out += 1
            continue
        large = spelling.upper()
        ways[spelling] |= dict.fromkeys([word, spelling, large if large.casefold() == spelling else word])
    if not ways:
        raise DataError(
            f"{where}: none of {len(written)} words (first {printable(written[0])!r}) can be spelt with the task's "
            f"{len(characters)} characters, expected one at least; name another decoder.lexicon"
        )
    return {spelling: list(each) for spelling, each in ways.items()}, left_out


def _gap(outputs: tuple[str, ...]) -> int:
    """Number the blank between words; where there is none, one beyond, which only an utterance's end says."""
    return _numbers(outputs).get(GAP, len(outputs))


def _numbers(outputs: tuple[str, ...]) -> dict[str, int]:
    return {unit: number for number, unit in enumerate(outputs) if number != BLANK}
