r"""The text of a manifest becomes entries: each a path, what it is to be, and the line that says so.

Both forms are read: names without a slash, relative to the directory that the entries before have entered (``..``
leaves it), and whole paths. ``/set`` and ``/unset`` give defaults. A backslash at the end of a line continues it.

Knows: the format, and which of its words say something of a node. Refuses to know: trees.

Source: mtree(5) of FreeBSD, of NetBSD, and of libarchive, whose differences are noted where they are.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from blockwright.errors import Corrupt, LimitExceeded
from blockwright.tree.changes.text import MAX_LINE, Line, shown
from blockwright.tree.mtree.escape import unescape
from blockwright.tree.node import MAX_ID, MAX_NAME

MAX_ENTRIES: Final = 1 << 22
MAX_DEPTH: Final = 4096
"""Directories that relative entries have entered, below one another."""
MAX_PATH: Final = 4096
_KEPT: Final = 65536
"""Words, and directories, whose meaning is kept for the next time."""
_SPECIAL: Final = frozenset({b"", b".", b".."})

TYPES: Final = {
    b"file": stat.S_IFREG,
    b"dir": stat.S_IFDIR,
    b"link": stat.S_IFLNK,
    b"char": stat.S_IFCHR,
    b"block": stat.S_IFBLK,
    b"fifo": stat.S_IFIFO,
    b"socket": stat.S_IFSOCK,
}
DIGESTS: Final = {
    b"cksum": "cksum",
    b"md5": "md5",
    b"md5digest": "md5",
    b"rmd160": "ripemd160",
    b"rmd160digest": "ripemd160",
    b"ripemd160digest": "ripemd160",
    b"sha1": "sha1",
    b"sha1digest": "sha1",
    b"sha256": "sha256",
    b"sha256digest": "sha256",
    b"sha384": "sha384",
    b"sha384digest": "sha384",
    b"sha512": "sha512",
    b"sha512digest": "sha512",
}
_DIGEST_LENGTH: Final = {"md5": 32, "ripemd160": 40, "sha1": 40, "sha256": 64, "sha384": 96, "sha512": 128}
_NOTHING: Final = frozenset({b"nlink", b"inode", b"ino", b"dev", b"resdevice", b"tags", b"ignore"})
"""Words that say what cannot be chosen, or nothing of the node itself."""
_BARE: Final = frozenset({b"optional", b"ignore", b"nochange"})
_PACKED: Final = frozenset(
    b"native 386bsd 4bsd bsdos freebsd hpux isc linux netbsd osf1 sco solaris sunos svr3 svr4 ultrix".split()
)


@dataclass(slots=True)
class Entry:
    """What a manifest says of the node at ``path`` (no slash in front); None is nothing.

    ``kind`` is as ``stat.S_IFMT`` gives it. ``contents`` is a file of the host. ``digests`` are by name of
    ``hashlib``, in hexadecimal, or a decimal number for ``cksum``.
    """

    path: bytes
    line: Line
    kind: int | None = None
    permissions: int | None = None
    uid: int | None = None
    gid: int | None = None
    uname: bytes | None = None
    gname: bytes | None = None
    size: int | None = None
    mtime_ns: int | None = None
    target: bytes | None = None
    device: tuple[int, int] | None = None
    contents: bytes | None = None
    digests: dict[str, str] = field(default_factory=dict)
    optional: bool = False
    nochange: bool = False


Meaning = tuple[str, object] | None
"""What a word says: the name of what it sets of an entry, and its value; None for nothing."""


def parse(data: bytes, source: str) -> list[Entry]:
    """Return the entries of a manifest in their order. ``source`` is what messages call it.

    Raises Corrupt, Unsupported or LimitExceeded, with the line.
    """
    return _Parser().run(data, source)


class _Parser:
    """One manifest. What words and directories mean is kept, since most come again and again."""

    def __init__(self) -> None:
        self._found: list[Entry] = []
        self._defaults: dict[bytes, Meaning] = {}
        self._place: list[bytes] = []
        self._words: dict[bytes, tuple[bytes, Meaning]] = {}
        self._folders: dict[bytes, bytes] = {}

    def run(self, data: bytes, source: str) -> list[Entry]:
        """Return the entries."""
        for line, words in _lines(data, source):
            first = words[0]
            if first == b"/set":
                self._defaults.update(self._word(each, line) for each in words[1:])
            elif first == b"/unset":
                for each in words[1:]:
                    self._defaults.pop(each, None)
                    if each == b"all":
                        self._defaults.clear()
            elif first == b"..":
                self._leave(words, line)
            else:
                self._entry(words, line)
        return self._found

    def _leave(self, words: list[bytes], line: Line) -> None:
        if len(words) > 1:
            raise line.corrupt(f"expected .. alone, found {shown(words[1])}")
        if not self._place:
            raise line.corrupt("..: expected a directory to leave, found the root")
        self._place.pop()

    def _entry(self, words: list[bytes], line: Line) -> None:
        if len(self._found) == MAX_ENTRIES:
            raise LimitExceeded(f"expected at most {MAX_ENTRIES} entries, found more", source=str(line))
        first = words[0]
        whole = b"/" in first
        entry = Entry(self._whole(first, line) if whole else _path(first, self._place, line), line)
        meanings = dict(self._defaults)
        meanings.update([self._word(each, line) for each in words[1:]])
        for meaning in meanings.values():
            if meaning is None:
                continue
            name, value = meaning
            if name == "digests":
                assert isinstance(value, tuple)
                entry.digests[value[0]] = value[1]
            else:
                setattr(entry, name, value)
        self._found.append(entry)
        if not whole and entry.kind == stat.S_IFDIR:
            self._place = entry.path.split(b"/") if entry.path else [b""]
            if len(self._place) > MAX_DEPTH:
                raise LimitExceeded(f"expected at most {MAX_DEPTH} directories, found more", source=str(line))

    def _whole(self, text: bytes, line: Line) -> bytes:
        """Return the path that a text with slashes is."""
        folder, _, name = text.rpartition(b"/")
        known = self._folders.get(folder)
        if not known or name in _SPECIAL or len(name) > MAX_NAME or b"\\" in name or b"\0" in name:
            path = _path(text, [], line)
            if len(self._folders) < _KEPT and name not in _SPECIAL:
                self._folders[folder] = path.rpartition(b"/")[0]
            return path
        path = known + b"/" + name
        return path if len(path) <= MAX_PATH else _path(text, [], line)

    def _word(self, word: bytes, line: Line) -> tuple[bytes, Meaning]:
        """Return a word's name, and what it says."""
        known = self._words.get(word)
        if known is None:
            name, equals, value = word.partition(b"=")
            if not name or (not equals and name not in _BARE):
                raise line.corrupt(f"expected word=value, found {shown(word)}")
            known = name, _meaning(name, value, line)
            if len(self._words) < _KEPT and len(word) < 64:  # digests are each their own
                self._words[word] = known
        return known


