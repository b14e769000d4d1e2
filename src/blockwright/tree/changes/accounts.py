"""Users and groups of an image: its own /etc/passwd and /etc/group, never the host's.

Knows: those files (passwd(5), group(5)), and how an owner is written. Refuses to know: whose files are changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from blockwright.errors import LimitExceeded, NotFound, UsageError
from blockwright.tree.content import Content
from blockwright.tree.lookup import lookup
from blockwright.tree.node import MAX_ID, Directory, File
from blockwright.units import MiB

MAX_FILE: Final = 16 * MiB
"""Bytes of a file of the tree that is read for what it says."""

Readable = Callable[[Content], Content]
"""Returns a content that can be read for one of the tree. Raises UsageError where that cannot be."""


def as_it_is(content: Content) -> Content:
    """Return the content, which can be read anywhere."""
    return content


class Account(NamedTuple):
    """A line of /etc/passwd."""

    name: bytes
    uid: int
    gid: int
    home: bytes


def read_file(root: Directory, path: bytes, readable: Readable = as_it_is) -> bytes | None:
    """Return what the tree's file at ``path`` holds, links followed within the tree; None where there is no file.

    Raises LimitExceeded beyond ``MAX_FILE`` bytes, and what reading raises.
    """
    node = lookup(root, path)
    if not isinstance(node, File):
        return None
    content = node.content
    if content.size > MAX_FILE:
        shown = path.decode("utf-8", "replace")
        raise LimitExceeded(f"/{shown}: expected at most {MAX_FILE} bytes, found {content.size}")
    buffer = bytearray(content.size)
    if content.size:
        readable(content).read_into(0, memoryview(buffer))
    return bytes(buffer)


class Accounts:
    """What a tree's own files say of users and groups; they are read when a name is first asked for."""

    def __init__(self, root: Directory, readable: Readable = as_it_is) -> None:
        self._root = root
        self._readable = readable
        self._users: dict[bytes, Account] | None = None
        self._groups: dict[bytes, int] | None = None

    def user(self, name: bytes) -> Account:
        """Return the user of that name. Raises NotFound."""
        if self._users is None:
            self._users = {}
            for fields in self._lines(b"etc/passwd", 7):
                uid, gid = _number(fields[2]), _number(fields[3])
                if uid is not None and gid is not None:
                    self._users.setdefault(fields[0], Account(fields[0], uid, gid, fields[5]))
        found = self._users.get(name)
        if found is None:
            raise NotFound(f"user {name.decode('utf-8', 'replace')[:64]!r}: is not in the image's /etc/passwd")
        return found

    def group(self, name: bytes) -> int:
        """Return the number of the group of that name. Raises NotFound."""
        if self._groups is None:
            self._groups = {}
            for fields in self._lines(b"etc/group", 4):
                gid = _number(fields[2])
                if gid is not None:
                    self._groups.setdefault(fields[0], gid)
        found = self._groups.get(name)
        if found is None:
            raise NotFound(f"group {name.decode('utf-8', 'replace')[:64]!r}: is not in the image's /etc/group")
        return found

    def uid(self, text: bytes) -> int:
        """Return the number of a user given by number or name. Raises NotFound, UsageError."""
        number = number_of(text, "user")
        return self.user(text).uid if number is None else number

    def gid(self, text: bytes) -> int:
        """Return the number of a group given by number or name. Raises NotFound, UsageError."""
        number = number_of(text, "group")
        return self.group(text) if number is None else number

    def owner(self, text: str) -> tuple[int | None, int | None]:
        """Return user and group as chown(1) reads them, None for what stays.

        ``USER``, ``USER:GROUP``, ``:GROUP``; ``USER:`` is that user and the user's own group.
        """
        user, colon, group = text.encode("utf-8", "surrogateescape").partition(b":")
        if not user and not group:
            raise UsageError(f"owner: expected USER:GROUP, names or numbers, found {text[:64]!r}")
        if colon and user and not group:
            account = self.user(user)
            return account.uid, account.gid
        return (self.uid(user) if user else None), (self.gid(group) if group else None)

    def _lines(self, path: bytes, count: int) -> list[list[bytes]]:
        data = read_file(self._root, path, self._readable) or b""
        lines = [line.split(b":") for line in data.split(b"\n")]
        return [fields for fields in lines if len(fields) >= count and fields[0]]


def number_of(text: bytes, what: str) -> int | None:
    """Return the number that ``text`` is, None where it is a name. Raises UsageError for one that is none."""
    if not re.fullmatch(rb"[0-9]+", text):
        return None
    number = _number(text)
    if number is None:
        raise UsageError(f"{what}: expected at most {MAX_ID}, found {text[:32].decode()}")
    return number


def _number(text: bytes) -> int | None:
    if not text.isdigit() or len(text) > 10 or int(text) > MAX_ID:
        return None
    return int(text)
