"""What the readers of unlisted corpora share: files become utterances, with their length and the labels beside them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from mockingjay.audio import AudioError, Header, shown
from mockingjay.core.errors import DataError
from mockingjay.core.types import Utterance
from mockingjay.data.alignments import Alignment, read_ctm, read_lab, read_phn, read_textgrid
from mockingjay.data.corpora.intervals import read_beside, read_by_id
from mockingjay.data.corpora.tree import Tree, measure, stem, suffix
from mockingjay.data.manifest import Corpus
from mockingjay.data.quarantine import Refusal


@dataclass(frozen=True, slots=True)
class Entry:
    """An audio file and what its place in the tree tells."""

    file: str  # relative to the root
    id: str
    speaker: str | None = None
    split: str | None = None
    text: str | None = None
    labels: dict[str, str] = field(default_factory=dict)


Elsewhere: TypeAlias = Callable[[str, Header], Alignment | None]  # phone times by id, where they do not lie beside


def listed(
    tree: Tree, entries: Iterable[Entry], elsewhere: Elsewhere | None = None, refused: Iterable[Refusal] = ()
) -> Corpus:
    """Measure the files and read the labels that lie beside them.

    Files whose header is wrong are refused; so are labels that cannot be read, but then their audio stays. Of files
    with one id, an utterance in two codings as a rule, the first is taken.

    Args:
        tree: Of the files.
        entries: In order.
        elsewhere: Asked for phone times where none lie beside; may raise DataError.
        refused: What is known to be unusable already.

    Raises:
        DataError: No file can be used.
    """
    refused = list(refused)
    entries = _once(tree, tuple(entries), refused)
    timed = _timed(tree, entries, refused)
    utterances = []
    for entry, found in zip(entries, measure(tree.path(entry.file) for entry in entries), strict=True):
        if isinstance(found, AudioError):
            refused.append(Refusal.of(found, entry.id))
        else:
            utterances.append(_utterance(tree, entry, found, timed, refused, elsewhere))
    if not utterances:
        raise DataError(
            f"{shown(tree.root)}: none of {len(entries)} audio files can be used, expected at least one; "
            f"the first says: {refused[0].text}"
        )
    return Corpus(tree.name, tuple(utterances), tuple(refused))


def mostly(tree: Tree, known: int, strange: Sequence[str], layout: str) -> bool:
    """Whether most audio lies as a layout has it; what lies otherwise is counted among what the tree refuses.

    Args:
        tree: Of the files.
        known: How many audio files lie so.
        strange: Those that do not.
        layout: Its name.
    """
    if not known or not strange:
        return known > 0
    count, first = known + len(strange), shown(strange[0])
    if known < len(strange):
        mend = "name their folder alone to have these"
        what = f"{known} of {count} audio files lie as in {layout}, and all are read without its splits and labels"
    else:
        mend = "move them to a folder of their own to use them"
        what = f"{len(strange)} of {count} audio files (first {first}) lie otherwise than in {layout} and are left out"
    tree.refused.append(Refusal(tree.root, "protocol", f"{shown(tree.root)}: {what}; {mend}", mend))
    return known >= len(strange)


def _once(tree: Tree, entries: tuple[Entry, ...], refused: list[Refusal]) -> tuple[Entry, ...]:
    """Take each id once: what is read is kept by it, and a manifest with an id twice would be refused."""
    taken: dict[str, Entry] = {}
    for entry in entries:
        taken.setdefault(entry.id, entry)
    again = [entry for entry in entries if taken[entry.id] is not entry]
    if again:
        mend = "remove or rename one of the two"
        first = f"{shown(again[0].file)}, {again[0].id!r} as {shown(taken[again[0].id].file)}"
        text = f"{shown(tree.root)}: {len(again)} audio files have the id of another (first {first}) and are left out"
        refused.append(Refusal(tree.root, "protocol", f"{text}; {mend}", mend))
    return tuple(taken.values())


def _utterance(
    tree: Tree,
    entry: Entry,
    found: Header,
    timed: dict[str, Alignment],
    refused: list[Refusal],
    elsewhere: Elsewhere | None,
) -> Utterance:
    text, alignment = entry.text, None
    try:
        text, alignment = _beside(tree, stem(entry.file).lower(), text)
        alignment = alignment or (elsewhere(entry.id, found) if elsewhere else None)
    except DataError as error:
        refused.append(
            Refusal(tree.path(entry.file), "alignment", str(error), "mend or remove the label file", entry.id)
        )
    return Utterance(
        id=entry.id,
        path=tree.path(entry.file),
        seconds=found.seconds,
        speaker=entry.speaker,
        split=entry.split,
        text=text,
        labels=entry.labels,
        alignment=alignment or timed.get(entry.id),
    )


def _beside(tree: Tree, beside: str, text: str | None) -> tuple[str | None, Alignment | None]:
    """Read the labels beside a file: its phones, and its words where they are not known yet."""
    alignment = None
    if found := tree.beside.get(f"{beside}.textgrid"):
        alignment = read_textgrid(tree.path(found))
    elif found := tree.beside.get(f"{beside}.phn"):
        alignment = read_phn(tree.path(found))
    elif found := tree.beside.get(f"{beside}.lab"):
        alignment = read_lab(tree.path(found))
        text = text if alignment or text is not None else words(tree.path(found))
    if alignment is None and (found := tree.beside.get(f"{beside}.csv")):
        alignment = read_beside(tree.path(found))
    if text is None and (found := tree.beside.get(f"{beside}.txt")):
        text = words(tree.path(found))
    return text, alignment


def words(path: str) -> str:
    """Read a transcript.

    Raises:
        DataError: It is not UTF-8, or cannot be read.
    """
    try:
        return " ".join(Path(path).read_text("utf-8-sig").split())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{shown(path)}: cannot be read ({error}), expected words in UTF-8; save it again") from None


_TIMED: Mapping[str, Callable[[str], dict[str, Alignment]]] = {".ctm": read_ctm, ".csv": read_by_id}


def _timed(tree: Tree, entries: Sequence[Entry], refused: list[Refusal]) -> dict[str, Alignment]:
    """Read the CTM files and the CSV files of phone times at the root, by the ids of whose they are.

    An entry's times go by its id, its path, or its file's name alone where no other file has that name.
    """
    timed: dict[str, Alignment] = {}
    for low, file in tree.beside.items():
        if suffix(low) in _TIMED and "/" not in file:
            try:
                timed.update(_TIMED[suffix(low)](tree.path(file)))
            except DataError as error:
                refused.append(Refusal(tree.path(file), "alignment", str(error), "mend or remove the label file"))
    timed = {**{id.lower(): alignment for id, alignment in timed.items()}, **timed}
    if not timed:
        return {}
    places = {entry.id: stem(entry.file).lower() for entry in entries}
    found = {id: times for id, place in places.items() if (times := timed.get(id) or timed.get(place))}
    names = Counter(place.rpartition("/")[2] for place in set(places.values()))
    bare = {id: name for id, place in places.items() if id not in found and (name := place.rpartition("/")[2]) in timed}
    shared = [id for id, name in bare.items() if names[name] > 1]
    if shared:
        mend = "give the times by the utterances' ids"
        text = (
            f"{shown(tree.root)}: {len(shared)} audio files (first {shared[0]!r}) have a name that others have too, "
            f"and phone times under that name alone are not taken for theirs; {mend}"
        )
        refused.append(Refusal(tree.root, "alignment", text, mend))
    return {**{id: timed[name] for id, name in bare.items() if names[name] == 1}, **found}
