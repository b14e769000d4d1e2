"""Fuzz target: any bytes as a FAT volume that is changed."""

from collections.abc import Callable
from itertools import islice

from blockwright.device.memory import MemoryDevice
from blockwright.errors import BlockwrightError
from blockwright.fs.editor import Attributes, Editor
from blockwright.fs.fat import edit
from blockwright.tree import BytesContent, Directory, File

MAX_BYTES = 5 << 20
MAX_NAMES = 40


def fuzz_one(data: bytes) -> None:
    """Lets nothing but errors of ours out of changes to the names that the volume shows, and to new ones."""
    device = MemoryDevice(content=data[:MAX_BYTES])
    try:
        editor = edit.open(device)
    except BlockwrightError:
        return
    for change in _changes(editor):
        try:
            change()
        except BlockwrightError:
            continue


def _changes(editor: Editor) -> list[Callable[[], object]]:
    file = File(content=BytesContent(b"text" * 700))
    tree = Directory(entries={b"a long name of a file": file, b"SUB": Directory(entries={b"F": file})})
    changes: list[Callable[[], object]] = [
        lambda: editor.put(b"/new directory", tree),
        lambda: editor.set_label("FUZZ"),
        editor.files.usage,
    ]
    for path in _paths(editor):
        changes += [
            lambda path=path: editor.write(path, BytesContent(b"x" * 5000), offset=100),
            lambda path=path: editor.truncate(path, 600),
            lambda path=path: editor.put(path + b"/child with a name", file),
            lambda path=path: editor.mv(path, b"/new directory/moved"),
            lambda path=path: editor.put(path, file),
            lambda path=path: editor.set_attributes(path, Attributes(permissions=0o444, mtime_ns=1)),
            lambda path=path: editor.rm(path, recursive=True),
            editor.commit,
        ]
    return [*changes, lambda: editor.rm(b"/new directory", recursive=True), editor.commit]


def _paths(editor: Editor) -> list[bytes]:
    found: list[bytes] = []
    stack = [b""]
    while stack and len(found) < MAX_NAMES:
        path = stack.pop()
        try:
            inode = editor.files.resolve(path)
            names = [entry.name for entry in islice(editor.files.entries(inode), MAX_NAMES)]
        except (BlockwrightError, ValueError):
            continue
        for name in names:
            found.append(path + b"/" + name)
            stack.append(path + b"/" + name)
    return found[:MAX_NAMES]
