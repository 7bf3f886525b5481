"""ASVspoof 2019 LA as it unpacks: protocols `ASVspoof2019.LA.cm.train.trn.txt` (dev, eval) and folders of flac.

A protocol's line is `speaker file - system key`. The label `spoof` is the key, bonafide or spoof; `attack` is the
system, A01 to A19, which bona fide speech has none of. The protocols are the splits train, dev and eval; one none of
whose files are there is passed over with a word.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from mockingjay.audio import shown
from mockingjay.core.errors import DataError
from mockingjay.data.corpora.rows import Row, gathered
from mockingjay.data.corpora.tree import Tree
from mockingjay.data.lines import numbered
from mockingjay.data.manifest import Corpus
from mockingjay.data.quarantine import Refusal

_PROTOCOL = re.compile(r"asvspoof2019\.la\.cm\.(train|dev|eval)\.tr[nl]\.txt")
_FIELDS = "speaker file - system key"


def read_asvspoof(tree: Tree) -> Corpus | None:
    """Read the protocols' files; None where there is no protocol.

    Raises:
        DataError: A protocol's line is wrong, or no audio can be used.
    """
    rows, refused = [], []
    for low, file in tree.beside.items():
        match = _PROTOCOL.fullmatch(low.rpartition("/")[2])
        if not match:
            continue
        listed = list(_rows(tree, file, match[1]))
        if any(row.path for row in listed):
            rows += listed
        else:
            what = f"none of its {len(listed)} files is below {shown(tree.root)}"
            mend = "unpack that part too, if it is wanted"
            refused.append(Refusal(tree.path(file), "missing", f"{shown(tree.path(file))}: {what}; {mend}", mend))
    return gathered(tree.name, tree.root, rows, refused) if rows else None


def _rows(tree: Tree, file: str, split: str) -> Iterator[Row]:
    path = tree.path(file)
    for number, line in numbered(Path(path), f"lines of '{_FIELDS}'"):
        where, fields = f"{shown(path)}:{number}", line.split()
        if len(fields) != 5 or fields[4] not in ("bonafide", "spoof") or (fields[3] == "-") != (fields[4] != "spoof"):
            raise DataError(f"{where}: {line!r}, expected '{_FIELDS}', the key bonafide or spoof; mend that line")
        speaker, id, _, system, key = fields
        yield Row(
            where=where,
            id=id,
            path=tree.path(tree.named[id]) if id in tree.named else None,
            speaker=speaker,
            split=split,
            labels={"spoof": key} if system == "-" else {"spoof": key, "attack": system},
        )
