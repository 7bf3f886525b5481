"""Sequences: the phones of an utterance, or the characters of its text, without times (CTC; Graves et al., ICML 2006).

A probe names one unit or the blank at every step, and whatever says the reference once equal neighbours are joined and
blanks are left out is right: the loss is the logarithm of the sum over all such paths. The metric is an error rate:
substitutions, insertions and deletions over the units of the reference, pooled over utterances; saying nothing makes
it 100 %. An utterance with more units than steps, the blanks between equal neighbours included, cannot be
spelt: it is not learnt from, but tested like any other.

Phones: silence is left out, repeats are kept, and an inventory that is known is folded first, TIMIT's to Lee and Hon's
39 classes, whose closures are silence, and stressed vowels to plain ones. Text: case and punctuation are dropped, an
apostrophe inside a word is kept, and the blank between words is a character like any other, in the error rate too.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, field_validator
from torch import Tensor

from mockingjay.core.config import Config as Table
from mockingjay.core.errors import DataError
from mockingjay.core.types import Grid, Loss, Utterance
from mockingjay.data.phones import table_of
from mockingjay.downstream.decode import BLANK, Decoder, NGram, Units, beams, count_ngrams, greedy
from mockingjay.downstream.edits import edits
from mockingjay.downstream.tasks.task import Lengths, Targets, Task
from mockingjay.downstream.words import Language, WordSearch, choose_language, plain

SILENCES = frozenset({"", "<eps>", "sil", "SIL", "sp", "SP", "spn", "SPN", "h#", "pau", "epi"})
UNSEEN = -1  # a unit of the reference that training has not had: whatever is said for it is wrong
_UNSEEN = "<unseen>"


class Transcript(Task):
    """What was said, unit after unit. Output 0 is the blank, named by nothing."""

    class Config(Table):
        """The folding and the n-gram are learnt from the training utterances."""

        kind: Literal["phones", "text"] = "phones"
        column: str = ""
        """A column of phones with blanks between, instead of the alignment."""
        fold: dict[str, str] | None = None
        """Phone → class, one folded to "" or a silence is left out; none: as the training utterances' inventory has
        it."""
        count: Literal["units", "words"] = "units"
        """What the error rate is of."""
        beam: int = Field(default=0, ge=0, le=1000)
        """Prefixes kept in a beam search; 0: the likeliest path is read."""
        weight: float = 0.0
        """Of the n-gram's or the language's natural log probability in a beam search."""
        bonus: float = 0.0
        """Added in a beam search for each unit, with a language for each word."""
        ngrams: dict[str, int] = Field(default_factory=dict)
        """n-gram of outputs' numbers → how often the training transcripts have it."""
        language: Language | None = None
        """Searched with for words, in place of n-grams; none: for units."""

        @field_validator("ngrams")
        @classmethod
        def _of_one_order(cls, ngrams: dict[str, int]) -> dict[str, int]:
            orders = {gram.count(" ") for gram in ngrams}
            numbers = all(number.isdecimal() and len(number) < 10 for gram in ngrams for number in gram.split(" "))
            if len(orders) > 1 or not numbers or min(ngrams.values(), default=1) < 1:
                raise ValueError("expected n-grams of numbers, all of one order, that occur")
            return ngrams

    resolution = "sequence"
    better = "lower"
    config: Config

    def __init__(self, config: Config, outputs: tuple[str, ...] = ()) -> None:
        super().__init__(config, outputs)
        self.name = config.kind + (f":{config.column}" if config.column else "")
        self.metric = "PER" if config.kind == "phones" else "CER" if config.count == "units" else "WER"

    @property
    def decoding(self) -> str:
        """How answers are found, in words."""
        if not self.config.beam:
            return "greedy"
        if search := self._words:
            chosen = f"{search.words} of {search.words + search.left_out}" if search.left_out else f"{search.words}"
            return f"beam {self.config.beam}, {search.name} × {self.config.weight:g} over {chosen} words"
        fused = f", {self._language.order}-gram × {self.config.weight:g}" if self._language else ""
        return f"beam {self.config.beam}{fused}"

    def units(self, utterance: Utterance) -> tuple[str, ...]:
        """Spell an utterance's reference."""
        if self.config.kind == "text":
            return tuple(plain(utterance.text or ""))
        fold = self.config.fold or {}
        named = (fold.get(phone, phone) for phone in self._phones(utterance))
        return tuple(phone for phone in named if phone not in SILENCES)

    def names(self, utterance: Utterance) -> tuple[str, ...]:
        return tuple(sorted(set(self.units(utterance))))

    def targets(self, utterance: Utterance, grid: Grid, steps: int) -> Targets:
        units = self.units(utterance)
        answers = [self._numbers.get(unit, UNSEEN) for unit in units]
        return Targets(torch.tensor([answers or [BLANK]]), torch.tensor([[1.0] * len(units) or [0.0]]))

    def learn(self, utterances: Sequence[Utterance]) -> "Transcript":
        config = self.config
        if config.kind == "phones" and config.fold is None:
            inventory = {phone for each in utterances for phone in self._phones(each)}
            config = config.model_copy(update={"fold": dict(table_of(inventory))})  # test may have phones train lacks
        folded = type(self)(config)
        units = sorted({unit for each in utterances for unit in folded.units(each)})
        if not units:
            kind = "alignments" if config.kind == "phones" else "text"
            raise DataError(
                f"task {self.name}: none of {len(utterances)} training utterances has any, expected "
                f"{f'column {config.column!r}' if config.column else kind}; add it to the manifest or choose another "
                "task"
            )
        return type(self)(config, ("", *units))

    def searched(self, decoder: Decoder, utterances: Sequence[Utterance]) -> list["Transcript"]:
        """Make the same task answered by a beam search: one for each weight of a language, or of an n-gram.

        Args:
            decoder: Says how.
            utterances: From which n-grams are counted, or the words taken where the language has no lexicon.

        Raises:
            ConfigError: A file of the language cannot be read.
            DataError: It is no language model or knows no word, or no word can be spelt.
            MachineError: What searches for words is not installed.
        """
        if decoder.language:
            language = choose_language(decoder, self.outputs, [each.text or "" for each in utterances])
            words = {"beam": decoder.beam, "bonus": decoder.bonus, "language": language}
            return [self._changed(**words, weight=weight) for weight in decoder.weights]
        known = self._numbers
        spelt = [tuple(known[unit] for unit in self.units(each) if unit in known) for each in utterances]
        counts = count_ngrams(spelt, decoder.order) if decoder.order else {}
        ngrams = {" ".join(map(str, gram)): count for gram, count in counts.items()}
        settings = {"beam": decoder.beam, "bonus": decoder.bonus, "ngrams": ngrams}
        weights = decoder.weights if ngrams else (0.0,)
        return [self._changed(**settings, weight=weight) for weight in weights]

    def in_words(self) -> "Transcript | None":
        """Make the same task with its errors counted in words; None where its units make no words."""
        return self._changed(count="words") if self.config.kind == "text" else None

    def score(self, logits: Float[Tensor, "... outputs"], targets: Targets, lengths: Lengths = None) -> Loss:
        assert lengths is not None
        chosen = feasible(targets, lengths).nonzero()[:, 0]
        wanted = targets.counts[chosen, 0].sum(-1)
        if not len(chosen):
            return Loss(logits.sum() * 0.0, wanted.sum())
        log_odds = F.log_softmax(logits[chosen].float(), dim=-1).transpose(0, 1)
        answers, steps = targets.answers[chosen, 0], lengths[chosen]
        losses = F.ctc_loss(log_odds, answers, steps, wanted.long(), blank=BLANK, reduction="none")
        return Loss(losses.sum(), wanted.sum())

    def earned(
        self, logits: Float[Tensor, "... outputs"], targets: Targets, lengths: Lengths = None
    ) -> Float[Tensor, "..."]:
        assert lengths is not None
        meant, said = self.meant(targets), self.said(logits, lengths)
        if self.config.count == "words":
            meant, said = ([self.write(units).split() for units in texts] for texts in (meant, said))
        return torch.from_numpy(edits(meant, said)).float()[:, None].to(logits.device)

    def total(self, targets: Targets) -> Float[Tensor, "..."]:
        if self.config.count == "units":
            return targets.counts.sum(-1)
        words = [len(self.write(units).split()) for units in self.meant(targets)]
        return torch.tensor(words, device=targets.counts.device).float()[:, None]

    def constant(self, train: Targets, test: Targets) -> float:
        return 1.0  # of saying nothing

    def say(self, logits: Float[Tensor, "rows outputs"]) -> list[str]:
        return self.said(logits[None], torch.tensor([len(logits)], device=logits.device))[0]

    def said(self, logits: Float[Tensor, "batch time outputs"], lengths: Int[Tensor, " batch"]) -> list[list[str]]:
        """Decode the units of each utterance, over its own steps."""
        config = self.config
        if self._words:
            found = self._words(logits, lengths)
        elif config.beam:
            found = beams(logits, lengths, config.beam, self._language, config.weight, config.bonus)
        else:
            found = greedy(logits, lengths)
        return [[self.outputs[unit] for unit in units] for units in found]

    def meant(self, targets: Targets) -> list[list[str]]:
        """Name the units of each reference."""
        rows = zip(targets.answers[..., 0, :].tolist(), targets.counts[..., 0, :].tolist())
        return [
            [self.outputs[unit] if unit >= 0 else _UNSEEN for unit, count in zip(units, counts) if count]
            for units, counts in rows
        ]

    def write(self, units: Sequence[str]) -> str:
        """Write units as one line."""
        return (" " if self.config.kind == "phones" else "").join(units)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {unit: number for number, unit in enumerate(self.outputs) if number != BLANK}

    @cached_property
    def _language(self) -> NGram | None:
        counts: dict[Units, int] = {tuple(map(int, gram.split())): count for gram, count in self.config.ngrams.items()}
        return NGram(counts, len(self.outputs)) if counts else None

    @cached_property
    def _words(self) -> WordSearch | None:
        config = self.config
        if not (config.beam and config.language):
            return None
        return WordSearch(config.language, self.outputs, config.beam, config.weight, config.bonus)

    def _phones(self, utterance: Utterance) -> list[str]:
        if self.config.column:
            return (utterance.label(self.config.column) or "").split()
        return [phone for *_, phone in sorted(utterance.alignment or ())]

    def _changed(self, **settings: object) -> "Transcript":
        return type(self)(self.config.model_copy(update=settings), self.outputs)


def feasible(targets: Targets, lengths: Int[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
    """Say which utterances can be learnt: those of known units, with a step for each and for the blanks they need."""
    answers, known = targets.answers[:, 0], targets.counts[:, 0] > 0
    blanks = ((answers[:, 1:] == answers[:, :-1]) & known[:, 1:]).sum(-1)
    return (known.sum(-1) + blanks <= lengths) & ~(known & (answers < 0)).any(-1)
