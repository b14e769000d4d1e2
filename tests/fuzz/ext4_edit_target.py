"""Fuzz target: any bytes as an ext2, ext3 or ext4 file system that is changed in place."""

import contextlib
import stat
from collections.abc import Callable, Iterator

from blockwright.device.memory import MemoryDevice
from blockwright.errors import BlockwrightError
from blockwright.fs.editor import Attributes, Editor
from blockwright.fs.ext4 import edit
from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File, Special, Symlink
from tests.fuzz.ext4_target import small_tree

MAX_BYTES = 3 << 20
MAX_NAMES = 24
BODY = BytesContent(bytes(range(256)) * 20)
NAMES = Directory(entries={b"%02d" % at + b"n" * 100: Symlink(b"t" * 70) for at in range(12)})


def fuzz_one(data: bytes) -> None:
    """Lets nothing but the package's own errors out, and ends."""
    with contextlib.suppress(BlockwrightError), edit.open(MemoryDevice(content=data[:MAX_BYTES])) as editor:
        paths = list(some_paths(editor))[::-1]  # what is in a directory before the directory moves
        for path, kind in paths:
            for change in changes(path, kind):
                with contextlib.suppress(BlockwrightError):
                    change(editor)
        with contextlib.suppress(BlockwrightError):
            editor.commit()


def seeds() -> list[bytes]:
    """File systems of our own with room for more, with a journal and without."""
    found = []
    for journal in (0, 1 << 20):
        option = Ext4Options(block_size=1024, seed=b"fuzz", journal=journal, free=0.5, extra_inodes=200)
        with open_plan(plan(small_tree(), option)) as device:
            assert device.size <= MAX_BYTES
            found.append(device.read(0, device.size))
    return found


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
