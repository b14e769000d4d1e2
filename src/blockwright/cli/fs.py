"""``blockwright fs``: look into a file system; what changes one is imported when it is called.

Knows: how files are listed and shown. Refuses to know: how they are changed (``fs_edit``, ``fs_put``, ``fs_mkfs``).
"""

from __future__ import annotations

import os
import stat as stat_module
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click

from blockwright.cli.lazy import LazyGroup, Subcommands
from blockwright.cli.options import (
    ImageFormat,
    force_option,
    force_unlocked_option,
    image_options,
    partition_option,
    quiet_option,
)
from blockwright.cli.output import print_json, print_lines, print_path, progress_bar, show_name, table, write_bytes
from blockwright.cli.params import json_option
from blockwright.convert import convert
from blockwright.device.base import BlockDevice
from blockwright.errors import UsageError
from blockwright.fs.reader import FileSystem, Stat
from blockwright.resolve import open_device, open_file_system
from blockwright.units import format_size

_KINDS = {
    stat_module.S_IFREG: "file",
    stat_module.S_IFDIR: "directory",
    stat_module.S_IFLNK: "symlink",
    stat_module.S_IFCHR: "character device",
    stat_module.S_IFBLK: "block device",
    stat_module.S_IFIFO: "fifo",
    stat_module.S_IFSOCK: "socket",
}


@dataclass(frozen=True, slots=True)
class Source:
    """The file system that a command reads, and how its image is opened."""

    image: str
    partition: int | None
    force_unlocked: bool
    image_format: ImageFormat

    def open(self) -> FileSystem:
        """Return the file system; closing it closes the image."""
        name = self.image if self.partition is None else f"{self.image}:{self.partition}"
        device = open_device(
            self.image,
            partition=self.partition,
            force_unlocked=self.force_unlocked,
            form=self.image_format.form,
            policy=self.image_format.policy,
        )
        try:
            return open_file_system(device, source=name)
        except BaseException:
            device.close()
            raise


def _image(command: Callable[..., Any]) -> Any:
    """Add the argument IMAGE and the options of opening it, and pass them as ``source``."""

    @wraps(command)
    def with_source(
        *, image: str, partition: int | None, force_unlocked: bool, image_format: ImageFormat, **others: Any
    ) -> Any:
        return command(source=Source(image, partition, force_unlocked, image_format), **others)

    return click.argument("image")(partition_option(force_unlocked_option(image_options(with_source))))


def _chmod() -> click.Command:
    from blockwright.cli.fs_metadata import chmod

    return chmod


def _chown() -> click.Command:
    from blockwright.cli.fs_metadata import chown

    return chown


def _label() -> click.Command:
    from blockwright.cli.fs_metadata import label

    return label


def _ln() -> click.Command:
    from blockwright.cli.fs_edit import ln

    return ln


def _mkdir() -> click.Command:
    from blockwright.cli.fs_edit import mkdir

    return mkdir


def _mkfs() -> click.Command:
    from blockwright.cli.fs_mkfs import mkfs

    return mkfs


def _mv() -> click.Command:
    from blockwright.cli.fs_edit import mv

    return mv


def _put() -> click.Command:
    from blockwright.cli.fs_put import put

    return put


def _resize() -> click.Command:
    from blockwright.cli.fs_resize import resize

    return resize


def _rm() -> click.Command:
    from blockwright.cli.fs_edit import rm

    return rm


def _setxattr() -> click.Command:
    from blockwright.cli.fs_metadata import setxattr

    return setxattr


def _touch() -> click.Command:
    from blockwright.cli.fs_metadata import touch

    return touch


def _write() -> click.Command:
    from blockwright.cli.fs_put import write

    return write


_CHANGES: Subcommands = {
    "chmod": ("Change permissions.", _chmod),
    "chown": ("Change owners, by number.", _chown),
    "label": ("Show the label of a file system, or change it.", _label),
    "ln": ("Give a file one more name, or make a symbolic link.", _ln),
    "mkdir": ("Make directories.", _mkdir),
    "mkfs": ("Make a file system in place, empty or from a directory.", _mkfs),
    "mv": ("Move or rename files and directories.", _mv),
    "put": ("Copy files and directories of the host into a file system.", _put),
    "resize": ("Make an ext2, ext3, ext4 or FAT file system larger or smaller.", _resize),
    "rm": ("Remove files and directories.", _rm),
    "setxattr": ("Set or remove an extended attribute.", _setxattr),
    "touch": ("Set times; make an empty file where there is none.", _touch),
    "write": ("Write standard input to a file.", _write),
}


