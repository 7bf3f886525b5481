"""LibriSpeech as it unpacks: `<set>/<speaker>/<chapter>/<speaker>-<chapter>-<utterance>.flac`, `.trans.txt` a chapter.

The set is the split. The root may be the folder of all sets or a single set; SPEAKERS.TXT, where it is there, gives the
gender.
"""

import re
from pathlib import Path

from mockingjay.core.errors import DataError
from mockingjay.data.corpora.listing import Entry, listed
from mockingjay.data.corpora.tree import Tree
from mockingjay.data.manifest import Corpus

_AUDIO = re.compile(r"(?:(?:.*/)?([^/]+)/)?(\d+)/(\d+)/((\d+)-(\d+)-\d+)\.(?:flac|wav|ogg|opus|mp3)")
_TRANSCRIPT = re.compile(r"(?:.*/)?(\d+)/(\d+)/\1-\2\.trans\.txt")


def read_librispeech(tree: Tree) -> Corpus | None:
    """Read a LibriSpeech tree; None where there is no chapter's transcript.

    Raises:
        DataError: A transcript has a line that is none, or no audio can be used.
    """
    transcripts = [file for file in tree.files if _TRANSCRIPT.fullmatch(file)]
    matches = [match for file in tree.audio if (match := _AUDIO.fullmatch(file))]
    if not transcripts or not matches:
        return None
    texts: dict[str, str] = {}
    for file in transcripts:
        texts.update(_texts(tree.path(file)))
    genders = _genders(tree)
    return listed(
        tree,
        (
            Entry(
                file=match[0],
                id=match[4],
                speaker=match[2],
                split=match[1] or tree.name,
                text=texts.get(match[4]),
                labels={"chapter": match[3], **({"gender": genders[match[2]]} if match[2] in genders else {})},
            )
            for match in matches
        ),
    )


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
