"""What a commit writes between its flushes, since a power cut tells wrong orders only by chance."""

from blockwright.device.memory import MemoryDevice
from blockwright.fs.ext4 import edit
from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.layout import Incompat, State, Superblock
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.fs.ext4.replay import open_journal
from blockwright.fs.ext4.volume import Volume, read_superblock
from blockwright.testing.crash import CrashDevice, Event
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File
from blockwright.units import MiB

SIZE = 1024
BODY = b"the body of it ".ljust(SIZE, b"!")
JBD2 = bytes.fromhex("c03b3998")


def image(journal: int) -> MemoryDevice:
    made = plan(Directory(), Ext4Options(size=8 * MiB, block_size=SIZE, journal=journal))
    with open_plan(made) as device:
        return MemoryDevice(content=device.read(0, device.size))


def named(event: Event, log: set[int]) -> set[str]:
    """What the blocks of a write are; those of ``log`` are the journal's."""
    assert event.data is not None
    if event.offset == SIZE:
        superblock = Superblock.parse(event.data.ljust(1024, b"\0"))
        under_way = superblock.s_feature_incompat & Incompat.needs_recovery or not superblock.s_state & State.valid
        return {"superblock: under way" if under_way else "superblock: clean"}
    found = set()
    for at in range(0, len(event.data), SIZE):
        block, data = (event.offset + at) // SIZE, event.data[at : at + SIZE]
        if block not in log:
            found.add("body" if data == BODY else "new directory" if b"the file" in data else "home")
        elif data[:4] != JBD2 or data[4:8] == b"\0\0\0\1":
            found.add("log")
        elif data[4:8] == b"\0\0\0\2":
            found.add("commit block")
        else:
            found.add("journal: full" if any(data[0x1C:0x20]) else "journal: empty")
    return found


def epochs(journal: int) -> list[set[str]]:
    """The kinds of writes between flushes, of a command that makes a directory and a file."""
    device = image(journal)
    log: set[int] = set()
    if journal:
        volume = Volume(device, read_superblock(device), source=None, verify=True, super_block=None)
        found = open_journal(volume)
        log = {found.place(at) for at in range(found.last)}
    crash = CrashDevice(device)
    with edit.open(crash) as editor:
        editor.mkdir(b"/made", Directory())
        editor.put(b"/made/the file", File(content=BytesContent(BODY)))
        editor.commit()
        assert crash.events[-1].is_flush, "what is committed is durable"
    told: list[set[str]] = [set()]
    for event in crash.events:
        if event.is_flush:
            told.append(set())
        else:
            told[-1] |= named(event, log)
    return [kinds for kinds in told if kinds]


def test_a_journaled_commit() -> None:
    found = epochs(MiB)
    assert found == [
        {"superblock: under way", "body", "log"},
        {"commit block", "journal: full"},
        {"home", "new directory", "superblock: under way"},
        {"journal: empty"},
        {"superblock: clean"},
    ]


def test_a_commit_without_a_journal() -> None:
    assert epochs(0) == [
        {"superblock: under way", "body"},
        {"new directory"},  # before anything refers to it
        {"home"},
        {"superblock: under way", "superblock: clean"},
    ]
