"""Exports as a value: from a TOML file, or as the command line has them.

    default = "root"

    [exports.root]
    image = "root.img"            # relative to the file's own directory; all that IMAGE can be
    description = "the root disk"
    read-only = true
    overlay = "scratch"           # true keeps writes in memory
    block-size = "4k,64k,32M"     # minimum, preferred, maximum
    connections = 4
    track = ["daily=daily.map"]   # tells clients what changed since it was first served so
    allow = ["10.0.0.0/8", "unix,user=backup"]
    allow-read = ["cn=monitor"]

Knows: keys and what values they take. Refuses to know: how a disk is opened, and how it is served.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from blockwright.address import parse_address
from blockwright.build.definition import Definition, RootOptions, Table
from blockwright.codec.lines import lines_of
from blockwright.errors import BlockwrightError, FormatError, NotFound, UsageError
from blockwright.format.registry import NAMES
from blockwright.nbd.protocol.session import BlockSizes
from blockwright.nbd.server.access import access_list
from blockwright.nbd.server.export import Export
from blockwright.serve.image import Image, parse_track
from blockwright.units import MiB, parse_fraction, parse_new_size, parse_size

MAX_FILE: Final = 4 * MiB
"""Bytes of a file of exports."""
MAX_EXPORTS: Final = 10_000

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class ExportDefinition:
    """An export: what it serves, and all that ``Export`` takes, as values that can be compared."""

    name: str
    image: Image
    description: str = ""
    blocks: BlockSizes | None = None
    connections: int | None = None
    listed: bool = True
    resizable: bool = False
    allow: tuple[str, ...] = ()
    allow_read: tuple[str, ...] = ()

    def export(self) -> Export:
        """Return the export, its device not open yet. Raises UsageError."""
        return Export(
            self.name,
            self.image,
            description=self.description,
            read_only=not self.image.writable,
            blocks=self.blocks,
            connections=self.connections,
            listed=self.listed,
            resizable=self.resizable,
            access=access_list(self.allow, self.allow_read),
        )


@dataclass(frozen=True, slots=True)
class ExportsFile:
    """What a file of exports says: exports, and the name of the one that an empty name asks for."""

    exports: tuple[ExportDefinition, ...] = ()
    default: str | None = None


def parse_block_size(text: str) -> BlockSizes:
    """Return ``MIN,PREFERRED,MAX`` as sizes. Raises UsageError; whether they fit each other an export tells."""
    parts = text.split(",")
    if len(parts) != 3:
        raise UsageError(f"block size {text[:64]!r}: expected MIN,PREFERRED,MAX such as 512,4k,32M")
    return BlockSizes(*(parse_size(part) for part in parts))


def read_exports(path: str, disk: Definition | None = None) -> ExportsFile:
    """Return the exports of the TOML file at ``path``; ``disk`` is how directories become disks unless it says so.

    Raises FormatError that names file, line and key; NotFound, OSError.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file") from None
    if len(data) > MAX_FILE:
        raise FormatError(f"exports: expected at most {MAX_FILE} bytes, found more", source=path)
    try:
        text = data.decode()
        document = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise FormatError("exports: expected UTF-8", source=path, offset=error.start) from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is one, and so is a number that is too long
        raise FormatError(f"exports: {_lowered(str(error) or 'nested too deeply')}", source=path) from None
    return _Reader(path, text, disk or Definition()).file(document)


