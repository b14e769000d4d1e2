"""An operation that fails at any point leaves the editor as it was, and able to go on."""

import random
import re
from collections.abc import Callable

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.errors import NoSpace, NotFound, UsageError
from blockwright.fs.editor import Attributes, CommitPolicy
from blockwright.fs.ext4 import edit
from blockwright.fs.ext4.check import check
from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.edit.editor import Ext4Editor
from blockwright.fs.ext4.edit.inodes import InodeTable
from blockwright.fs.ext4.edit.space import Space
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.tree.compare import compare_trees
from blockwright.tree.content import BytesContent, Content
from blockwright.tree.node import Directory, File, Symlink
from blockwright.units import MiB


def planned(root: Directory, size: int = 16 * MiB, journal: int | None = None) -> MemoryDevice:
    """A file system of our own in memory."""
    made = plan(root, Ext4Options(size=size, journal=journal))
    with open_plan(made) as device:
        return MemoryDevice(content=device.read(0, device.size))


def body(size: int) -> BytesContent:
    return BytesContent(random.Random(size).randbytes(size))


def start() -> Directory:
    names = {b"%03d" % at + b"n" * 40: File() for at in range(200)}
    deep = Directory(entries={b"file": File(content=body(9000))})
    return Directory(entries={b"full": Directory(entries=names), b"deep": deep, b"x": File(content=body(30000))})


def full_block(editor: Ext4Editor) -> None:
    editor.put(b"/deep/" + b"z" * 250, Symlink(b"t" * 100, xattrs={b"user.a": b"b" * 300}))


COMMANDS: dict[str, Callable[[Ext4Editor], None]] = {
    "put": full_block,
    "directory": lambda editor: editor.put(b"/full/" + b"d" * 200, Directory(xattrs={b"user.a": b"b" * 300})),
    "replace": lambda editor: editor.put(b"/x", File(content=body(20000), xattrs={b"user.a": b"b" * 300})),
    "write": lambda editor: editor.write(b"/x", body(100), offset=5000),
    "truncate": lambda editor: editor.truncate(b"/x", 5000),
    "mv": lambda editor: editor.mv(b"/deep/file", b"/full/" + b"m" * 250),
    "xattr": lambda editor: editor.set_xattr(b"/x", b"user.a", b"b" * 500),
}


