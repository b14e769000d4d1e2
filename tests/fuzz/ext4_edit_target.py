"""Fuzz target: any bytes as an ext2, ext3 or ext4 file system that is changed in place."""

import contextlib
import stat
from collections.abc import Callable, Iterator

from blockwright.device.memory import MemoryDevice
from blockwright.errors import BlockwrightError
from blockwright.fs.editor import Attributes, Editor
from blockwright.fs.ext4 import edit
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File, Special, Symlink

MAX_BYTES = 1 << 20
MAX_NAMES = 24
BODY = BytesContent(bytes(range(256)) * 20)
NAMES = Directory(entries={b"%02d" % at + b"n" * 100: Symlink(b"t" * 70) for at in range(12)})


def fuzz_one(data: bytes) -> None:
    """Lets nothing but the package's own errors out, and ends."""
    with contextlib.suppress(BlockwrightError), edit.open(MemoryDevice(content=data[:MAX_BYTES])) as editor:
        paths = list(some_paths(editor))
        for path, kind in paths:
            for change in changes(path, kind):
                with contextlib.suppress(BlockwrightError):
                    change(editor)
        with contextlib.suppress(BlockwrightError):
            editor.commit()


def some_paths(editor: Editor) -> Iterator[tuple[bytes, int]]:
    """Some names of the file system, with their kinds."""
    found = [(b"", editor.files.root_inode)]
    count = 0
    for path, inode in found:
        with contextlib.suppress(BlockwrightError):
            for entry in editor.files.entries(inode):
                count += 1
                if count > MAX_NAMES:
                    return
                yield path + b"/" + entry.name, entry.kind
                if entry.kind == stat.S_IFDIR:
                    found.append((path + b"/" + entry.name, entry.inode))


def changes(path: bytes, kind: int) -> list[Callable[[Editor], None]]:
    """What is done to a name."""
    found: list[Callable[[Editor], None]] = [
        lambda editor: editor.set_attributes(path, Attributes(permissions=0o600, mtime_ns=1 << 61), follow=False),
        lambda editor: editor.set_xattr(path, b"user.a", b"v" * 120, follow=False),
        lambda editor: editor.set_xattr(path, b"user.b", b"w" * 300, follow=False),
        lambda editor: editor.set_xattr(path, b"user.a", None, follow=False),
    ]
    if kind == stat.S_IFREG:
        found += [
            lambda editor: editor.write(path, BODY, offset=3000),
            lambda editor: editor.truncate(path, 2000),
            lambda editor: editor.ln(path, path + b"2"),
            lambda editor: editor.write(path, BODY),
            lambda editor: editor.put(path, File(content=BODY)),
        ]
    if kind == stat.S_IFDIR:
        found += [
            lambda editor: editor.put(path + b"/new", File(content=BODY)),
            lambda editor: editor.put(path + b"/tree", NAMES),
            lambda editor: editor.rm(path + b"/new"),
        ]
    return [
        *found,
        lambda editor: editor.put(path + b"3", Special(stat.S_IFIFO)),
        lambda editor: editor.mv(path, path + b"4"),
        lambda editor: editor.rm(path + b"4"),
    ]
