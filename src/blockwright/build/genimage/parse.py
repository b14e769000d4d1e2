"""genimage's configuration language, which is libconfuse's: sections with a title, options with a value or a list.

Knows: how a text is written, and where. Refuses to know: what any option means.

Source: genimage 16, README.rst; libconfuse's manual, "The configuration file".
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from blockwright.errors import FormatError

MAX_DEPTH: Final = 8
MAX_INCLUDES: Final = 64
MAX_ITEMS: Final = 100_000

_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r\n\f\v]+)|(?P<comment>\#[^\n]*|//[^\n]*|/\*.*?\*/)|(?P<mark>\+=|[={}(),])
    |"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>(?:[^'\\]|\\.)*)'|(?P<word>(?:[^\s={}(),"'\#+]|\+(?!=))+)""",
    re.DOTALL | re.VERBOSE,
)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


class Token(NamedTuple):
    """A mark, or a word (``mark`` empty), and the line where it stands."""

    mark: str
    word: str
    line: int
    path: str

    @property
    def place(self) -> str:
        """The file and line."""
        return f"{self.path}:{self.line}"


@dataclass(slots=True)
class Option:
    """An option: its values, one unless it is a list, and where it stands."""

    name: str
    values: list[str]
    place: str


@dataclass(slots=True)
class Section:
    """A section: its title if it has one, what stands in it, and where it begins."""

    name: str
    title: str
    place: str
    options: dict[str, Option] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)

    def error(self, message: str) -> FormatError:
        """Return an error with the section's place."""
        title = f" {self.title[:64]}" if self.title else ""
        what = f"{self.name[:64]}{title}: " if self.name else ""
        return FormatError(f"{what}{message}", source=self.place)


Load = Callable[[str], str]


def parse(text: str, path: str, load: Load) -> Section:
    """Return the file's text as a section without a name; ``load`` reads what it includes. Raises FormatError."""
    root = Section("", "", path)
    _Parser(load).into(root, text, path, 0)
    return root


def tokens(text: str, path: str) -> Iterator[Token]:
    """Yield the tokens of a text. Raises FormatError."""
    position, line = 0, 1
    while position < len(text):
        if text.startswith("/*", position) and text.find("*/", position + 2) < 0:
            raise FormatError("expected the end of the comment, found the end of the file", source=f"{path}:{line}")
        match = _TOKEN.match(text, position)
        if match is None:
            raise FormatError(
                f"expected a word or a mark, found {text[position : position + 16]!a}", source=f"{path}:{line}"
            )
        kind, found = match.lastgroup, match[0]
        if kind in ("double", "single"):
            body = match[kind]
            if kind == "double" and "${" in body:
                raise FormatError(
                    f"expected no variable of the environment, found {body[:64]!a}", source=f"{path}:{line}"
                )
            yield Token("", _ESCAPE.sub(r"\1", body), line, path)
        elif kind == "mark":
            yield Token(found, found, line, path)
        elif kind == "word":
            yield Token("", found, line, path)
        line += found.count("\n")
        position = match.end()


class _Parser:
    """Reads a file and those that it includes."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._includes = 0
        self._items = 0

    def into(self, section: Section, text: str, path: str, depth: int) -> None:
        """Add what the text has to a section."""
        reader = iter(tokens(text, path))
        self._body(section, reader, depth, closing=False)

    def _body(self, section: Section, reader: Iterator[Token], depth: int, *, closing: bool) -> None:
        if depth > MAX_DEPTH:
            raise section.error(
                f"expected sections and files that include others at most {MAX_DEPTH} deep, found more"
            )
        for token in reader:
            self._items += 1
            if self._items > MAX_ITEMS:
                raise FormatError(f"expected at most {MAX_ITEMS} options and sections", source=token.place)
            if token.mark == "}" and closing:
                return
            if token.mark:
                raise FormatError(f"expected an option or a section, found {token.mark}", source=token.place)
            self._item(section, token, reader, depth)
        if closing:
            raise section.error("expected a brace that closes it, found the end of the file")

    def _item(self, section: Section, name: Token, reader: Iterator[Token], depth: int) -> None:
        token = _next(reader, name)
        if token.mark == "(" and name.word == "include":
            self._include(section, name, reader, depth)
        elif token.mark in ("=", "+="):
            values = _values(reader, token)
            before = section.options.get(name.word)
            if token.mark == "+=" and before is not None:
                before.values += values
            else:
                section.options[name.word] = Option(name.word, values, name.place)
        else:
            title = ""
            if not token.mark:
                title, token = token.word, _next(reader, token)
            if token.mark != "{":
                raise FormatError(
                    f"{name.word[:64]}: expected = or {{, found {token.word[:64]!a}", source=token.place
                )
            inner = Section(name.word, title, name.place)
            section.sections.append(inner)
            self._body(inner, reader, depth + 1, closing=True)

    def _include(self, section: Section, name: Token, reader: Iterator[Token], depth: int) -> None:
        file = _next(reader, name)
        if file.mark or _next(reader, file).mark != ")":
            raise FormatError('include: expected ("FILE")', source=name.place)
        self._includes += 1
        if self._includes > MAX_INCLUDES:
            raise FormatError(f"include: expected at most {MAX_INCLUDES} files, found more", source=name.place)
        path = os.path.join(os.path.dirname(name.path), file.word)
        self.into(section, self._load(path), path, depth + 1)


def _next(reader: Iterator[Token], before: Token) -> Token:
    token = next(reader, None)
    if token is None:
        raise FormatError(f"{before.word[:64]}: expected more, found the end of the file", source=before.place)
    return token


def _values(reader: Iterator[Token], before: Token) -> list[str]:
    token = _next(reader, before)
    if not token.mark:
        return [token.word]
    if token.mark != "{":
        raise FormatError(f"expected a value, found {token.mark}", source=token.place)
    values: list[str] = []
    while True:
        token = _next(reader, token)
        if token.mark == "}":
            return values
        if not token.mark:
            values.append(token.word)
        elif token.mark != ",":
            raise FormatError(f"expected a list of values, found {token.mark}", source=token.place)
