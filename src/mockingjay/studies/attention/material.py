"""On which speech attention is studied: what is measured to choose by, and what the choice is tested on.

What is chosen by looking at utterances looks better on them than it is. So what the networks have not heard is cut in
two: from one part come the kinds of heads, the orders in which they are removed and the heads that are worth a closer
look; on the other everything that was chosen is scored.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from mockingjay.core.draw import address
from mockingjay.core.errors import DataError
from mockingjay.core.types import SAMPLE_RATE, Utterance
from mockingjay.data.manifest import Corpus
from mockingjay.data.splits import split
from mockingjay.downstream.questions import Question, questions
from mockingjay.studies.attention.plan import FEWEST, LOOKED


@dataclass(frozen=True, slots=True)
class Material:
    """What is asked of all, on which speech; `measured` and `tested` are unheard, and each in an order of its own.

    Attributes:
        data: Name of the speech.
        measured: What is chosen by.
        tested: What it is tested on: others, by speaker where that can be.
        phone: Tested on `tested`.
        speaker: Tested on none of `measured`.
    """

    data: str
    measured: tuple[Utterance, ...]
    tested: tuple[Utterance, ...]
    phone: Question | None
    speaker: Question | None


def gather(corpus: Corpus, heard: Collection[str], shortest: int, seed: int, absent: list[str]) -> Material:
    """Find out what the labels allow, on speech that no network was trained on.

    Args:
        corpus: As `open_corpus` read it.
        heard: Ids of what any network was trained on.
        shortest: Samples that every network needs.
        seed: Of divisions.
        absent: What is left out is added here, a sentence each.

    Raises:
        DataError: Too little is unheard.
    """
    whole = tuple(each for each in corpus.utterances if round(each.seconds * SAMPLE_RATE) >= shortest)
    known = questions(Corpus(corpus.name, whole), seed, absent.append)
    phone = _asked(known, "phone", None, heard)
    pool = phone.parts.test if phone is not None else whole
    unheard = sorted((each for each in pool if each.id not in heard), key=lambda each: address("looked", each.id))
    if len(unheard) < FEWEST:
        raise DataError(
            f"{corpus.name}: {len(unheard)} of {len(pool)} utterances are long enough and were not trained on, "
            f"expected at least {FEWEST}; give other speech with --data"
        )
    measured, tested = apart(unheard, seed)
    if phone is not None:
        phone = replace(phone, parts=replace(phone.parts, test=tested))
    else:
        absent.append(
            "No phone labels on speech it was not trained on: phone relations, segmentation and the phone probe are "
            "left out."
        )
    speaker = _asked(known, "label:speaker", phone and phone.data, {*heard, *(each.id for each in measured)})
    if speaker is None:
        absent.append("No speakers to be told apart on speech it was not trained on: the speaker probe is left out.")
    return Material(phone.data if phone is not None else corpus.name, measured, tested, phone, speaker)


def apart(unheard: Sequence[Utterance], seed: int) -> tuple[tuple[Utterance, ...], tuple[Utterance, ...]]:
    """Cut utterances into what is measured, half of them and `LOOKED` at most, and what is tested.

    They have no speaker in common, unless fewer than two are known or one says nearly everything; an utterance without
    a speaker goes by itself.
    """
    count = min(LOOKED, len(unheard) // 2)
    speakers = {each.speaker for each in unheard} - {None}
    if len(speakers) > 1:
        share = count / len(unheard)
        parts = split(unheard, {"measured": share, "tested": 1 - share}, seed)
        if 2 * len(parts["measured"]) >= count and 4 * len(parts["tested"]) >= len(unheard):
            return parts["measured"], parts["tested"]
    return tuple(unheard[:count]), tuple(unheard[count:])


def _asked(known: Sequence[Question], task: str, data: str | None, spent: Collection[str]) -> Question | None:
    """Choose the question with most speech left to test it on, of the same speech as others where that has it."""
    found = []
    for question in known:
        test = tuple(each for each in question.parts.test if each.id not in spent)
        if question.task.name == task and len(test) >= FEWEST:
            found.append(replace(question, parts=replace(question.parts, test=test)))
    return max(found, key=lambda each: (each.data == data, len(each.parts.test)), default=None)
