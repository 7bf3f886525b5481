"""Parts of a corpus that never share a speaker, and fractions that grow into each other.

Both are functions of the seed and the utterances' ids alone: a list in another order is cut in the same places.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

from mockingjay.core.draw import address
from mockingjay.core.errors import ConfigError, DataError
from mockingjay.core.types import Utterance
from mockingjay.data.manifest import amount

Role: TypeAlias = Literal["train", "dev", "test"]

_Group: TypeAlias = tuple[str, ...]  # the name of a speaker or an utterance; "" and that of a stray utterance
_HELD = 600.0  # seconds of audio that are held out at most

_ROLES: Mapping[str, Role] = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("dev", "devset", "devel", "development", "valid", "validation", "val"), "dev"),
    **dict.fromkeys(("test", "testing", "testset", "eval", "evaluation", "evalset"), "test"),
}


def role(split: str | None) -> Role | None:
    """Say by its first word what a split is for: `train-clean-100`, `dev_other`, `eval92`; None where it does not."""
    found = re.match(r"[a-z]+", (split or "").lower())
    return _ROLES.get(found[0]) if found else None


def untested(utterances: Iterable[Utterance], say: Callable[[str], None]) -> list[Utterance]:
    """Leave out what a corpus's own split keeps for testing, and say how much that is."""
    utterances = tuple(utterances)
    tested = [each for each in utterances if role(each.split) == "test"]
    if tested:
        say(f"{amount(tested)}, left out for testing")
    return [each for each in utterances if role(each.split) != "test"]


def split(
    utterances: Iterable[Utterance],
    shares: Mapping[str, float],
    seed: int,
    by: Literal["speaker", "utterance"] = "speaker",
) -> dict[str, tuple[Utterance, ...]]:
    """Cut a corpus into parts by seconds of audio.

    Groups are taken in a random order, each to the part that lacks the most seconds; the last quarter goes from the
    longest to the shortest, so that what is left over is small.

    Args:
        utterances: The corpus.
        shares: Part → share of the seconds; they sum to 1.
        seed: Another seed gives other parts.
        by: What stays together: all that a speaker says, where an utterance without a speaker goes by itself and every
            part has a speaker; or nothing.

    Returns:
        The parts, each in the corpus's order, and none of them empty.

    Raises:
        ConfigError: The shares are not positive or do not sum to 1.
        DataError: There are fewer speakers, or utterances, than parts.
    """
    utterances = tuple(utterances)
    if not shares or min(shares.values()) <= 0 or not math.isclose(math.fsum(shares.values()), 1.0, abs_tol=1e-6):
        raise ConfigError(f"shares: {dict(shares)}, expected positive numbers that sum to 1; correct them")
    groups = _groups(utterances, by)
    left = sum(map(_fills, groups))
    if left < len(shares):
        what = f"{left} {by}s for {len(shares)} parts ({', '.join(shares)}), expected at least one each"
        raise DataError(f"split: {what}; add data or name fewer parts" + ", or split by utterance" * (by == "speaker"))
    seconds = {group: math.fsum(sorted(u.seconds for u in members)) for group, members in groups.items()}
    total = math.fsum(sorted(seconds.values()))
    lacking = {part: share * total for part, share in shares.items()}
    order = sorted(groups, key=lambda group: (address(seed, "split", *group), group))
    tail = len(order) - len(order) // 4
    order[tail:] = sorted(order[tail:], key=lambda group: -seconds[group])
    empty = dict.fromkeys(shares)
    chosen: dict[str, str] = {}
    for group in order:
        candidates = empty if _fills(group) and left <= len(empty) else lacking
        part = max(candidates, key=lacking.__getitem__)
        lacking[part] -= seconds[group]
        if _fills(group):
            left -= 1
            empty.pop(part, None)
        chosen.update((utterance.id, part) for utterance in groups[group])
    return {part: tuple(u for u in utterances if chosen[u.id] == part) for part in shares}


def fraction(
    utterances: Iterable[Utterance], share: float, seed: int, column: str | None = None
) -> tuple[Utterance, ...]:
    """Take a share of the seconds, so that every smaller share lies inside every larger one.

    Args:
        utterances: The corpus.
        share: Share of the seconds, in (0, 1]; what is taken is the fewest utterances that reach it.
        seed: Another seed takes others.
        column: Where given, the share is taken of each of this column's values, so none is lost.

    Returns:
        What was taken, in the corpus's order.

    Raises:
        ConfigError: The share is not in (0, 1].
    """
    utterances = tuple(utterances)
    if not 0 < share <= 1:
        raise ConfigError(f"share: {share}, expected more than 0 and at most 1; correct it")
    strata = defaultdict(list)
    for utterance in utterances:
        strata[utterance.label(column) if column else None].append(utterance)
    taken: set[str] = set()
    for members in strata.values():
        members.sort(key=lambda utterance: (address(seed, "fraction", utterance.id), utterance.id))
        enough = share * math.fsum(sorted(utterance.seconds for utterance in members)) * (1 - 1e-9)
        for utterance in members:
            taken.add(utterance.id)
            enough -= utterance.seconds
            if enough <= 0:
                break
    return tuple(utterance for utterance in utterances if utterance.id in taken)


def hold_out(utterances: Sequence[Utterance], share: float, seed: int) -> dict[str, tuple[Utterance, ...]]:
    """Cut a corpus into `train` and `valid`; `valid` is ten minutes at most.

    Speakers are apart where at least four are known, and an utterance without one goes by itself; else utterances are
    drawn.

    Raises:
        DataError: There are fewer than two utterances.
    """
    if len(utterances) < 2:
        raise DataError(
            f"corpus: {len(utterances)} utterances are left beside those kept for testing, expected at least two, one "
            "to learn from and one to validate on; add audio or change the split column"
        )
    share = min(share, _HELD / math.fsum(utterance.seconds for utterance in utterances))
    speakers = {utterance.speaker for utterance in utterances} - {None}
    by = "speaker" if len(speakers) >= 4 else "utterance"
    parts = split(utterances, {"train": 1 - share, "valid": share}, seed, by)
    held = math.fsum(utterance.seconds for utterance in parts["valid"])
    return {**parts, "valid": fraction(parts["valid"], min(1.0, _HELD / held), seed)}  # a speaker may talk for hours


def _groups(utterances: tuple[Utterance, ...], by: Literal["speaker", "utterance"]) -> dict[_Group, list[Utterance]]:
    groups: dict[_Group, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        if by == "utterance":
            group = (utterance.id,)
        else:
            group = ("", utterance.id) if utterance.speaker is None else (utterance.speaker,)
        groups[group].append(utterance)
    return groups


def _fills(group: _Group) -> bool:
    """Say whether a part that has this group is not empty; a stray file in it does not count beside speakers."""
    return len(group) == 1
