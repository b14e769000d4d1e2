"""``blockwright fs chmod | chown | touch | setxattr | label``: what a file system says of its files, and of itself.

Knows: arguments, and symbolic modes. Refuses to know: file systems.
"""

from __future__ import annotations

import re
import stat as stat_module
from collections.abc import Iterator
from datetime import UTC, datetime

import click

from blockwright.cli.editing import Target, edits, encode, join, now_ns, parse_mode, parse_owner
from blockwright.cli.output import print_json, print_lines
from blockwright.cli.params import json_option
from blockwright.errors import NotFound, UsageError
from blockwright.fs.editor import Attributes
from blockwright.fs.reader import FileSystem
from blockwright.resolve import open_file_system
from blockwright.tree.node import File

_CLAUSE = re.compile(r"(?P<who>[ugoa]*)(?P<how>[+=-])(?P<what>[rwxXst]*)")
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}


@click.command(context_settings={"ignore_unknown_options": True})
@edits
@click.argument("mode")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-R", "--recursive", is_flag=True, help="Change everything below directories too.")
def chmod(target: Target, mode: str, paths: tuple[str, ...], recursive: bool) -> None:  # noqa: FBT001  # a click flag
    """Change permissions: MODE is octal, or says what to change, such as u+x or go-w,a+X.

    On FAT a file that nobody may write is read-only, and nothing else is kept.
    """
    new_mode(mode, 0o644, is_directory=False)  # refused before anything is opened
    with target.editing() as editor:
        for path in _everything(editor.files, paths, recursive=recursive):
            status = editor.files.stat(path, follow=not recursive)
            if status.kind == stat_module.S_IFLNK:
                continue
            is_directory = status.kind == stat_module.S_IFDIR
            permissions = new_mode(mode, status.mode & 0o7777, is_directory=is_directory)
            editor.set_attributes(path, Attributes(permissions=permissions))


def new_mode(text: str, before: int, *, is_directory: bool) -> int:
    """Return permissions as ``chmod`` reads them. Raises UsageError."""
    if text.isdecimal():
        return parse_mode(text)
    mode = before
    for clause in text.split(","):
        match = _CLAUSE.fullmatch(clause)
        if match is None:
            raise UsageError(f"mode: expected octal digits or clauses such as u+x,go-w, found {text[:64]!r}")
        mode = _changed(mode, match["who"] or "a", match["how"], match["what"], is_directory=is_directory)
    return mode


def _changed(mode: int, who: str, how: str, what: str, *, is_directory: bool) -> int:
    whose = "ugo" if "a" in who else who
    bits, every = 0, 0
    for each in whose:
        every |= 0o7 << _SHIFTS[each]
        for letter in what:
            executable = letter == "X" and (is_directory or mode & 0o111)
            bits |= (1 if executable else _BITS.get(letter, 0)) << _SHIFTS[each]
    if "s" in what:
        bits |= (0o4000 if "u" in whose else 0) | (0o2000 if "g" in whose else 0)
    if "t" in what:
        bits |= 0o1000
    if how == "+":
        return mode | bits
    if how == "-":
        return mode & ~bits
    every |= (0o4000 if "u" in whose else 0) | (0o2000 if "g" in whose else 0) | (0o1000 if "a" in who else 0)
    return mode & ~every | bits


@click.command()
@edits
@click.argument("owner", metavar="UID[:GID]")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-R", "--recursive", is_flag=True, help="Change everything below directories too.")
@click.option("-h", "--no-dereference", is_flag=True, help="Change a symbolic link itself.")
def chown(
    target: Target,
    owner: str,
    paths: tuple[str, ...],
    recursive: bool,  # noqa: FBT001  # a click flag
    no_dereference: bool,  # noqa: FBT001  # a click flag
) -> None:
    """Change owners, which are numbers: 0:0, 1000, :100."""
    uid, gid = parse_owner(owner)
    with target.editing() as editor:
        for path in _everything(editor.files, paths, recursive=recursive):
            follow = not (no_dereference or recursive)
            editor.set_attributes(path, Attributes(uid=uid, gid=gid), follow=follow)


