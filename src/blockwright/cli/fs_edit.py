"""``blockwright fs mkdir | rm | mv | ln``: names in a file system, changed in place.

Knows: arguments. Refuses to know: file systems.
"""

from __future__ import annotations

from contextlib import suppress

import click

from blockwright.cli.editing import Target, edits, encode, join, mode_value, now_ns
from blockwright.errors import NotFound, UsageError
from blockwright.fs.editor import Editor
from blockwright.tree.node import Directory, Symlink


@click.command()
@edits
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-p", "--parents", is_flag=True, help="Make those before it too, and accept one that is there.")
@click.option("--mode", callback=mode_value, default="755", show_default=True, help="Permissions, in octal.")
def mkdir(target: Target, paths: tuple[str, ...], parents: bool, mode: int) -> None:  # noqa: FBT001  # a click flag
    """Make directories in the file system on IMAGE."""
    with target.editing() as editor:
        for path in paths:
            editor.mkdir(encode(path), Directory(mode, mtime_ns=now_ns()), parents=parents)


@click.command()
@edits
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-r", "-R", "--recursive", is_flag=True, help="Remove directories with everything below them.")
@click.option("-f", "--ignore-missing", is_flag=True, help="Accept what is not there.")
def rm(
    target: Target,
    paths: tuple[str, ...],
    recursive: bool,  # noqa: FBT001  # a click flag
    ignore_missing: bool,  # noqa: FBT001  # a click flag
) -> None:
    """Remove files, and empty directories, from the file system on IMAGE."""
    with target.editing() as editor:
        for path in paths:
            with suppress(*[NotFound] * ignore_missing):
                editor.rm(encode(path), recursive=recursive)


@click.command()
@edits
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.argument("to")
@click.option("--no-replace", is_flag=True, help="Refuse to replace what is there.")
def mv(target: Target, paths: tuple[str, ...], to: str, no_replace: bool) -> None:  # noqa: FBT001  # a click flag
    """Move each PATH to TO, or into it where it is a directory."""
    with target.editing() as editor:
        if len(paths) > 1 and not is_directory(editor, encode(to)):
            raise UsageError(f"{to}: expected a directory to move {len(paths)} files into")
        for path in paths:
            editor.mv(encode(path), encode(to), replace=not no_replace)


@click.command()
@edits
@click.argument("path")
@click.argument("to")
@click.option("-s", "--symbolic", is_flag=True, help="Make a symbolic link that says PATH.")
def ln(target: Target, path: str, to: str, symbolic: bool) -> None:  # noqa: FBT001  # a click flag
    """Give the file PATH one more name TO, or one of its own in the directory TO."""
    with target.editing() as editor:
        name = encode(to)
        if is_directory(editor, name):
            name = join(name, encode(path).rstrip(b"/").rpartition(b"/")[2])
        link = Symlink(encode(path), mtime_ns=now_ns()) if symbolic else None
        editor.ln(encode(path), name, symbolic=link)


def is_directory(editor: Editor, path: bytes) -> bool:
    """Whether there is a directory at a path."""
    import stat

    try:
        return editor.files.stat(path).kind == stat.S_IFDIR
    except NotFound:
        return False
