"""Which partition of an image is for what: told by its type, its mark, its file system, or by the user."""

from uuid import UUID

import pytest

from blockwright.boot.installed import system_tree
from blockwright.boot.kernel import find_kernel
from blockwright.boot.survey import Survey, Volume
from blockwright.device.memory import MemoryDevice
from blockwright.device.planned import PlannedDevice
from blockwright.errors import NotFound, UsageError
from blockwright.fs.ext4 import read as ext4
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.table.gpt import plan as gpt
from blockwright.table.gpt.names import TYPES
from blockwright.table.partition import MbrPartition, MbrTable, Partition
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, Symlink
from blockwright.tree.overlay import with_files
from blockwright.units import MiB


def part(number: int, kind: str, attributes: int = 0) -> Partition:
    return Partition(number, TYPES[kind], UUID(int=number), number * MiB, MiB, attributes=attributes)


def gpt_survey(*parts: tuple[str, bool, int]) -> Survey:
    """Volumes of a GPT by (type, whether it is FAT, attributes)."""
    partitions = [part(number, kind, bits) for number, (kind, _, bits) in enumerate(parts, 1)]
    table = gpt.plan([gpt.Request(each.type_guid, MiB) for each in partitions], seed=b"", size=64 * MiB)
    volumes = [
        Volume(each.number, each.start, each.size, fat, each)
        for each, (_, fat, _) in zip(partitions, parts, strict=True)
    ]
    return Survey("disk", table, tuple(volumes))


def test_the_boot_partition_is_known_by_its_type() -> None:
    found = gpt_survey(("esp", True, 0), ("linux-generic", True, 0))
    assert found.esp().number == 1
    with pytest.raises(NotFound, match="EFI system partition with FAT on it; it has file systems in 1 \\(ext4\\)"):
        gpt_survey(("linux-generic", False, 0)).esp()
    with pytest.raises(UsageError, match="found 1, 2"):
        gpt_survey(("esp", True, 0), ("esp", True, 0)).esp()
    mbr = MbrPartition(1, MiB, MiB, 0xEF, active=False, disk_signature=1)
    assert Volume(1, MiB, MiB, True, mbr).is_esp


def test_the_root_is_the_only_one_with_ext_or_named() -> None:
    found = gpt_survey(("esp", True, 0), ("linux-generic", False, 0))
    root = found.root(None)
    assert root is not None
    assert root.number == 2
    several = gpt_survey(("linux-generic", False, 0), ("linux-generic", False, 0))
    assert several.root(2) == several.volumes[1]
    with pytest.raises(UsageError, match="--root N; found 1, 2"):
        several.root(None)
    assert gpt_survey(("esp", True, 0)).root(None) is None


def test_a_loader_lives_where_it_is_told_or_marked_or_in_the_root() -> None:
    found = gpt_survey(("esp", True, 4), ("linux-generic", False, 0))
    root = found.root(None)
    assert found.home(2, root, marked=True).number == 2
    assert found.home(None, root, marked=True).number == 1
    assert found.home(None, root, marked=False).number == 2
    assert gpt_survey(("esp", True, 0)).home(None, None, marked=True).number == 1
    with pytest.raises(NotFound, match="partition 7"):
        found.home(7, root, marked=True)
    with pytest.raises(NotFound, match="no file systems"):
        gpt_survey().home(None, None, marked=True)
    with pytest.raises(UsageError, match="disk:N; found 1, 2"):
        gpt_survey(("esp", True, 0), ("esp", True, 0)).home(None, None, marked=True)


def test_room_for_a_core_image() -> None:
    bios = part(1, "bios-boot")
    table = gpt.plan([gpt.Request(bios.type_guid, MiB)], seed=b"", size=64 * MiB)
    assert Survey("disk", table, ()).core_room() == (MiB, MiB)
    with pytest.raises(NotFound, match="bios-boot"):
        gpt_survey(("linux-generic", False, 0)).core_room()
    entry = MbrPartition(1, 63 * 512, MiB, 0x83, active=False, disk_signature=1)
    assert Survey("disk", MbrTable(1, 512, 64 * MiB, (entry,)), ()).core_room() == (512, 62 * 512)
    with pytest.raises(UsageError, match="partition table"):
        Survey("disk", None, ()).core_room()


def test_a_system_is_read_as_far_as_it_tells_how_it_starts() -> None:
    head = bytes(0x202) + b"HdrS" + bytes(100)
    files = {
        "boot/vmlinuz-6.1": BytesContent(head),
        "boot/initrd.img-6.1": BytesContent(b"initrd"),
        "usr/lib/modules/6.2/vmlinuz": BytesContent(head),
        "usr/lib/modules/6.2/kernel/fs/deep.ko": BytesContent(b"module"),
        "etc/os-release": BytesContent(b"ID=x\n"),
        "home/user/file": BytesContent(b"mine"),
    }
    tree = with_files(Directory(entries={b"lib": Symlink(b"usr/lib")}), files, mtime_ns=0)
    planned = plan(tree, Ext4Options())
    with PlannedDevice(planned.size, planned.segments()) as device:
        content = device.read(0, device.size)
    with ext4.open(MemoryDevice(content=content)) as system:
        found = system_tree(system)
        kernel = find_kernel(found)
        assert kernel is not None
        assert (kernel.path, kernel.version, kernel.in_tree) == ("usr/lib/modules/6.2/vmlinuz", "6.2", True)
        home = found.entries[b"home"]
        assert isinstance(home, Directory)
        assert not home.entries
        buffer = bytearray(4)
        kernel.content.read_into(0x202, memoryview(buffer))
        assert buffer == b"HdrS"
