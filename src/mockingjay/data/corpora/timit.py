"""TIMIT as it unpacks: `TRAIN/DR1/FCJF0/SA1.WAV` with hand-made `.PHN` times beside it; upper or lower case.

The samples inside are NIST SPHERE or WAV. The speaker is the folder, the dialect region and the kind of sentence (sa,
si, sx) are labels, the gender is the speaker's first letter. The NLTK sample's `dr1-fvmh0/sa1.wav` is read as well.
"""

import re

from mockingjay.data.corpora.listing import Entry, listed, words
from mockingjay.data.corpora.tree import Tree, stem
from mockingjay.data.manifest import Corpus

_AUDIO = re.compile(r"(?:.*?/)??(?:(train|test)/)?(dr\d)[/-]([fm]\w{3}\d)/((s[aix])\d+)(?:\.\w+)+", re.IGNORECASE)


def read_timit(tree: Tree) -> Corpus | None:
    """Read a TIMIT tree; None where no file of its shape has a `.phn` beside it.

    Raises:
        DataError: No audio can be used.
    """
    matches = {}
    for file in tree.audio:
        match = _AUDIO.fullmatch(file)
        if match and f"{stem(file).lower()}.phn" in tree.beside:
            matches.setdefault(stem(file).lower(), match)  # a copy may hold SA1.WAV and SA1.WAV.wav
    if not matches:
        return None
    return listed(tree, (_entry(tree, match) for match in matches.values()))


def _entry(tree: Tree, match: re.Match[str]) -> Entry:
    part, dialect, speaker, sentence, kind = (group.lower() if group else None for group in match.groups())
    assert dialect and speaker and sentence and kind
    prompt = tree.beside.get(f"{stem(match[0]).lower()}.txt")
    return Entry(
        file=match[0],
        id="-".join(filter(None, (part, dialect, speaker, sentence))),
        speaker=speaker,
        split=part,
        # The first and the last sample stand before the words.
        text=words(tree.path(prompt)).lstrip("0123456789 ") if prompt else None,
        labels={"dialect": dialect, "gender": speaker[0], "sentence": kind},
    )
