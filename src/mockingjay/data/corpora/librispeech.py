"""LibriSpeech as it unpacks: `<set>/<speaker>/<chapter>/<speaker>-<chapter>-<utterance>.flac`, `.trans.txt` a chapter.

The set is the split. The root may be the folder of all sets or a single set, or one that holds labels as well;
SPEAKERS.TXT, where it is there, gives the gender. Phones come from the TextGrids of a forced aligner, beside the audio
or in any folder below the root, by the utterance's id; or, where there are none, from the CPC authors' file. Where
their split lists are there, they say what is in the corpus (see cpc.py).
"""

import re
from collections.abc import Mapping
from pathlib import Path

from mockingjay.audio import Header, shown
from mockingjay.core.errors import DataError
from mockingjay.data.alignments import Alignment, read_textgrid
from mockingjay.data.corpora import cpc
from mockingjay.data.corpora.listing import Elsewhere, Entry, listed, mostly
from mockingjay.data.corpora.tree import Tree
from mockingjay.data.manifest import Corpus
from mockingjay.data.quarantine import Refusal

_AUDIO = re.compile(r"(?:(?:.*/)?([^/]+)/)?(\d+)/(\d+)/((\d+)-(\d+)-\d+)\.(?:flac|wav|ogg|opus|mp3)")
_GRID = re.compile(r"(?:.*/)?(\d+-\d+-\d+)\.textgrid")
_TRANSCRIPT = re.compile(r"(?:.*/)?(\d+)/(\d+)/\1-\2\.trans\.txt")


def read_librispeech(tree: Tree) -> Corpus | None:
    """Read a LibriSpeech tree; None where there is no chapter's transcript, or most audio lies otherwise.

    Raises:
        DataError: A transcript has a line that is none, or no audio can be used.
    """
    transcripts = [file for file in tree.files if _TRANSCRIPT.fullmatch(file)]
    if not transcripts:
        return None
    matches = [match for file in tree.audio if (match := _AUDIO.fullmatch(file))]
    if not mostly(tree, len(matches), [file for file in tree.audio if not _AUDIO.fullmatch(file)], "LibriSpeech"):
        return None
    texts: dict[str, str] = {}
    for file in transcripts:
        texts.update(_texts(tree.path(file)))
    genders = _genders(tree)
    times, refused = _times(tree)
    if splits := cpc.splits(tree):
        refused += _unlisted(tree, {match[4] for match in matches}, splits)
        matches = [match for match in matches if match[4] in splits]
    return listed(
        tree,
        (
            Entry(
                file=match[0],
                id=match[4],
                speaker=match[2],
                split=splits.get(match[4]) or match[1] or tree.name,
                text=texts.get(match[4]),
                labels={"chapter": match[3], **({"gender": genders[match[2]]} if match[2] in genders else {})},
            )
            for match in matches
        ),
        times,
        refused,
    )


def _times(tree: Tree) -> tuple[Elsewhere | None, list[Refusal]]:
    """Find the phones that do not lie beside their audio; of two kinds one is read, for their names differ."""
    grids = {match[1]: file for low, file in tree.beside.items() if (match := _GRID.fullmatch(low))}
    labels = cpc.found(tree, cpc.LABELS)
    if not grids:
        return (cpc.phone_times(labels) if labels else None), []

    def times(id: str, _: Header) -> Alignment | None:
        return read_textgrid(tree.path(grids[id])) if id in grids else None

    if labels is None:
        return times, []
    mend = "move the TextGrids away to have these"
    text = f"{shown(labels)}: not read, for there are TextGrids; {mend}"
    return times, [Refusal(labels, "alignment", text, mend)]


def _unlisted(tree: Tree, ids: set[str], splits: Mapping[str, str]) -> list[Refusal]:
    """Say how many utterances are in no list, and how many listed ones are not there.

    Raises:
        DataError: None of the listed ones is there.
    """
    where = next(filter(None, (cpc.found(tree, name) for name in cpc.SPLITS)), tree.root)
    if not ids & splits.keys():
        what = f"none of its {len(splits)} utterances is below {shown(tree.root)}"
        raise DataError(f"{shown(where)}: {what}, expected train-clean-100; unpack it there, or move the list away")
    beyond, missing = len(ids - splits.keys()), len(splits.keys() - ids)
    refused = []
    if beyond:
        mend = "move the lists away to read the whole tree"
        text = f"{shown(where)}: {beyond} utterances are in no split list and left out; {mend}"
        refused.append(Refusal(where, "protocol", text, mend))
    if missing:
        mend = "unpack the corpus again"
        text = f"{shown(where)}: {missing} of its {len(splits)} utterances have no audio; {mend}"
        refused.append(Refusal(where, "missing", text, mend))
    return refused


def _texts(path: str) -> dict[str, str]:
    texts = {}
    try:
        for number, line in enumerate(Path(path).read_text("utf-8").splitlines(), 1):
            id, _, words = line.strip().partition(" ")
            if id and not words:
                what = f"{line!r}, expected an utterance's id and its words"
                raise DataError(f"{path}:{number}: {what}; mend that line")
            texts[id] = words
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}), expected a transcript; unpack the corpus again") from None
    return texts


def _genders(tree: Tree) -> dict[str, str]:
    """Read SPEAKERS.TXT: `speaker | F or M | set | minutes | name`."""
    if not tree.holds("SPEAKERS.TXT"):
        return {}
    lines = Path(tree.path("SPEAKERS.TXT")).read_text("utf-8", "replace").splitlines()
    rows = [[field.strip() for field in line.split("|")] for line in lines if not line.startswith(";") and "|" in line]
    return {row[0]: row[1].lower() for row in rows}