@click.command()
@edits
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-d", "--date", metavar="TIME", help="ISO 8601, in UTC unless it says so, or @SECONDS since 1970.")
@click.option("-c", "--no-create", is_flag=True, help="Make no file where there is none.")
@click.option("-h", "--no-dereference", is_flag=True, help="Change a symbolic link itself.")
def touch(
    target: Target,
    paths: tuple[str, ...],
    date: str | None,
    no_create: bool,  # noqa: FBT001  # a click flag
    no_dereference: bool,  # noqa: FBT001  # a click flag
) -> None:
    """Set the times of files, and make empty ones where there are none."""
    time_ns = now_ns() if date is None else parse_time(date)
    with target.editing() as editor:
        for path in paths:
            try:
                found = Attributes(mtime_ns=time_ns, atime_ns=time_ns)
                editor.set_attributes(encode(path), found, follow=not no_dereference)
            except NotFound:
                if not no_create:
                    editor.put(encode(path), File(mtime_ns=time_ns), replace=False)


def parse_time(text: str) -> int:
    """Return nanoseconds since 1970. Raises UsageError."""
    match = re.fullmatch(r"@(-?)([0-9]{1,11})(?:\.([0-9]{1,9}))?", text)
    if match is not None:
        time_ns = int(match[2]) * 10**9 + int((match[3] or "").ljust(9, "0"))
        return -time_ns if match[1] else time_ns
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"time: expected 2024-02-29T12:00:00 or @SECONDS, found {text[:64]!r}") from None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000


@click.command()
@edits
@click.argument("path")
@click.argument("name")
@click.argument("value", required=False)
@click.option("--hex", "as_hex", is_flag=True, help="VALUE is hexadecimal.")
@click.option("--remove", is_flag=True, help="Remove the attribute.")
@click.option("-h", "--no-dereference", is_flag=True, help="Change a symbolic link itself.")
def setxattr(
    target: Target,
    path: str,
    name: str,
    value: str | None,
    as_hex: bool,  # noqa: FBT001  # a click flag
    remove: bool,  # noqa: FBT001  # a click flag
    no_dereference: bool,  # noqa: FBT001  # a click flag
) -> None:
    """Set the extended attribute NAME (user.…, security.…) of PATH to VALUE."""
    if remove == (value is not None):
        raise UsageError("setxattr: expected a value, or --remove")
    data = None if value is None else _value(value, as_hex=as_hex)
    with target.editing() as editor:
        editor.set_xattr(encode(path), encode(name), data, follow=not no_dereference)


def _value(text: str, *, as_hex: bool) -> bytes:
    if not as_hex:
        return encode(text)
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise UsageError(f"value: expected hexadecimal digits, found {text[:64]!r}") from None


@click.command()
@edits
@click.argument("new", required=False)
@json_option
def label(target: Target, new: str | None, as_json: bool) -> None:  # noqa: FBT001  # a click flag
    """Show the label of the file system on IMAGE, or change it to NEW."""
    if new is not None:
        with target.editing() as editor:
            editor.set_label(new)
        if not as_json:
            return
    device = target.open(writable=False)
    try:
        system = open_file_system(device, source=target.name)
    except BaseException:
        device.close()
        raise
    with system:
        if as_json:
            print_json("blockwright.fs.label/1", {"image": target.name, "kind": system.kind, "label": system.label})
        else:
            print_lines([system.label])


def _everything(files: FileSystem, paths: tuple[str, ...], *, recursive: bool) -> Iterator[bytes]:
    """Yield the paths, and with ``recursive`` all below them; each directory is listed before it is changed."""
    for path in map(encode, paths):
        stack = [path]
        while stack:
            each = stack.pop()
            status = files.stat(each, follow=not recursive)
            if recursive and status.kind == stat_module.S_IFDIR:
                stack += [join(each, entry.name) for entry in files.entries(status.inode)][::-1]
            yield each
