"""Any folder of audio, at any depth.

An utterance's id is its path below the folder without the suffix. The first level of folders names the speakers, where
there are at least two that hold audio; where the first word of each is train, dev, valid, test or eval, they name the
split and the second level names the speakers. A .TextGrid, .phn, .lab or .csv file beside an audio file, or a .ctm or
.csv file in the folder, gives its phone times; a .txt file (or a .lab without times) its words. A single audio file is
a corpus of one. A folder without any audio is searched for features made elsewhere, as .npy files.
"""

import os
from collections import Counter

from mockingjay.audio import holds_features, shown
from mockingjay.core.errors import DataError
from mockingjay.data.corpora.listing import Entry, listed
from mockingjay.data.corpora.tree import AUDIO, Tree, stem, suffix
from mockingjay.data.manifest import Corpus
from mockingjay.data.splits import role


def read_folder(tree: Tree) -> Corpus:
    """Read a folder of audio, or one audio file; every path is taken as one.

    Raises:
        DataError: There is no audio, or none that can be used.
    """
    if tree.is_file:
        folder, file = os.path.split(tree.root)
        if suffix(file) not in AUDIO and not holds_features(file):
            what = f"a file that ends in {suffix(file) or 'nothing'}"
            mend = "name a folder of audio, an audio file, a manifest (.jsonl) or a list (.csv, .tsv)"
            raise DataError(f"{shown(tree.root)}: {what}, expected a corpus; {mend}")
        return listed(Tree(folder), [Entry(file, shown(stem(file)))])
    if not tree.audio:
        if tree.refused:
            raise DataError(tree.refused[0].text)
        what = f"no audio in {len(tree.files)} files" if tree.files else "an empty folder"
        mend = "name a folder with wav, flac, ogg, opus or mp3 files, at any depth"
        raise DataError(f"{shown(tree.root)}: {what}, expected audio; {mend}")
    stems = Counter(stem(file) for file in tree.audio)
    levels = [file.split("/")[:-1] for file in tree.audio]
    names = {level[0] for level in levels if level}
    splits = bool(names) and all(role(name) for name in names)
    place = 1 if splits else 0
    speakers = {level[place] for level in levels if len(level) > place}
    return listed(
        tree,
        (
            Entry(
                file=file,
                id=shown(stem(file) if stems[stem(file)] == 1 else file),
                speaker=shown(level[place]) if len(speakers) > 1 and len(level) > place else None,
                split=shown(level[0]) if splits and level else None,
            )
            for file, level in zip(tree.audio, levels)
        ),
    )
