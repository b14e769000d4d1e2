"""``blockwright fs put | write``: files of the host and standard input, into a file system in place.

Knows: arguments, and where a stream is kept until its size is known. Refuses to know: file systems.
"""

from __future__ import annotations

import os
import sys
from typing import BinaryIO

import click

from blockwright.cli.editing import Target, edits, encode, join, mode_value, now_ns, parse_owner
from blockwright.cli.fs_edit import is_directory
from blockwright.errors import NotFound, UsageError
from blockwright.fs.editor import Attributes, Editor
from blockwright.tree.content import EMPTY, Content
from blockwright.tree.host import read_node
from blockwright.tree.node import Directory, File, Node, walk
from blockwright.tree.spool import spooled
from blockwright.units import parse_size


@click.command()
@edits
@click.argument("sources", nargs=-1, required=True, metavar="HOST...")
@click.argument("path")
@click.option("-r", "-R", "--recursive", is_flag=True, help="Copy directories, with everything below them.")
@click.option("-p", "--parents", is_flag=True, help="Make the directories before PATH that are missing.")
@click.option("--owner", metavar="UID:GID", help="Give everything this owner.")
@click.option("--mode", callback=mode_value, metavar="MODE", help="Give files these permissions, in octal.")
@click.option("--no-replace", is_flag=True, help="Refuse to replace what is there.")
def put(
    target: Target,
    sources: tuple[str, ...],
    path: str,
    recursive: bool,  # noqa: FBT001  # a click flag
    parents: bool,  # noqa: FBT001  # a click flag
    owner: str | None,
    mode: int | None,
    no_replace: bool,  # noqa: FBT001  # a click flag
) -> None:
    """Copy files and directories of the host to PATH, or into it where it is a directory, with their metadata.

    What HOST/. holds is merged into PATH itself. A directory that is there already is merged too; a file that is
    there is replaced, as one change.
    """
    owners = (None, None) if owner is None else parse_owner(owner)
    nodes = [(source, _with(_read(source, recursive=recursive), owners, mode)) for source in sources]
    with target.editing() as editor:
        whole = encode(path)
        into = is_directory(editor, whole) or path.endswith("/")
        if len(nodes) > 1 and not into:
            if not parents:
                raise UsageError(f"{path}: expected a directory to put {len(nodes)} files into")
            into = True
        for source, node in nodes:
            within = into and not source.endswith("/.") and source != "."
            name = os.path.basename(os.path.abspath(os.fsencode(source)))
            editor.put(join(whole, name) if within else whole, node, parents=parents, replace=not no_replace)


def _read(source: str, *, recursive: bool) -> Node:
    if os.path.isdir(source) and not recursive:
        raise UsageError(f"{source}: is a directory; -r copies it with everything below it")
    return read_node(source)


def _with(node: Node, owner: tuple[int | None, int | None], mode: int | None) -> Node:
    """Give a node, and all below a directory, an owner and its files permissions, where those are given."""
    if owner == (None, None) and mode is None:
        return node
    for each in [each for _, each in walk(node)] if isinstance(node, Directory) else [node]:
        each.uid = each.uid if owner[0] is None else owner[0]
        each.gid = each.gid if owner[1] is None else owner[1]
        if isinstance(each, File) and mode is not None:
            each.permissions = mode
    return node


def _offset(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    return None if value is None else parse_size(value)


@click.command()
@edits
@click.argument("path")
@click.option("--file", "source", type=click.File("rb"), default="-", metavar="FILE", help="Read FILE instead.")
@click.option("--mode", callback=mode_value, metavar="MODE", help="Permissions, in octal.  [default: 644 if new]")
@click.option("-p", "--parents", is_flag=True, help="Make the directories before PATH that are missing.")
@click.option("--offset", callback=_offset, metavar="BYTES", help="Change the file from there on, and keep the rest.")
@click.option("--append", is_flag=True, help="Write behind the end of the file.")
def write(
    target: Target,
    path: str,
    source: BinaryIO,
    mode: int | None,
    parents: bool,  # noqa: FBT001  # a click flag
    offset: int | None,
    append: bool,  # noqa: FBT001  # a click flag
) -> None:
    """Have the file PATH hold what standard input gives. A file that is there keeps its owner and permissions."""
    if append and offset is not None:
        raise UsageError("--append and --offset both say where to write: use one of them")
    if source is sys.stdin.buffer and sys.stdin.isatty():
        sys.stderr.write("blockwright: reading standard input\n")
    with spooled(source) as content, target.editing() as editor:
        _write(editor, encode(path), content, mode=mode, parents=parents, offset=offset, append=append)


def _write(
    editor: Editor,
    path: bytes,
    content: Content,
    *,
    mode: int | None,
    parents: bool,
    offset: int | None,
    append: bool,
) -> None:
    try:
        there = editor.files.stat(path)
    except NotFound:
        first = EMPTY if offset else content
        editor.put(path, File(0o644 if mode is None else mode, mtime_ns=now_ns(), content=first), parents=parents)
        if offset:
            editor.write(path, content, offset=offset)
        return
    editor.write(path, content, offset=there.size if append else offset)
    editor.set_attributes(path, Attributes(permissions=mode, mtime_ns=now_ns()))