class Refuser:
    """Lets `count` calls through, and fails the next."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.failed = False

    def __call__(self, inner):
        def refuse(*args, **kwargs):
            self.left -= 1
            if self.left == -1:
                self.failed = True
                raise NoSpace("injected")
            return inner(*args, **kwargs)

        return refuse


@pytest.mark.parametrize("command", COMMANDS)
def test_every_allocation_fails_in_turn(command, monkeypatch):
    device = planned(start())
    count = 0
    while True:
        refuser = Refuser(count)
        editor = edit.open(MemoryDevice(content=device.read(0, device.size)))
        before = editor.files.tree()
        with monkeypatch.context() as patch:
            patch.setattr(Space, "allocate", refuser(Space.allocate))
            patch.setattr(InodeTable, "allocate", refuser(InodeTable.allocate))
            if not refuser.failed:
                try:
                    COMMANDS[command](editor)
                except NoSpace:
                    assert refuser.failed
        if not refuser.failed:
            break
        assert compare_trees(before, editor.files.tree(), contents=True) == []
        assert not editor._parts.changed
        COMMANDS[command](editor)
        editor.commit()
        assert [str(each) for each in check(editor._parts.transaction.raw)] == []
        editor.close()
        count += 1
    assert count


class Failing(Content):
    """Cannot be read past its first megabyte."""

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        if offset + len(buffer) > MiB:
            raise OSError("source is gone")


def test_source_that_fails():
    with edit.open(planned(start())) as editor:
        before = editor.files.tree()
        with pytest.raises(OSError, match="source is gone"):
            editor.put(b"/new", File(content=Failing(3 * MiB)))
        assert compare_trees(before, editor.files.tree(), contents=True) == []
        assert not editor._parts.changed


def fill(editor: Ext4Editor, size: int) -> None:
    """Make files until there is no room for another."""
    for number in range(10_000):
        editor.put(b"/%d" % number, File(content=body(size)))


def test_full_file_system_refuses_and_goes_on():
    with edit.open(planned(Directory(), 8 * MiB)) as editor:
        with pytest.raises(NoSpace):
            fill(editor, 100_000)
        assert len(list(editor.files.entries(2))) > 10
        editor.rm(b"/0")
        editor.put(b"/again", File(content=body(90_000)))  # in the space of /0, which a commit has to free first
        assert editor.files.stat(b"/again").size == 90_000
        editor.commit()
        assert check(editor._parts.transaction.raw) == []


def test_atomic_refuses_a_commit_in_between():
    with edit.open(planned(Directory(), 8 * MiB), policy=CommitPolicy(atomic=True)) as editor:
        with pytest.raises(NoSpace):
            fill(editor, 100_000)
        editor.rm(b"/0")
        with pytest.raises(NoSpace) as refused:
            editor.put(b"/again", File(content=body(90_000)))
    told = re.search(r"expected (\d+) free blocks, found (\d+), and (\d+) more once", str(refused.value))
    expected, found, held = map(int, told.groups())
    assert found < expected <= found + held, "what is held is not free"


def test_no_inodes_left():
    made = plan(Directory(), Ext4Options(size=8 * MiB, inodes=64))
    with open_plan(made) as planned_device:
        device = MemoryDevice(content=planned_device.read(0, planned_device.size))
    with edit.open(device) as editor:
        with pytest.raises(NoSpace, match="free inode"):
            fill(editor, 0)
        editor.rm(b"/0")
        editor.put(b"/again", File())
        editor.commit()
        assert check(device) == []


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda editor: editor.put(b"/a/b", File()), NotFound, "no such file"),
        (lambda editor: editor.put(b"/" + b"n" * 256, File()), UsageError, "at most 255"),
        (lambda editor: editor.put(b"/link", Symlink(b"")), UsageError, "1 to"),
        (lambda editor: editor.put(b"/link", Symlink(b"t" * 5000)), UsageError, "1 to"),
        (lambda editor: editor.rm(b"/full"), UsageError, "empty directory"),
        (lambda editor: editor.mv(b"/full", b"/full/sub"), UsageError, "below itself"),
        (lambda editor: editor.set_xattr(b"/x", b"user.a", None), NotFound, "no extended attribute"),
        (lambda editor: editor.set_xattr(b"/x", b"other.a", b""), UsageError, "expected a name in"),
        (lambda editor: editor.set_xattr(b"/x", b"user.a", b"b" * 5000), NoSpace, "at most 4096"),
        (lambda editor: editor.set_attributes(b"/x", Attributes(dos=1)), UsageError, "DOS"),
        (lambda editor: editor.set_attributes(b"/x", Attributes(uid=1 << 32)), UsageError, "uid"),
        (lambda editor: editor.set_label("x" * 17), UsageError, "label"),
        (lambda editor: editor.truncate(b"/x", 1 << 60), UsageError, "at most"),
    ],
)
def test_refused(change, error, says):
    with edit.open(planned(start())) as editor:
        before = editor.files.tree()
        with pytest.raises(error, match=says):
            change(editor)
        assert compare_trees(before, editor.files.tree()) == []
        assert not editor._parts.changed


def test_immutable_file_is_left_alone():
    with edit.open(planned(start())) as editor:
        editor.set_attributes(b"/x", Attributes(immutable=True))
        for change in (
            lambda: editor.write(b"/x", body(1)),
            lambda: editor.rm(b"/x"),
            lambda: editor.mv(b"/x", b"/y"),
            lambda: editor.ln(b"/x", b"/y"),
            lambda: editor.set_attributes(b"/x", Attributes(permissions=0)),
            lambda: editor.set_xattr(b"/x", b"user.a", b"b"),
        ):
            with pytest.raises(UsageError, match="immutable"):
                change()
        editor.set_attributes(b"/x", Attributes(immutable=False))
        editor.rm(b"/x")


def test_no_journal_is_not_atomic():
    device = planned(Directory(), journal=0)
    with pytest.raises(UsageError, match="expected a journal"):
        edit.open(device, policy=CommitPolicy(atomic=True))
    told: list[str] = []
    with edit.open(device, policy=CommitPolicy(on_split=told.append)) as editor:
        editor.put(b"/x", File())
        editor.commit()
        assert len(told) == 1
        assert "no journal" in told[0]