def _lines(data: bytes, source: str) -> Iterator[tuple[Line, list[bytes]]]:
    """Yield the words of each line that says something."""
    pending: list[bytes] = []
    length = first = 0
    for number, raw in enumerate(data.split(b"\n"), 1):
        if not pending:
            first, length = number, 0
        length += len(raw)
        if length > MAX_LINE:
            raise LimitExceeded(f"expected at most {MAX_LINE} bytes, found more", source=f"{source}: line {first}")
        raw = raw.removesuffix(b"\r")  # noqa: PLW2901  # as other systems end lines
        if raw.endswith(b"\\") and not raw.endswith(b"\\\\"):
            pending.append(raw[:-1])
            continue
        whole = b" ".join([*pending, raw]) if pending else raw
        pending = []
        words = whole.split()
        if words and not words[0].startswith(b"#"):
            yield Line(source, first), _before_comment(words) if b"#" in whole else words
    if pending:
        raise Corrupt("expected a line behind the last backslash, found the end", source=f"{source}: line {first}")


def _before_comment(words: list[bytes]) -> list[bytes]:
    for index, word in enumerate(words):
        if word.startswith(b"#"):
            return words[:index]
    return words


def _path(text: bytes, place: list[bytes], line: Line) -> bytes:
    try:
        parts = [unescape(each) for each in text.split(b"/")]
    except ValueError:
        raise line.corrupt(f"expected an escape behind the backslash, found {shown(text)}") from None
    parts = [each for each in [*place, *parts] if each not in (b"", b".")]
    for part in parts:
        if part == b".." or b"/" in part or b"\0" in part or len(part) > MAX_NAME:
            raise line.corrupt(f"expected names of 1 to {MAX_NAME} bytes, found {shown(part)}")
    path = b"/".join(parts)
    if len(path) > MAX_PATH:
        raise LimitExceeded(f"expected a path of at most {MAX_PATH} bytes, found {len(path)}", source=str(line))
    return path