@click.group(cls=LazyGroup, subcommands=_CHANGES)
def fs() -> None:
    """Look into a file system, and change it in place. IMAGE is a path; disk.img:2 is partition 2 of a disk."""


@fs.command("ls")
@_image
@click.argument("path", default="/")
@click.option("-l", "--long", is_flag=True, help="Show type, mode, owner, size and time.")
@click.option("-R", "--recursive", is_flag=True, help="List everything below PATH.")
@json_option
def fs_ls(
    source: Source,
    path: str,
    long: bool,  # noqa: FBT001  # click passes flags by name
    recursive: bool,  # noqa: FBT001  # a click flag
    as_json: bool,  # noqa: FBT001  # a click flag
) -> None:
    """List the directory PATH, or the file PATH itself."""
    with source.open() as system:
        found = _listing(system, os.fsencode(path), recursive=recursive)
        if as_json:
            documents = [{"name": _text(name), **_stat_document(system, stat)} for name, stat in found]
            print_json("blockwright.fs.ls/1", {"path": path, "entries": documents})
        elif long:
            print_lines(table([_long_row(system, name, stat) for name, stat in found], "<>>>>><"))
        else:
            print_lines([show_name(name) for name, _ in found])


@fs.command("cat")
@_image
@click.argument("path")
def fs_cat(source: Source, path: str) -> None:
    """Write the bytes of the file PATH to standard output."""
    with source.open() as system, system.open(os.fsencode(path)) as device:
        write_bytes(device)


@fs.command("get")
@_image
@click.argument("path")
@click.argument("output")
@force_option
@quiet_option
def fs_get(
    source: Source,
    path: str,
    output: str,
    force: bool,  # noqa: FBT001  # click passes flags by name
    quiet: bool,  # noqa: FBT001  # a click flag
) -> None:
    """Copy the file PATH out of the image to OUTPUT, or into it where it is a directory, holes and all."""
    if output == "-":
        raise UsageError("-: expected a file to write: 'blockwright fs cat' writes to standard output")
    if os.path.isdir(output):
        output = os.path.join(output, os.path.basename(path.rstrip("/")))
    with (
        source.open() as system,
        _opened(system, path) as device,
        progress_bar("get", quiet=quiet) as progress,
    ):
        convert(device, output, force=force, progress=progress)
    print_path(output)


def _opened(system: FileSystem, path: str) -> BlockDevice:
    """Open a file's content. Raises UsageError, which says what copies a directory."""
    name = os.fsencode(path)
    if system.stat(name).kind == stat_module.S_IFDIR:
        raise UsageError(f"{path}: is a directory: 'blockwright extract IMAGE DIRECTORY --only {path}' copies it")
    return system.open(name)


@fs.command("stat")
@_image
@click.argument("path")
@json_option
def fs_stat(source: Source, path: str, as_json: bool) -> None:  # noqa: FBT001  # click
    """Show the metadata of PATH; a symbolic link itself, not what it points to."""
    with source.open() as system:
        stat = system.stat(os.fsencode(path), follow=False)
        document = _stat_document(system, stat)
    if as_json:
        print_json("blockwright.fs.stat/1", {"path": path, **document})
        return
    shown = {**document, "mode": f"{stat.mode & 0o7777:04o}"}
    for name in ("mtime_ns", "atime_ns", "ctime_ns", "crtime_ns"):
        value = shown.pop(name)
        if value is not None:
            shown[name[:-3]] = _time(value)
    attributes = shown.pop("xattrs")
    rows = [(f"{name.replace('_', ' ')}:", str(value)) for name, value in shown.items() if value is not None]
    rows += [("attribute:", f"{show_name(os.fsencode(name))}={_value(value)}") for name, value in attributes.items()]
    print_lines(table(rows, "<<"))


