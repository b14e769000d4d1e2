"""A disk's definition from a TOML file.

    table = "gpt"
    size = "4G"
    sources = ["rootfs.tar.gz"]      # relative to the file's own directory
    boot = "systemd-boot"

    [[partition]]
    type = "esp"
    size = "256M"

    [[partition]]
    mount = "/"
    size = "rest"

Knows: how such a file is written, and where each key stands in it. Refuses to know: what keys mean (``keys``).
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from blockwright.build import keys
from blockwright.build.definition import Contradiction, Definition, PartitionDefinition
from blockwright.codec.lines import lines_of
from blockwright.errors import BlockwrightError, FormatError, NotFound, UsageError
from blockwright.oci.reference import meant
from blockwright.units import MiB

MAX_FILE: Final = 4 * MiB
"""Bytes of a file of a definition."""

_HEADER: Final = re.compile(r"\s*(\[\[?)([^\[\]]+)\]")
_KEY: Final = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*[=.]""")

Place = Callable[[str, int | None], str]


@dataclass(slots=True)
class Asked:
    """What somebody asks for, whatever they wrote it in: keys of the disk, its partitions, sources.

    ``others`` are options of the command that say nothing of the disk, such as the output's. ``place`` says where a
    key stands, for messages: of the disk, or of the partition of that index. ``remarks`` are for the user.
    """

    disk: dict[str, Any] = field(default_factory=dict)
    partitions: list[PartitionDefinition] = field(default_factory=list)
    sources: tuple[str, ...] = ()
    others: dict[str, Any] = field(default_factory=dict)
    place: Place = lambda _key, _index: ""
    remarks: list[str] = field(default_factory=list)

    def definition(self, time_s: int | None = None) -> Definition:
        """Return the disk. Raises FormatError with the place of the key, UsageError for a key that is in no file."""
        try:
            made = keys.definition_of(self.disk, self.partitions, time_s)
            made.check()
        except keys.KeyProblem as problem:
            place = self.place(problem.key, None)
            if not place:
                raise UsageError(f"build: --{problem.key}: {problem.message}") from None
            raise FormatError(f"{problem.key}: {problem.message}", source=place) from None
        except Contradiction as problem:
            place = self.place(problem.key, problem.index)
            if not place:
                raise
            raise FormatError(str(problem).removeprefix("build: "), source=place) from None
        return made


class Lines:
    """Where keys stand in a text of TOML, as far as a look at its lines tells."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._found: dict[tuple[int | None, str], int] = {}
        self._headers: dict[int, int] = {}
        index: int | None = None
        count, within, quoted = 0, True, False
        for number, line in enumerate(lines_of(text), 1):
            begins, quoted = not quoted, quoted ^ bool((line.count('"""') + line.count("'''")) % 2)
            header = _HEADER.match(line) if begins else None
            if header is not None:
                within = header[1] == "[[" and header[2].strip("\"' \t") == "partition"
                if within:
                    index, count = count, count + 1
                    self._headers[index] = number
                continue
            key = _KEY.match(line) if begins and within else None
            if key is not None:
                self._found.setdefault((index, key[1] or key[2] or key[3]), number)

    def __call__(self, key: str, index: int | None) -> str:
        """Return the file and the line of a key, or of its table's header."""
        line = self._found.get((index, key))
        if line is None and index is not None:
            line = self._headers.get(index, self._found.get((None, "partition")))
        return self._path if line is None else f"{self._path}:{line}"


