"""Corpora as people have them: each reader recognises its own layout, and the table is asked from the top."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

from mockingjay.data.corpora.asvspoof import read_asvspoof
from mockingjay.data.corpora.audiofolder import read_audiofolder
from mockingjay.data.corpora.csv import read_csv
from mockingjay.data.corpora.fairseq import read_fairseq
from mockingjay.data.corpora.features import read_features
from mockingjay.data.corpora.folder import read_folder
from mockingjay.data.corpora.kaldi import read_kaldi
from mockingjay.data.corpora.lhotse import read_lhotse
from mockingjay.data.corpora.librispeech import read_librispeech
from mockingjay.data.corpora.manifests import read_listed, read_several
from mockingjay.data.corpora.mosei import read_mosei
from mockingjay.data.corpora.nemo import read_nemo
from mockingjay.data.corpora.timit import read_timit
from mockingjay.data.corpora.tree import Tree
from mockingjay.data.corpora.voxceleb import read_voxceleb
from mockingjay.data.manifest import Corpus

__all__ = ["CORPORA", "Reader", "Tree", "open_corpus"]

Reader: TypeAlias = Callable[[Tree], Corpus | None]  # None: another layout

# Lists go before trees, for what somebody has written down is what is meant; of lists those that tell themselves by
# their first line go before those that are read by their suffix.
CORPORA: Mapping[str, Reader] = {
    "manifest": read_listed,
    "nemo": read_nemo,
    "lhotse": read_lhotse,
    "audiofolder": read_audiofolder,
    "fairseq": read_fairseq,
    "mosei": read_mosei,
    "csv": read_csv,
    "features": read_features,
    "kaldi": read_kaldi,
    "manifests": read_several,
    "asvspoof": read_asvspoof,
    "librispeech": read_librispeech,
    "timit": read_timit,
    "voxceleb": read_voxceleb,
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
            return replace(corpus, refused=(*tree.refused, *corpus.refused))
    raise AssertionError("the reader of folders takes everything")