@fs.command("df")
@_image
@json_option
def fs_df(source: Source, as_json: bool) -> None:  # noqa: FBT001  # click
    """Show how full the file system is."""
    with source.open() as system:
        usage = system.usage()
        kind, label = system.kind, system.label
    if as_json:
        names = ("size", "free", "available", "block_size", "inodes", "inodes_free")
        document = {name: getattr(usage, name) for name in names}
        print_json("blockwright.fs.df/1", {"kind": kind, "label": label, **document})
        return
    used = usage.size - usage.free
    rows = [
        ("kind", "size", "used", "available", "use", "inodes", "inodes free"),
        (
            kind,
            format_size(usage.size),
            format_size(used),
            format_size(usage.available),
            f"{used / usage.size:.0%}" if usage.size else "-",
            str(usage.inodes),
            str(usage.inodes_free),
        ),
    ]
    print_lines(table(rows, "<>>>>>>"))


def _listing(system: FileSystem, path: bytes, *, recursive: bool) -> list[tuple[bytes, Stat]]:
    """Return (name, metadata), sorted; names are relative to ``path``, which itself is one if no directory."""
    start = system.resolve(path)
    stat = system.stat_inode(start)
    if stat.kind != stat_module.S_IFDIR:
        return [(path, stat)]
    found: list[tuple[bytes, Stat]] = []
    stack = [(b"", start)]
    seen = {start}
    while stack:
        prefix, inode = stack.pop()
        for entry in system.entries(inode):
            child = system.stat_inode(entry.inode)
            found.append((prefix + entry.name, child))
            if recursive and child.kind == stat_module.S_IFDIR and entry.inode not in seen:
                seen.add(entry.inode)
                stack.append((prefix + entry.name + b"/", entry.inode))
    return sorted(found, key=lambda each: each[0])


def _stat_document(system: FileSystem, stat: Stat) -> dict[str, Any]:
    document: dict[str, Any] = {
        "inode": stat.inode,
        "type": _KINDS.get(stat.kind, "unknown"),
        "mode": stat.mode & 0o7777,
        "links": stat.nlink,
        "uid": stat.uid,
        "gid": stat.gid,
        "size": stat.size,
        "allocated": stat.allocated,
        "mtime_ns": stat.mtime_ns,
        "atime_ns": stat.atime_ns,
        "ctime_ns": stat.ctime_ns,
        "crtime_ns": stat.crtime_ns,
        "target": None,
        "device": None,
    }
    if stat.kind == stat_module.S_IFLNK:
        document["target"] = _text(system.link_target(stat.inode))
    if stat.kind in (stat_module.S_IFCHR, stat_module.S_IFBLK):
        document["device"] = f"{stat.major}:{stat.minor}"
    attributes = system.xattrs(stat.inode)
    document["xattrs"] = {_text(name): value.hex() for name, value in sorted(attributes.items())}
    return document


def _long_row(system: FileSystem, name: bytes, stat: Stat) -> tuple[str, ...]:
    size = f"{stat.major},{stat.minor}" if stat.kind in (stat_module.S_IFCHR, stat_module.S_IFBLK) else str(stat.size)
    shown = show_name(name)
    if stat.kind == stat_module.S_IFLNK:
        shown += f" -> {show_name(system.link_target(stat.inode))}"
    mode = stat_module.filemode(stat.mode)
    return mode, str(stat.nlink), str(stat.uid), str(stat.gid), size, _time(stat.mtime_ns, short=True), shown


def _time(time_ns: int, *, short: bool = False) -> str:
    """Return UTC, by calendar arithmetic that takes any year ext4 can hold."""
    seconds, nanoseconds = divmod(time_ns, 10**9)
    text = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
    return text if short else f"{text}.{nanoseconds:09d} UTC"


def _value(value: str) -> str:
    """Return an attribute's value, given in hexadecimal, for people: as text where it is, as getfattr writes it."""
    data = bytes.fromhex(value)
    text = data.rstrip(b"\0").decode("utf-8", "replace")
    return f'"{text}"' if text.isprintable() and "\ufffd" not in text else f"0x{value}"


def _text(value: bytes) -> str:
    """Return bytes as text for JSON; what is not UTF-8 becomes lone surrogates, as Python's file names do."""
    return value.decode("utf-8", "surrogateescape")
