"""Lists as text and as JSON lines, read strictly: the first wrong line is named."""

import gzip
import json
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mockingjay.audio import shown
from mockingjay.core.errors import DataError

_LONGEST = 1 << 26  # bytes of a line; a packed one can hold a thousand times what its file does


def numbered(path: Path, what: str = "a list", blanks: bool = False) -> Iterator[tuple[int, str]]:
    """Yield numbered lines without their ends; a byte-order mark is passed over, and blank lines as a rule.

    Args:
        path: The file; packed where it ends in .gz.
        what: It is expected to be, for the errors.
        blanks: Yield blank lines too.

    Raises:
        DataError: It cannot be read, or is not UTF-8.
    """
    number = 0
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            for number, line in enumerate(iter(partial(file.readline, _LONGEST + 1), b""), 1):
                if len(line) > _LONGEST:
                    large = f"{_LONGEST >> 20} MiB"
                    raise DataError(f"{shown(path)}:{number}: longer than {large}, expected {what}; write it again")
                text = line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").decode("utf-8").strip()
                if text or blanks:
                    yield number, text
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{shown(path)}: cannot be read ({reason}), expected {what}; check the path") from None
    except UnicodeDecodeError as error:
        byte = f"byte {error.object[error.start]:#04x} at column {error.start + 1}"
        raise DataError(
            f"{shown(path)}:{number}: not UTF-8 ({byte}), expected {what} in UTF-8; save it again as UTF-8"
        ) from None


def keyed(path: Path, what: str) -> dict[str, tuple[str, str]]:
    """Read lines of a key and the rest: key → (rest, `file:line`); nothing where there is no file.

    Raises:
        DataError: It cannot be read, or a key stands twice.
    """
    rows: dict[str, tuple[str, str]] = {}
    if not path.is_file():
        return rows
    for number, line in numbered(path, what):
        key, *rest = line.split(maxsplit=1)
        where = f"{shown(path)}:{number}"
        if key in rows:
            raise DataError(f"{where}: {key!r} stands already on another line, expected it once; remove one of them")
        rows[key] = (rest[0] if rest else "", where)
    return rows


def tables(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (`file:line`, object) of a file of JSON lines.

    Raises:
        DataError: It cannot be read, or a line is no JSON object.
    """
    for number, text in numbered(path, "JSON lines"):
        where = f"{shown(path)}:{number}"
        yield where, table(text, where)


def keys(path: Path) -> frozenset[str]:
    """Read the keys of the first line; none where it is no JSON object, which its reader will say."""
    try:
        return frozenset(next(tables(path))[1])
    except (DataError, StopIteration):
        return frozenset()


class _ConstantError(ValueError):
    """NaN or an infinity, which JSON does not have."""


def _refuse_constant(name: str) -> Any:
    raise _ConstantError(name)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [key for key, _ in pairs]
        raise KeyError(next(key for key in names if names.count(key) > 1))
    return row


_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)


def table(text: str, where: str) -> dict[str, Any]:
    """Read a line as a JSON object.

    Raises:
        DataError: It is none.
    """
    try:
        row = _JSON.decode(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON at column {error.colno} ({error.msg}); mend that line") from None
    except _ConstantError as error:
        raise DataError(f"{where}: holds {error}, expected finite numbers; use null for what is missing") from None
    except KeyError as error:
        raise DataError(f"{where}: key {error} stands twice, expected once; remove one of them") from None
    except RecursionError:
        raise DataError(f"{where}: nested too deeply, expected a flat object; mend that line") from None
    if not isinstance(row, dict):
        raise DataError(f'{where}: is a {type(row).__name__}, expected an object such as {{"id": …}}; mend that line')
    return row
