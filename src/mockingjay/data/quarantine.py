"""A bad file never stops a run within its budget: it is named once, with its fault and the mend, and left out."""

import contextlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mockingjay.audio import AudioError
from mockingjay.core.errors import DataError
from mockingjay.core.files import writing


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file that is left out, and why."""

    path: str
    kind: str  # a key of mockingjay.audio.KINDS, "alignment", or "protocol" for what a corpus's own rules leave out
    text: str  # the whole sentence
    mend: str
    id: str | None = None

    @classmethod
    def of(cls, error: AudioError, id: str | None = None) -> "Refusal":
        """Turn the error of a file into its refusal."""
        return cls(path=error.path, kind=error.kind, text=str(error), mend=error.mend, id=id)


class Quarantine:
    """The list of refused utterances, kept in `quarantine.jsonl`, and the share of the corpus it may hold.

    Args:
        path: The list's file; None keeps it in memory.
        budget: Share of the corpus that may be refused; a single utterance always may.
        anew: Forget what an earlier start refused, for it may have been mended since.

    Raises:
        MachineError: The list cannot be written.
    """

    def __init__(self, path: Path | None = None, budget: float = 0.01, anew: bool = False):
        self.budget = budget
        self._path = path
        self._texts: dict[str, str] = {}  # by id, for of a file's stretches one may be bad; by path where there is none
        if path is not None and anew:
            with writing(path, 0):
                path.unlink(missing_ok=True)
        elif path is not None and path.exists():
            for line in path.read_text("utf-8").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # what a crash tore will be refused again
                    row = json.loads(line)
                    self._texts[row["id"] or row["path"]] = row["text"]

    def __len__(self) -> int:
        return len(self._texts)

    def __contains__(self, id: str) -> bool:
        return id in self._texts

    @property
    def texts(self) -> tuple[str, ...]:
        """What is to be said of each utterance, in the order in which they were refused."""
        return tuple(self._texts.values())

    def add(self, refusal: Refusal) -> None:
        """Take an utterance in; its first fault is the one that is kept.

        Raises:
            MachineError: The list cannot be written.
        """
        key = refusal.id or refusal.path
        if key in self._texts:
            return
        self._texts[key] = refusal.text
        if self._path is None:
            return
        row = {
            "path": refusal.path,
            "id": refusal.id,
            "class": refusal.kind,
            "text": refusal.text,
            "first_seen": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        # One write in append mode, so that a second process cannot come in between.
        line = f"{json.dumps(row)}\n".encode()
        with writing(self._path, len(line)), self._path.open("ab", buffering=0) as file:
            file.write(line)

    def check(self, total: int) -> None:
        """Stop when more than the budget is refused.

        Args:
            total: Utterances of the whole corpus, the refused ones included.

        Raises:
            DataError: Too many are refused; the first three are named.
        """
        allowed = max(1, int(self.budget * total))
        if len(self) <= allowed:
            return
        first = " | ".join(list(self._texts.values())[:3])
        where = os.fspath(self._path) if self._path else "quarantine"
        raise DataError(
            f"{where}: {len(self)} of {total} files cannot be used, expected at most {allowed} ({self.budget:.1%}); "
            f"mend or remove them, or in pre-training allow more by upkeep.refused; the first are: {first}"
        )