def _meaning(name: bytes, value: bytes, line: Line) -> Meaning:
    """Return what one word says. Raises Corrupt, Unsupported."""
    if name in DIGESTS:
        return "digests", (DIGESTS[name], _digest(DIGESTS[name], value, line))
    if name in _WORDS:
        field, read = _WORDS[name]
        return field, read(value, line)
    if name in (b"optional", b"nochange"):
        return name.decode(), True
    if name == b"flags":
        if value not in (b"none", b""):
            raise line.unsupported(f"flags: expected none, which is all that Linux has of them, found {shown(value)}")
    elif name not in _NOTHING:
        raise line.unsupported(f"expected a word of mtree(5), found {shown(name)}")
    return None


def _digest(name: str, value: bytes, line: Line) -> str:
    if name == "cksum":
        return str(_number(value, line, "cksum", 10, 0xFFFFFFFF))
    text = value.decode("ascii", "replace").lower()
    if not re.fullmatch(f"[0-9a-f]{{{_DIGEST_LENGTH[name]}}}", text):
        raise line.corrupt(f"{name}: expected {_DIGEST_LENGTH[name]} hexadecimal digits, found {shown(value)}")
    return text


def _number(value: bytes, line: Line, what: str, base: int, most: int) -> int:
    digits = rb"[0-7]{1,22}" if base == 8 else rb"[0-9]{1,19}"
    number = int(value, base) if re.fullmatch(digits, value) else -1
    if not 0 <= number <= most:
        raise line.corrupt(
            f"{what}: expected a number up to {most:{'o' if base == 8 else 'd'}}, found {shown(value)}"
        )
    return number


def _time(value: bytes, line: Line) -> int:
    """Return nanoseconds. What is behind the point is their number, however many digits it has: so all readers do."""
    match = re.fullmatch(rb"(-?[0-9]{1,18})(?:\.([0-9]{0,9}))?", value)
    if match is None:
        raise line.corrupt(f"time: expected seconds.nanoseconds, found {shown(value)}")
    return int(match[1]) * 10**9 + int(match[2] or b"0")


def _device(value: bytes, line: Line) -> tuple[int, int]:
    parts = value.split(b",")
    if len(parts) == 3 and parts[0] in _PACKED:
        parts = parts[1:]
    elif len(parts) == 1:
        number = _any_base(value, line)
        # As Linux packs them in 64 bits.
        major = number >> 8 & 0xFFF | number >> 32 & 0xFFFFF000
        return major, number & 0xFF | number >> 12 & 0xFFFFFF00
    else:
        raise line.unsupported(f"device: expected FORMAT,MAJOR,MINOR, found {shown(value)}")
    major, minor = (_any_base(each, line) for each in parts)
    if max(major, minor) > 0xFFFFFFFF:
        raise line.corrupt(f"device: expected numbers of 32 bits, found {shown(value)}")
    return major, minor


def _any_base(value: bytes, line: Line) -> int:
    match = re.fullmatch(rb"(0[xX][0-9a-fA-F]{1,16})|(0[0-7]{0,22})|([1-9][0-9]{0,19})", value)
    number = -1
    if match is not None:
        number = int(value, 16 if match[1] else 8 if match[2] else 10)
    if not 0 <= number < 1 << 64:
        raise line.corrupt(f"device: expected a number, found {shown(value)}")
    return number


def _unescaped(value: bytes, line: Line) -> bytes:
    try:
        found = unescape(value)
    except ValueError:
        raise line.corrupt(f"expected an escape behind the backslash, found {shown(value)}") from None
    if b"\0" in found or not found:
        raise line.corrupt(f"expected bytes without NUL, found {shown(value)}")
    return found


def _kind(value: bytes, line: Line) -> int:
    kind = TYPES.get(value)
    if kind is None:
        raise line.corrupt(f"type: expected one of {b', '.join(TYPES).decode()}, found {shown(value)}")
    return kind


_WORDS: Final[dict[bytes, tuple[str, Callable[[bytes, Line], object]]]] = {
    b"type": ("kind", _kind),
    b"mode": ("permissions", lambda value, line: _number(value, line, "mode", 8, 0o7777)),
    b"uid": ("uid", lambda value, line: _number(value, line, "uid", 10, MAX_ID)),
    b"gid": ("gid", lambda value, line: _number(value, line, "gid", 10, MAX_ID)),
    b"uname": ("uname", _unescaped),
    b"gname": ("gname", _unescaped),
    b"size": ("size", lambda value, line: _number(value, line, "size", 10, (1 << 63) - 1)),
    b"time": ("mtime_ns", _time),
    b"link": ("target", _unescaped),
    b"device": ("device", _device),
    b"contents": ("contents", _unescaped),
    b"content": ("contents", _unescaped),
}
"""Words that say something of a node: where it is kept, and how it is read."""