def read_text(path: str) -> str:
    """Return what a file of a definition holds. Raises NotFound, FormatError, OSError."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        hint = meant(path, "a definition, and as SOURCE ")
        raise NotFound(f"{path}: no such file{hint}") from None
    if len(data) > MAX_FILE:
        raise FormatError(f"definition: expected at most {MAX_FILE} bytes, found more", source=path)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise FormatError("definition: expected UTF-8", source=path, offset=error.start) from None


def read_toml(path: str, options: Collection[str] = ()) -> Asked:
    """Return what the TOML file at ``path`` asks for; ``options`` are other keys that are the caller's to read.

    Raises FormatError that names file, line and key; NotFound, OSError.
    """
    return parse_toml(read_text(path), path, options)


def parse_toml(text: str, path: str, options: Collection[str] = ()) -> Asked:
    """Return what a text asks for, as of a file at ``path``. Raises FormatError; NotFound for files that it names."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also what an integer of too many digits raises
        message = str(error) or "nested too deeply"
        found = re.search(r"\(at line (\d+), column \d+\)", message)
        place = f"{path}:{found[1]}" if found else path
        if message.endswith("(at end of document)"):
            place = f"{path}:{max(len(lines_of(text)), 1)}"
        raise FormatError(f"definition: {message[:1].lower()}{message[1:]}", source=place) from None
    lines, folder = Lines(path, text), os.path.dirname(os.path.abspath(path))
    asked = Asked(place=lines)
    known = [*keys.DISK, "sources", "partition", *options]
    for name, value in document.items():
        if name == "partition":
            asked.partitions = _partitions(value, lines, folder)
        elif name == "sources":
            asked.sources = _within(name, None, lines, partial(_sources, value, folder))
        elif name in keys.DISK:
            asked.disk[name] = resolved(value, folder) if keys.DISK[name].path else value
            _within(name, None, lines, partial(keys.fields_of, keys.DISK, {name: asked.disk[name]}))
        elif name in options:
            asked.others[name] = value
        else:
            near = keys.suggestion(name, dict.fromkeys(known))
            raise FormatError(f"{name[:64]}: is not known{near}", source=lines(name, None))
    return asked


def _partitions(value: object, lines: Lines, folder: str) -> list[PartitionDefinition]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise FormatError("partition: expected tables of [[partition]]", source=lines("partition", None))
    made = []
    for index, table in enumerate(value):
        given = {
            name: resolved(each, folder) if name in keys.PARTITION and keys.PARTITION[name].path else each
            for name, each in table.items()
        }
        made.append(_within("", index, lines, partial(keys.partition_of, given)))
    return made


def _sources(value: object, folder: str) -> Any:
    return resolved(keys.texts(value), folder)


def _within(key: str, index: int | None, lines: Lines, read: Callable[[], Any]) -> Any:
    """Return what ``read`` returns; what it raises gets the place where it stands."""
    where = "" if index is None else f"partition {index + 1}: "
    try:
        return read()
    except keys.KeyProblem as problem:
        raise FormatError(f"{where}{problem.key}: {problem.message}", source=lines(problem.key, index)) from None
    except BlockwrightError as error:
        raise FormatError(f"{where}{key + ': ' if key else ''}{error}", source=lines(key, index)) from None


def resolved(value: Any, folder: str) -> Any:
    """Return paths made absolute: relative ones begin where the file lies. Other addresses, and values, stay."""
    if isinstance(value, (list, tuple)):
        return tuple(resolved(each, folder) for each in value)
    if not isinstance(value, str) or not value or value == "-" or "://" in value:
        return value
    if value.startswith(("mem:", "null:")):
        return value
    return os.path.join(folder, value.removeprefix("file:"))


def parse_partition(text: str) -> Mapping[str, Any]:
    """Return the keys of ``KEY=VALUE,KEY=VALUE``, or of a table of TOML in braces; a key that comes twice is a list.

    Raises KeyProblem.
    """
    if text.lstrip().startswith("{"):
        try:
            found: dict[str, Any] = tomllib.loads(f"partition = {text}")["partition"]
        except (ValueError, RecursionError) as error:
            raise keys.KeyProblem("partition", f"expected a table of TOML, found {text[:64]!a}: {error}") from None
        return found
    given: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, word = part.strip().partition("=")
        if not name:
            raise keys.KeyProblem("partition", f"expected KEY=VALUE, found {part[:64]!a}")
        value = _word(name, word) if equals else True
        if name in keys.PARTITION and keys.PARTITION[name].parse in (keys.texts, keys.placed):
            given.setdefault(name, []).append(value)
        elif name in given:
            raise keys.KeyProblem(name[:64], "expected it once, found it twice")
        else:
            given[name] = value
    return given


def _word(name: str, word: str) -> Any:
    """Return a word of the command line as TOML would have it: a number or a truth where its key wants one."""
    parse = keys.PARTITION[name].parse if name in keys.PARTITION else None
    if parse is keys.flag and word in ("true", "false"):
        return word == "true"
    return int(word) if parse is keys.number and word.isascii() and word.isdecimal() and len(word) < 20 else word
