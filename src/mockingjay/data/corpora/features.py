"""Features made elsewhere, in Kaldi's tables: an `.scp` list, an `.ark`, or a folder with a `feats.scp`.

Paths begin at the list's folder, or where the recipe ran, up to two folders above. `utt2spk` and `text` beside the list
give speakers and words, where they are.
"""

# ruff: noqa: PTH120 -- paths stay as written: names may not be UTF-8, links stay

import os
from collections.abc import Iterator
from pathlib import Path

from mockingjay.audio import AudioError, holds_features, located, matrices, shown
from mockingjay.core.errors import DataError
from mockingjay.core.types import Utterance
from mockingjay.data.corpora.rows import anchored
from mockingjay.data.corpora.tree import Tree, measure, suffix
from mockingjay.data.lines import numbered
from mockingjay.data.manifest import Corpus, resolve
from mockingjay.data.quarantine import Refusal


def read_features(tree: Tree) -> Corpus | None:
    """Read a list or an archive; None where the path is neither, or lists something else.

    Raises:
        DataError: A line is wrong, or no matrix can be used.
    """
    path = tree.root if tree.is_file else tree.path("feats.scp")
    if suffix(path) not in (".scp", ".ark") or not Path(path).is_file():
        return None
    named = list(matrices(path) if suffix(path) == ".ark" else _listed(path))
    if named and not holds_features(named[0][1]):
        return None
    folder = Path(os.path.dirname(path))
    speakers, texts = ({id: rest for _, id, rest in _lines(folder / name)} for name in ("utt2spk", "text"))
    utterances: dict[str, Utterance] = {}
    refused = []
    for (id, name), found in zip(named, measure(name for _, name in named), strict=True):
        if id in utterances:
            raise DataError(f"{shown(path)}: id {id!r} stands twice, expected each once; rename or remove one of them")
        if isinstance(found, AudioError):
            refused.append(Refusal.of(found, id))
        else:
            # Who has no speakers writes the utterance's own id.
            speaker = speakers[id] if speakers.get(id) not in (None, "", id) else None
            utterances[id] = Utterance(id, name, found.seconds, speaker=speaker, text=texts.get(id) or None)
    if not utterances:
        mend = f"the first says: {refused[0].text}" if refused else "write it again"
        raise DataError(f"{shown(path)}: none of its {len(named)} matrices can be used, expected at least one; {mend}")
    return Corpus(tree.name, tuple(utterances.values()), tuple(refused))


def _listed(path: str) -> Iterator[tuple[str, str]]:
    """Yield (id, path) of a list; commands and parts of matrices are refused."""
    lines = list(_lines(Path(path)))
    begin = anchored(os.path.dirname(path), located(lines[0][2])[0] if lines else "")
    for number, id, place in lines:
        where = f"{shown(path)}:{number}"
        if not place or place.endswith("]"):
            what = f"{f'{id} {place}'.strip()!r}, expected an id and a place such as feats.ark:1234"
            raise DataError(f"{where}: {what}; write the list again, with whole matrices")
        name = resolve(place, begin, where)
        yield id, f"{name}:0" if suffix(name) == ".ark" else name


def _lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the number of every line, its first word, and the rest; nothing where there is no file."""
    for number, line in numbered(path, "lines of an id and what it stands for") if path.is_file() else ():
        id, *rest = line.split(maxsplit=1)
        yield number, id, "".join(rest)
