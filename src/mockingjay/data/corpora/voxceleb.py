"""VoxCeleb as it unpacks: `…/id10001/<video>/00001.wav`, the speaker's folder and the video's.

The splits are those of `iden_split.txt` (1 train, 2 dev, 3 test, then the file) where it is there. Without it they
follow the verification sets, whose `dev` is what is learnt from: files below a folder `…dev…` are train, below
`…test…` test. The video is a label.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from mockingjay.audio import shown
from mockingjay.core.errors import DataError
from mockingjay.data.corpora.listing import Entry, listed, mostly
from mockingjay.data.corpora.tree import Tree
from mockingjay.data.lines import numbered
from mockingjay.data.manifest import Corpus

_AUDIO = re.compile(r"(.*/)?((id\d{5})/([^/]+)/\d{5})\.\w+")
_LISTS = ("iden_split.txt", "veri_test_class.txt")
_SPLITS = {"1": "train", "2": "dev", "3": "test"}


def read_voxceleb(tree: Tree) -> Corpus | None:
    """Read a VoxCeleb tree; None where most audio lies otherwise.

    Raises:
        DataError: A line of the split is wrong, or no audio can be used.
    """
    # Of a file in two codings the last is taken: wav, not flac or m4a.
    matches = {match[2]: match for file in tree.audio if (match := _AUDIO.fullmatch(file))}
    if not mostly(tree, len(matches), [file for file in tree.audio if not _AUDIO.fullmatch(file)], "VoxCeleb"):
        return None
    splits = _splits(tree)
    return listed(
        tree,
        (
            Entry(
                file=match[0],
                id=shown(id),
                speaker=match[3],
                split=splits.get(id) if splits else _folder(match[1] or ""),
                labels={"video": shown(match[4])},
            )
            for id, match in matches.items()
        ),
    )


def _folder(above: str) -> str | None:
    named = re.search(r"(?:^|[/_-])(dev|test)(?:[/_-])", above.lower())
    return {"dev": "train", "test": "test"}[named[1]] if named else None


def _splits(tree: Tree) -> Mapping[str, str]:
    """Read which split each file is in, by its path from the speaker on, without suffix."""
    found = next((file for low, file in tree.beside.items() if low.rpartition("/")[2] in _LISTS), None)
    splits = {}
    for number, line in numbered(Path(tree.path(found)), "lines of a split's number and a file") if found else ():
        part, _, file = line.partition(" ")
        match = _AUDIO.fullmatch(file.strip())
        if part not in _SPLITS or not match:
            what = f"{line!r}, expected a split's number (1, 2, 3) and a file such as id10001/video/00001.wav"
            raise DataError(f"{shown(tree.path(found or ''))}:{number}: {what}; mend that line")
        splits[match[2]] = _SPLITS[part]
    return splits
