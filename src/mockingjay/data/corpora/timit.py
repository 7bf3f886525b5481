"""TIMIT as it unpacks: `TRAIN/DR1/FCJF0/SA1.WAV` with hand-made `.PHN` times beside it; upper or lower case.

The samples inside are NIST SPHERE or WAV. The speaker is the folder, the dialect region and the kind of sentence (sa,
si, sx) are labels, the gender is the speaker's first letter. The NLTK sample's `dr1-fvmh0/sa1.wav` is read as well.

Below TRAIN and TEST the usual protocol holds: the two sa sentences, which everybody says, are left out; of the test
speakers 24 are the core test (the corpus's testset.doc) and the others dev.
"""

import re

from mockingjay.audio import shown
from mockingjay.data.alignments import read_phn
from mockingjay.data.corpora.listing import Entry, listed, mostly, words
from mockingjay.data.corpora.tree import Tree, stem
from mockingjay.data.manifest import Corpus
from mockingjay.data.quarantine import Refusal

_CORE = (
    "mdab0 mwbt0 felc0 mtas1 mwew0 fpas0 mjmp0 mlnt0 fpkt0 mlll0 mtls0 fjlm0 "
    "mbpm0 mklt0 fnlp0 mcmj0 mjdh0 fmgd0 mgrt0 mnjm0 fdhc0 mjln0 mpam0 fmld0"
)
CORE = frozenset(_CORE.split())

_AUDIO = re.compile(r"(?:.*?/)??(?:(train|test)/)?(dr\d)[/-]([fm]\w{3}\d)/((s[aix])\d+)(?:\.\w+)+", re.IGNORECASE)


def read_timit(tree: Tree) -> Corpus | None:
    """Read a TIMIT tree; None where most files are not of its shape with a `.phn` beside them.

    Raises:
        DataError: No audio can be used.
    """
    matches = {}
    for file in tree.audio:
        match = _AUDIO.fullmatch(file)
        if match and f"{stem(file).lower()}.phn" in tree.beside:
            matches.setdefault(stem(file).lower(), match)  # a copy may hold SA1.WAV and SA1.WAV.wav
    strange = [file for file in tree.audio if stem(file).lower() not in matches]
    if not mostly(tree, len(matches), strange, "TIMIT"):
        return None
    entries = [_entry(tree, match) for match in matches.values()]
    kept = [entry for entry in entries if entry.split is None or entry.labels["sentence"] != "sa"]
    left = len(entries) - len(kept)
    mend = "nothing is to be done"
    text = f"{shown(tree.root)}: {left} sa sentences are left out, as every speaker says the same two; {mend}"
    return listed(tree, kept, refused=[Refusal(tree.root, "protocol", text, mend)] if left else [])


def _entry(tree: Tree, match: re.Match[str]) -> Entry:
    part, dialect, speaker, sentence, kind = (group.lower() if group else None for group in match.groups())
    assert dialect and speaker and sentence and kind
    prompt = tree.beside.get(f"{stem(match[0]).lower()}.txt")
    spoken = tree.beside.get(f"{stem(match[0]).lower()}.wrd")
    return Entry(
        file=match[0],
        id="-".join(filter(None, (part, dialect, speaker, sentence))),
        speaker=speaker,
        split=("test" if speaker in CORE else "dev") if part == "test" else part,
        # The first and the last sample stand before the words.
        text=words(tree.path(prompt)).lstrip("0123456789 ") if prompt else _spoken(tree, spoken),
        labels={"dialect": dialect, "gender": speaker[0], "sentence": kind},
    )


def _spoken(tree: Tree, file: str | None) -> str | None:
    """Read the words of a .wrd file, which is written as a .phn is."""
    return " ".join(word for *_, word in read_phn(tree.path(file))) if file else None
