"""Our own manifests: a .jsonl file, a folder that holds manifest.jsonl, or a folder of such folders.

In the last case the folder's name is the label `corpus`; an id that two corpora share is given its corpus's name before
it, and audio that two manifests list (a derived set points at its source) is one utterance, with the labels of both.
Audio beside these folders that none of them lists is left out, or where that is most of it, all is read without them.
"""

from dataclasses import replace
from pathlib import Path

from mockingjay.core.types import Utterance
from mockingjay.data.corpora.listing import mostly
from mockingjay.data.corpora.tree import AUDIO, Tree, suffix
from mockingjay.data.lines import keys
from mockingjay.data.manifest import Corpus, read_manifest

_NAME = "manifest.jsonl"
_FOREIGN = {"audio_filepath", "file_name", "sources", "recording", "recording_id", "supervisions", "tracks"}


def read_listed(tree: Tree) -> Corpus | None:
    """Read one manifest; None where the path is neither a .jsonl file nor a folder that holds one, or it is another's.

    Raises:
        DataError: A line of it is wrong.
    """
    path = tree.root if tree.is_file else tree.path(_NAME)
    if not path.endswith(".jsonl") or not Path(path).is_file():
        return None
    first = keys(Path(path))
    return None if first & _FOREIGN and "path" not in first else read_manifest(path)


def read_several(tree: Tree) -> Corpus | None:
    """Read the manifests of all sub-folders; None where no sub-folder holds one, or most audio lies beside them.

    Raises:
        DataError: A line of one is wrong.
    """
    folders = [folder for folder in tree.folders if tree.holds(f"{folder}/{_NAME}")]
    if not folders:
        return None
    merged: dict[tuple[str, float], Utterance] = {}
    ids: set[str] = set()
    for folder in folders:
        for utterance in read_manifest(tree.path(f"{folder}/{_NAME}")).utterances:
            place = (utterance.path, utterance.start)
            if place in merged:
                merged[place] = _joined(merged[place], utterance)
                continue
            id = utterance.id if utterance.id not in ids else f"{folder}/{utterance.id}"
            ids.add(id)
            merged[place] = replace(utterance, id=id, labels={**utterance.labels, "corpus": folder})
    paths = {path for path, _ in merged}
    beside = [file for file in tree.audio if file.partition("/")[0] not in folders and suffix(file) in AUDIO]
    strange = [file for file in beside if tree.path(file) not in paths]
    return Corpus(tree.name, tuple(merged.values())) if mostly(tree, len(paths), strange, "several manifests") else None


def _joined(first: Utterance, other: Utterance) -> Utterance:
    """Add what a second manifest knows of the same audio."""
    return replace(
        first,
        speaker=first.speaker or other.speaker,
        split=first.split or other.split,
        text=first.text or other.text,
        labels={**other.labels, **first.labels},
        alignment=first.alignment or other.alignment,
    )
