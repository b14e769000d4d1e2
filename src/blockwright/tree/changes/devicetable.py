"""Device tables, as makedevs of Buildroot reads them (genext2fs, mkfs.jffs2 and mkfs.ubifs nearly): read and applied.

A line is ``NAME TYPE MODE UID GID MAJOR MINOR START INC COUNT``; what is missing at its end, or ``-``, is nothing.
Types: ``d`` a directory, made where it is missing; ``f`` a file that has to be there, ``F`` one that may be; ``r``
everything at and below a path; ``c``, ``b``, ``p`` devices and FIFOs. A ``COUNT`` of two and more makes that many,
numbered from ``START`` on, with minors ``INC`` apart. A mode of ``-1`` stays what it is. ``|xattr cap_net_raw+ep``
gives capabilities to the file of the line before.

Knows: the format. Refuses to know: names of users outside of the tree.
"""

from __future__ import annotations

import re
import stat
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from blockwright.errors import LimitExceeded, NotFound, UsageError
from blockwright.tree.changes.accounts import Accounts, Readable, as_it_is
from blockwright.tree.changes.edit import TreeEdit, show_path
from blockwright.tree.changes.owners import set_permissions
from blockwright.tree.changes.text import MAX_LINE, Line, shown
from blockwright.tree.node import MAX_NAME, Directory, File, Node, Special, Symlink

MAX_COUNT: Final = 65536
"""Devices that one line makes."""
MAX_NUMBER: Final = 0xFFFFF
"""The greatest number in a line, as in makedevs: minors have 20 bits."""
MAX_MAJOR: Final = 0xFFF
MAX_NODES: Final = 1 << 20
"""Nodes that one table speaks of."""

CAPABILITIES: Final = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
]
"""Names by number, without ``cap_`` (include/uapi/linux/capability.h)."""

_KINDS: Final = {b"c": stat.S_IFCHR, b"b": stat.S_IFBLK, b"p": stat.S_IFIFO}


class Row(NamedTuple):
    """A line. ``permissions`` None stays as it is; ``capabilities`` is the attribute's value, None for none."""

    line: Line
    path: bytes
    kind: bytes
    permissions: int | None
    uid: bytes
    gid: bytes
    major: int
    minor: int
    start: int
    step: int
    copies: int
    capabilities: bytes | None


def parse_table(data: bytes, source: str) -> list[Row]:
    """Return the lines of a table. Raises Corrupt, Unsupported or LimitExceeded with the line."""
    rows: list[Row] = []
    nodes = 0
    for number, raw in enumerate(data.split(b"\n"), 1):
        line = Line(source, number)
        if len(raw) > MAX_LINE:
            raise LimitExceeded(f"expected at most {MAX_LINE} bytes, found {len(raw)}", source=str(line))
        words = raw.split()
        if not words or words[0].startswith(b"#"):
            continue
        if words[0] == b"|xattr":
            if not rows or rows[-1].kind not in (b"f", b"F"):
                raise line.corrupt("|xattr: expected behind the line of a file")
            rows[-1] = rows[-1]._replace(capabilities=parse_capabilities(b" ".join(words[1:]), line))
            continue
        row = _row(words, line)
        nodes += max(1, row.copies)
        if nodes > MAX_NODES:
            raise LimitExceeded(f"expected at most {MAX_NODES} nodes, found more", source=str(line))
        rows.append(row)
    return rows


def apply_table(root: Directory, rows: Sequence[Row], *, mtime_ns: int, readable: Readable = as_it_is) -> Directory:
    """Return the tree with a table's lines applied in their order; what is made new has ``mtime_ns``.

    Raises UsageError and NotFound with file and line.
    """
    edit = TreeEdit(root, mtime_ns)
    accounts = Accounts(root, readable)
    for row in rows:
        try:
            _apply(edit, row, accounts, mtime_ns)
        except (UsageError, NotFound) as error:
            kind = NotFound if isinstance(error, NotFound) else UsageError
            raise kind(f"{row.line}: {error}") from error
    return edit.finish()


def _apply(edit: TreeEdit, row: Row, accounts: Accounts, mtime_ns: int) -> None:
    uid, gid = accounts.uid(row.uid), accounts.gid(row.gid)
    if row.kind in _KINDS:
        _make_specials(edit, row, uid, gid, mtime_ns)
        return
    if row.kind == b"d":
        _set(edit.directory(row.path), row, uid, gid)
        return
    # As makedevs: a link is followed to the file that is meant, and is itself what is meant by r.
    node = edit.own(row.path, follow=row.kind != b"r")
    if row.kind == b"r":
        if node is None:
            raise NotFound(f"{show_path(row.path)}: is not in the tree")
        _set_below(edit, node, row, uid, gid)
        return
    if not isinstance(node, File):
        if row.kind == b"F":
            return
        raise NotFound(
            f"{show_path(row.path)}: expected a file, found {'nothing' if node is None else 'another type'}"
        )
    _set(node, row, uid, gid)
    if row.capabilities is not None:
        node.xattrs = {**node.xattrs, b"security.capability": row.capabilities}


def _set(node: Node, row: Row, uid: int, gid: int) -> None:
    node.uid, node.gid = uid, gid
    if row.permissions is not None and not isinstance(node, Symlink):
        set_permissions(node, row.permissions)