class _Reader:
    """Reads one file's document."""

    def __init__(self, path: str, text: str, disk: Definition) -> None:
        self._path = path
        self._lines = lines_of(text)
        self._disk = disk
        self._folder = os.path.dirname(os.path.abspath(path))

    def file(self, document: Mapping[str, Any]) -> ExportsFile:
        self._known(document, {"default": "", "exports": ""}, ())
        tables = self._value(document, "exports", dict, {}, ())
        if len(tables) > MAX_EXPORTS:
            raise self._error((), "exports", f"expected at most {MAX_EXPORTS} exports, found {len(tables)}")
        exports = tuple(self._export(name, table) for name, table in tables.items())
        default = self._value(document, "default", str, None, ())
        if default is not None and default not in tables:
            raise self._error((), "default", f"expected the name of an export, found {default!r}")
        return ExportsFile(exports, default)

    def _export(self, name: str, table: object) -> ExportDefinition:
        at = ("exports", name)
        if not isinstance(table, dict):
            raise self._error(("exports",), name, f"expected a table, found {_kind(table)}")
        self._known(table, _KEYS, at)
        blocks = self._value(table, "block-size", str, None, at)
        connections = self._value(table, "connections", int, None, at)
        if connections is not None and connections < 1:
            raise self._error(at, "connections", f"expected at least 1, found {connections}")
        made = ExportDefinition(
            name,
            self._image(table, at),
            description=self._value(table, "description", str, "", at),
            blocks=None if blocks is None else self._parsed(at, "block-size", parse_block_size, blocks),
            connections=connections,
            listed=self._value(table, "listed", bool, True, at),
            resizable=self._value(table, "resizable", bool, False, at),
            allow=self._texts(table, "allow", at),
            allow_read=self._texts(table, "allow-read", at),
        )
        for key in ("allow", "allow-read"):
            self._parsed(at, key, access_list, self._texts(table, key, at))
        self._parsed(at, "", ExportDefinition.export, made)
        return made

    def _image(self, table: Mapping[str, Any], at: tuple[str, ...]) -> Image:
        text = self._value(table, "image", str, None, at)
        if not text:
            raise self._error(at, "image", "expected what to serve, found nothing")
        overlay = table.get("overlay", False)
        if not isinstance(overlay, (bool, str)):
            raise self._error(at, "overlay", f"expected true or a file name, found {_kind(overlay)}")
        if overlay == "" or (isinstance(overlay, str) and "\0" in overlay):
            raise self._error(at, "overlay", "expected true or a file name, found another text")
        form = self._value(table, "from", str, None, at)
        if form not in (None, *NAMES):
            raise self._error(at, "from", f"expected {' or '.join(NAMES)}, found {form!r}")
        partition = self._value(table, "partition", int, None, at)
        text = self._parsed(at, "image", self._resolved, text)
        self._parsed(at, "partition", lambda number: parse_address(text, partition=number), partition)
        return Image(
            text,
            partition=partition,
            writable=not self._value(table, "read-only", bool, False, at),
            form=form,
            allow_backing=tuple(os.path.join(self._folder, each) for each in self._texts(table, "allow-backing", at)),
            overlay=bool(overlay),
            overlay_file=os.path.join(self._folder, overlay) if isinstance(overlay, str) else None,
            force_unlocked=self._value(table, "force-unlocked", bool, False, at),
            track=self._parsed(
                at, "track", lambda texts: parse_track(texts, self._folder), self._texts(table, "track", at)
            ),
            disk=self._definition(table, at),
        )

    def _resolved(self, text: str) -> str:
        """Return the address with a path made absolute: relative ones begin where the file of exports lies."""
        if text.startswith(("mem:", "null:")) or "://" in text:
            return text
        return os.path.join(self._folder, text.removeprefix("file:"))

    def _definition(self, table: Mapping[str, Any], at: tuple[str, ...]) -> Definition:
        size = self._value(table, "size", str, None, at)
        free = self._value(table, "free", str, None, at)
        kind = self._value(table, "table", str, None, at)
        kinds = [each.value for each in Table]
        if kind is not None and kind not in kinds:
            raise self._error(at, "table", f"expected one of {', '.join(kinds)}, found {kind!r}")
        base = self._disk
        made = replace(
            base,
            table=base.table if kind is None else Table(kind),
            size=base.size if size is None else self._parsed(at, "size", parse_new_size, size),
            seed=self._value(table, "seed", str, base.seed, at),
            root=RootOptions(
                free=base.root.free if free is None else self._parsed(at, "free", parse_fraction, free),
                label=self._value(table, "label", str, base.root.label, at),
            ),
        )
        self._parsed(at, "", Definition.check, made)
        return made

    # -- values and where they stand -------------------------------------------------------------------------

    def _value(
        self, table: Mapping[str, Any], key: str, kind: type[_Value], default: Any, at: tuple[str, ...]
    ) -> Any:
        value = table.get(key, default)
        if key in table and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise self._error(at, key, f"expected {_NAMES[kind]}, found {_kind(value)}")
        if isinstance(value, str) and "\0" in value:
            raise self._error(at, key, "expected a text without NUL")
        return value

    def _texts(self, table: Mapping[str, Any], key: str, at: tuple[str, ...]) -> tuple[str, ...]:
        values = self._value(table, key, list, [], at)
        if not all(isinstance(each, str) and "\0" not in each for each in values):
            raise self._error(at, key, "expected a list of texts without NUL, found another value in it")
        return tuple(values)

    def _parsed(self, at: tuple[str, ...], key: str, parse: Any, value: Any) -> Any:
        try:
            return parse(value)
        except BlockwrightError as error:
            raise self._error(at, key, str(error)) from None

    def _known(self, table: Mapping[str, Any], keys: Iterable[str], at: tuple[str, ...]) -> None:
        for key in table:
            if key not in keys:
                raise self._error(at, key, f"expected one of {', '.join(keys)}, found another key")

    def _error(self, at: tuple[str, ...], key: str, message: str) -> FormatError:
        where = ".".join([*at, key] if key else at)
        line = self._line(at, key)
        place = f"{self._path}:{line}" if line else self._path
        return FormatError(f"{where[:200]}: {message}", source=place)

    def _line(self, at: tuple[str, ...], key: str) -> int | None:
        """Return the line of a key, or else of its table, as far as a look at the text tells."""
        start, found = 0, None
        if at:
            header = re.compile(r"\s*\[\s*" + r"\s*\.\s*".join(map(_spelled, at)) + r"\s*\]")
            found = next((number for number, line in enumerate(self._lines, 1) if header.match(line)), None)
            if found is None:
                return None
            start = found
        wanted = re.compile(r"\s*" + _spelled(key) + r"\s*[=.]")
        for number, line in enumerate(self._lines[start:], start + 1):
            if key and wanted.match(line):
                return number
            if at and line.lstrip().startswith("["):
                break
        return found


def _spelled(key: str) -> str:
    """Return a pattern for a key, bare or quoted."""
    return rf"""["']?{re.escape(key)}["']?"""


def _kind(value: object) -> str:
    return _NAMES.get(type(value), type(value).__name__)


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


_NAMES: Final[dict[type, str]] = {
    str: "a text",
    int: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
    float: "a fraction",
}
_KEYS: Final = (
    "image",
    "description",
    "read-only",
    "overlay",
    "partition",
    "from",
    "allow-backing",
    "block-size",
    "connections",
    "listed",
    "resizable",
    "track",
    "allow",
    "allow-read",
    "force-unlocked",
    "table",
    "size",
    "free",
    "label",
    "seed",
)
