"""Corpora as people have them: each reader recognises its own layout, and the table is asked from the top."""

import os
from collections.abc import Callable, Mapping
from typing import TypeAlias

from mockingjay.data.corpora.csv import read_csv
from mockingjay.data.corpora.features import read_features
from mockingjay.data.corpora.folder import read_folder
from mockingjay.data.corpora.librispeech import read_librispeech
from mockingjay.data.corpora.manifests import read_listed, read_several
from mockingjay.data.corpora.timit import read_timit
from mockingjay.data.corpora.tree import Tree
from mockingjay.data.manifest import Corpus

__all__ = ["CORPORA", "Reader", "Tree", "open_corpus"]

Reader: TypeAlias = Callable[[Tree], Corpus | None]  # None: another layout

CORPORA: Mapping[str, Reader] = {
    "manifest": read_listed,
    "csv": read_csv,
    "features": read_features,
    "manifests": read_several,
    "librispeech": read_librispeech,
    "timit": read_timit,
    "folder": read_folder,
}


def open_corpus(path: str | os.PathLike[str]) -> Corpus:
    """Read whatever corpus lies at a path; audio is not decoded, and files that cannot be used are in `refused`.

    Raises:
        DataError: Nothing is there, or no file of it can be used, or a list is wrong.
    """
    tree = Tree(path)
    for reader in CORPORA.values():
        corpus = reader(tree)
        if corpus is not None:
            return corpus
    raise AssertionError("the reader of folders takes everything")