def _set_below(edit: TreeEdit, top: Node, row: Row, uid: int, gid: int) -> None:
    _set(top, row, uid, gid)
    stack = [top] if isinstance(top, Directory) else []
    while stack:
        directory = stack.pop()
        for name in directory.entries:
            node = edit.own_entry(directory, name)
            _set(node, row, uid, gid)
            if isinstance(node, Directory):
                stack.append(node)


def _make_specials(edit: TreeEdit, row: Row, uid: int, gid: int, mtime_ns: int) -> None:
    kind = _KINDS[row.kind]
    permissions = 0o644 if row.permissions is None else row.permissions
    several = row.copies > 1
    for index in range(max(1, row.copies)):
        name = row.path + (b"%d" % (row.start + index) if several else b"")
        minor = row.minor + index * row.step
        there = edit.find(name)
        if there is not None and there.kind != kind:
            raise UsageError(f"{show_path(name)}: is in the tree as something else")
        node = Special(
            kind,
            permissions,
            uid,
            gid,
            mtime_ns,
            major=row.major if kind != stat.S_IFIFO else 0,
            minor=minor if kind != stat.S_IFIFO else 0,
        )
        edit.enter(name, node)


def _row(words: list[bytes], line: Line) -> Row:
    if not 2 <= len(words) <= 10:
        raise line.corrupt(f"expected NAME TYPE MODE UID GID MAJOR MINOR START INC COUNT, found {len(words)} words")
    fields = [*words, *[b"-"] * (10 - len(words))]
    path, kind, mode, uid, gid = fields[:5]
    if kind not in (*_KINDS, b"d", b"f", b"F", b"r"):
        raise line.unsupported(f"type: expected one of d, f, F, r, c, b, p, found {shown(kind)}")
    parts = [each for each in path.split(b"/") if each not in (b"", b".")]
    if b".." in parts or b"\0" in path or any(len(each) > MAX_NAME for each in parts):
        raise line.corrupt(f"name: expected a path of names up to {MAX_NAME} bytes without .., found {shown(path)}")
    permissions = 0o755 if mode == b"-" else None if mode == b"-1" else _octal(mode, line)
    major, minor, start, step, count = (_number(each, line) for each in fields[5:])
    if major > MAX_MAJOR or minor + step * max(0, count - 1) > MAX_NUMBER or count > MAX_COUNT:
        raise line.corrupt(
            f"expected a major up to {MAX_MAJOR}, minors up to {MAX_NUMBER} and a count up to {MAX_COUNT}"
        )
    if kind in _KINDS and not parts:
        raise line.corrupt("name: expected one for a device")
    # As makedevs, nothing is the user and group who run it: which is root where images are made.
    user, group = (b"0" if each == b"-" else each for each in (uid, gid))
    return Row(line, b"/".join(parts), kind, permissions, user, group, major, minor, start, step, count, None)


def _octal(text: bytes, line: Line) -> int:
    if not re.fullmatch(rb"0*[0-7]{1,4}", text):
        raise line.corrupt(f"mode: expected up to four octal digits, or -1, found {shown(text)}")
    return int(text, 8)


def _number(text: bytes, line: Line) -> int:
    if text == b"-":
        return 0
    if not re.fullmatch(rb"[0-9]{1,10}", text) or int(text) > MAX_NUMBER:
        raise line.corrupt(f"expected a number up to {MAX_NUMBER}, or -, found {shown(text)}")
    return int(text)


def parse_capabilities(text: bytes, line: Line) -> bytes:
    """Return ``security.capability`` (revision 2) for a text such as ``cap_net_raw,cap_net_admin+ep``.

    Clauses are separated by white space; each names capabilities, or ``all`` for every one, and sets (``=``), adds
    (``+``) or takes (``-``) effective, inheritable and permitted. Raises Corrupt, Unsupported with the line.

    Source: cap_from_text(3); include/uapi/linux/capability.h.
    """
    sets = {"e": 0, "i": 0, "p": 0}
    clauses = text.split()
    if not clauses:
        raise line.corrupt("|xattr: expected capabilities such as cap_net_raw+ep, found nothing")
    for clause in clauses:
        match = re.fullmatch(rb"([a-z0-9_,]*)((?:[-+=][eip]*)+)", clause)
        if match is None:
            raise line.unsupported(f"|xattr: expected capabilities such as cap_net_raw+ep, found {shown(clause)}")
        wanted = _capability_bits(match[1].decode(), line)
        for operation, letters in re.findall(r"([-+=])([eip]*)", match[2].decode()):
            for name, bits in sets.items():
                if operation == "=":
                    sets[name] = bits & ~wanted | (wanted if name in letters else 0)
                elif name in letters:
                    sets[name] = bits | wanted if operation == "+" else bits & ~wanted
    effective, inheritable, permitted = sets["e"], sets["i"], sets["p"]
    if effective and effective != permitted | inheritable:
        raise line.unsupported("|xattr: a file's capabilities are effective all together, or none of them")
    low, high = 0xFFFFFFFF, 32
    return struct.pack(
        "<IIIII",
        0x02000000 | bool(effective),
        permitted & low,
        inheritable & low,
        permitted >> high,
        inheritable >> high,
    )


def _capability_bits(names: str, line: Line) -> int:
    if names in ("", "all"):
        return (1 << len(CAPABILITIES)) - 1
    bits = 0
    for name in names.split(","):
        short = name.removeprefix("cap_")
        if short == name or short not in CAPABILITIES:
            raise line.corrupt(f"|xattr: expected a capability such as cap_net_raw, found {name[:32]!r}")
        bits |= 1 << CAPABILITIES.index(short)
    return bits
