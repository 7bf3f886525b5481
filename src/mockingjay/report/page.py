"""The page: headings, words and blocks in, one HTML file out.

The file needs nothing but itself. Its content policy forbids scripts and every fetch, so it looks the same from a disk,
a mail or an archive, and what users wrote (file names, labels, paths) can only ever be text.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mockingjay.core.files import write_atomically


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table; the best of its column is marked."""

    text: str
    note: str = ""  # a second, smaller line: an interval, a unit
    best: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns; the first cell of each row is its heading."""

    caption: str
    columns: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    foot: tuple[tuple[Cell, ...], ...] = ()  # rows set apart below a rule, such as what guessing reaches


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture: SVG text drawn by us, or the bytes of a PNG."""

    image: str | bytes
    alt: str
    caption: str

    @property
    def html(self) -> Markup:
        """The element that shows it, with its alternative text."""
        if isinstance(self.image, bytes):
            data = base64.b64encode(self.image).decode("ascii")
            return Markup('<img src="data:image/png;base64,{}" alt="{}">').format(data, self.alt)
        assert self.image.startswith("<svg "), "inline pictures are SVG"
        drawn = Markup(self.image.removeprefix("<svg "))  # noqa: S704 (drawn by us, labels escaped)
        return Markup('<svg role="img" aria-label="{}" ').format(self.alt) + drawn


@dataclass(frozen=True, slots=True)
class Code:
    """Text kept as it is; folded away under its caption where it is long."""

    text: str
    caption: str = ""
    folded: bool = False


@dataclass(frozen=True, slots=True)
class KeyValues:
    """Names with their values."""

    items: tuple[tuple[str, str], ...]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Aligned:
    """What was said set against what was meant, unit by unit; errors carry a sign, colour alone says nothing."""

    caption: str
    pairs: tuple[tuple[str, str], ...]  # meant and said; "" where nothing stands opposite

    @property
    def units(self) -> tuple[tuple[str, str, str], ...]:
        """What stands above, what stands below, and S, D or I for an error."""
        signs = ("" if meant == said else "I" if not meant else "S" if said else "D" for meant, said in self.pairs)
        return tuple((unit(meant), unit(said), sign) for (meant, said), sign in zip(self.pairs, signs))


Block = Table | Figure | Code | KeyValues | Aligned


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, its words (paragraphs parted by an empty line) and its blocks."""

    title: str
    text: str
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """Everything a report says, in reading order."""

    title: str
    summary: str  # paragraphs parted by an empty line
    command: str  # what reproduces the run
    sections: tuple[Section, ...]


def key_values(values: Mapping[str, Any], caption: str = "") -> KeyValues:
    """Lay nested mappings out as readable names and values."""
    return KeyValues(tuple(_leaves(values, "")), caption)


def unit(name: str) -> str:
    """Write a unit so that it is seen, the blank between words and nothing at all too."""
    return {"": "\N{EN DASH}", " ": "\N{OPEN BOX}"}.get(name, name)


def render(page: Page) -> str:
    """Set a page as HTML; the same page gives the same text."""
    return _template().render(page=page, style=Markup(_source("page.css")))  # noqa: S704


def write_page(path: Path, page: Page) -> None:
    """Write a page as one self-contained HTML file, whole or not at all.

    Raises:
        MachineError: The file cannot be written.
    """
    # A path that is no valid text still has to appear in its report.
    write_atomically(path, render(page).encode("utf-8", "backslashreplace"))


@cache
def _template() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["unbroken"] = _unbroken
    environment.filters["breakable"] = _breakable
    environment.tests["of"] = lambda block, name: type(block).__name__ == name
    return environment.from_string(_source("page.html.j2"))


def _unbroken(text: str) -> str:
    """Keep a number with its unit, an interval, and a word with the dot after it, in one line."""
    return re.sub(r"(?<=\d) (?=%)| (?=·)|(?<=\d,) (?=[-\d.]+\])", "\N{NO-BREAK SPACE}", text)


def _breakable(name: str) -> Markup:
    """Let a long name break after its punctuation."""
    return Markup("<wbr>").join(re.split(r"(?<=[:/_-])", name))


def _source(name: str) -> str:
    return files("mockingjay.report").joinpath(name).read_text("utf-8")


def _leaves(values: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    items: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            items += _leaves(value, f"{prefix}{_spaced(name)} › ")
        else:
            items.append((f"{prefix}{_spaced(name)}", _readable(value)))
    return items


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _readable(value: Any) -> str:
    if value is None or value == "":
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    if isinstance(value, list | tuple):
        return ", ".join(_readable(item) for item in value) or "none"
    return str(value)
