"""sgdisk and sfdisk read what we plan, we read what they write, and verdicts on damage agree with sgdisk -v."""

import json
import random
import re
import zlib
from uuid import UUID

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.table.device import open_disk
from blockwright.table.gpt import check, edit, layout, names, read, repair
from blockwright.table.gpt.plan import Request, plan, segments
from blockwright.units import MiB
from tests.support.disks import memory, save
from tests.support.tools import run, tool

LINUX, ESP = names.TYPES["linux-generic"], names.TYPES["esp"]
SIZE = 16 * MiB


def example(sector_size=512):
    requests = [
        Request(ESP, 2 * MiB, "EFI system", attributes=1),
        Request(LINUX, 3 * MiB, "data \u00e9", attributes=1 << 2 | 1 << 59),
        Request(names.TYPES["root-x86-64"], MiB, remaining=True, attributes=1 << 63),
    ]
    return plan(requests, seed=b"interop", size=SIZE, sector_size=sector_size)


def disk(table):
    return memory(open_disk(table.size, segments(table), []))


def opened(path):
    return MemoryDevice(content=path.read_bytes())


def complaints(path):
    """What sgdisk -v says that is not praise; empty for a clean disk. A crash is no praise."""
    done = run([tool("sgdisk"), "-v", path], ok=range(-32, 9))
    text = done.stdout + done.stderr
    if "No problems found" in text and not re.search(r"(?i)caution|warning|invalid|damaged|corrupt|problem:", text):
        return ""
    return text


def test_sgdisk_finds_no_problem_and_the_same_partitions(tmp_path):
    table = example()
    path = tmp_path / "disk.img"
    save(disk(table), path)
    assert complaints(path) == ""
    for partition in table.partitions:
        shown = run([tool("sgdisk"), "-i", str(partition.number), path]).stdout
        assert str(partition.type_guid).upper() in shown
        assert str(partition.guid).upper() in shown
        assert f"First sector: {partition.start // 512} " in shown
        assert f"Last sector: {partition.end // 512 - 1} " in shown
        assert f"Attribute flags: {partition.attributes:016X}" in shown
        assert f"Partition name: '{partition.name}'" in shown


def test_sfdisk_sees_the_same(tmp_path):
    table = example()
    path = tmp_path / "disk.img"
    save(disk(table), path)
    seen = json.loads(run([tool("sfdisk"), "--json", path]).stdout)["partitiontable"]
    assert UUID(seen["id"]) == table.disk_guid
    assert (seen["firstlba"] * 512, (seen["lastlba"] + 1) * 512) == (table.usable_start, table.usable_end)
    for theirs, ours in zip(seen["partitions"], table.partitions, strict=True):
        assert (theirs["start"] * 512, theirs["size"] * 512) == (ours.start, ours.size)
        assert (UUID(theirs["type"]), UUID(theirs["uuid"])) == (ours.type_guid, ours.guid)
        assert theirs.get("name", "") == ours.name
    assert "No errors detected" in run([tool("sfdisk"), "--verify", path]).stdout


def test_fdisk_sees_the_same_with_large_sectors(tmp_path):
    table = example(4096)
    path = tmp_path / "disk.img"
    save(disk(table), path)
    command = [tool("fdisk"), "-b", "4096", "-l", "-o", "Start,End,Type-UUID,UUID", path]
    done = run(command)
    assert done.stderr == ""
    assert str(table.disk_guid).upper() in done.stdout
    for each in table.partitions:
        fields = [each.start // 4096, each.end // 4096 - 1, str(each.type_guid).upper(), str(each.guid).upper()]
        assert re.search(r"\s+".join(map(str, fields)), done.stdout)


def test_we_read_what_sgdisk_writes(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(SIZE))
    command = [
        tool("sgdisk"),
        "-S",
        "256",
        "-n",
        "1:0:+1M",
        "-t",
        "1:ef00",
        "-c",
        "1:EFI",
        "-n",
        "7:0:0",
        "-A",
        "7:set:2",
    ]
    run([*command, "-U", "12345678-1234-5678-9abc-def012345678", path])
    table = read.read(opened(path))
    assert check.check(opened(path)) == []
    assert table.disk_guid == UUID("12345678-1234-5678-9abc-def012345678")
    assert table.entry_count == 256
    first, last = table.partitions
    assert (first.number, first.start, first.size, first.name, first.type_guid) == (1, MiB, MiB, "EFI", ESP)
    assert (last.number, last.attributes, last.type_guid) == (7, 4, LINUX)


def test_we_read_what_sfdisk_writes(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(SIZE))
    run([tool("sfdisk"), path], input="label: gpt\n,2MiB,U\n,,L\n")
    device = opened(path)
    assert check.check(device) == []
    table = read.read(device)
    assert [partition.type_guid for partition in table.partitions] == [ESP, LINUX]
    edit.write(device, table)
    assert device.read(512, 200 * 512) == path.read_bytes()[512 : 201 * 512]


def test_we_read_what_fdisk_writes_with_large_sectors(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(SIZE))
    run([tool("fdisk"), "-b", "4096", path], input="g\nn\n1\n\n+2M\nn\n2\n\n\nw\n")
    device = opened(path)
    assert check.check(device) == []
    table = read.read(device)
    assert table.sector_size == 4096
    assert table.partition(1).size == 2 * MiB
    edit.write(device, table)
    assert device.read(4096, 30 * 4096) == path.read_bytes()[4096 : 31 * 4096]


def test_sgdisk_is_content_after_we_moved_the_backup(tmp_path):
    device = disk(example())
    device.resize(2 * SIZE)
    path = tmp_path / "disk.img"
    save(device, path)
    assert "end of the disk" in complaints(path)
    edit.move_backup(device)
    save(device, path)
    assert complaints(path) == ""


@pytest.mark.parametrize("sector", [0, 1, 2, 32735, 32767])
def test_sgdisk_is_content_after_we_repaired(tmp_path, sector):
    device = disk(example())
    device.write(sector * 512, b"\xa5" * 512)
    path = tmp_path / "disk.img"
    save(device, path)
    assert complaints(path)
    repair.repair(device)
    save(device, path)
    assert complaints(path) == ""


def test_types_have_the_guids_that_sfdisk_knows():
    known = run([tool("sfdisk"), "--label", "gpt", "-T"]).stdout.upper()
    missing = {name for name, guid in names.TYPES.items() if str(guid).upper() not in known}
    assert missing == {"luks", "dm-crypt"}  # sgdisk's 8309 and 8308


# -- damage --------------------------------------------------------------------------------------------------------

FIELDS = [
    *((lba * 512 + field.offset, field.width) for lba in (1, 32767) for field in layout.Header.FIELDS.values()),
    *(
        (lba * 512 + 128 * index + field.offset, field.width)
        for lba in (2, 32735)
        for index in range(4)
        for field in layout.Entry.FIELDS.values()
    ),
    *(
        (446 + 16 * index + field.offset, field.width)
        for index in range(4)
        for field in layout.MbrEntry.FIELDS.values()
    ),
    (510, 2),
]

STRICTER = {
    "gpt.mbr.start": "sgdisk does not look where the protective partition starts; the specification says LBA 1",
    "gpt.mbr.protective": "sgdisk prints this as remarks on an MBR and then finds no problem",
    "gpt.mbr.overlap": "sgdisk adds start and size in 32 bits, so the largest sizes wrap round",
    "gpt.primary.entry-count": "sgdisk takes a table of no entries for one of 128",
    "gpt.backup.entry-count": "the same",
    "gpt.mismatch.number-of-partition-entries": "the same",
    "gpt.primary.header-size": "sgdisk ignores the header's size and always sums 92 bytes",
    "gpt.backup.header-size": "the same",
    "gpt.partition.duplicate-guid": "sgdisk does not compare GUIDs",
}
"""Rules that we judge and sgdisk -v does not."""

LAXER = "technically a violation of the GPT specification"
"""sgdisk's remark on a boot flag in the protective partition, which BIOSes are known to need."""


def mutate(random_source):
    """Return a damaged device, or None where the damage changed nothing."""
    clean = disk(example())
    device = disk(example())
    offset, width = random_source.choice(FIELDS)
    value = int.from_bytes(device.read(offset, width), "little")
    step = random_source.choice([1, -1, 2, 128, -128, 512])
    choices = [random_source.getrandbits(8 * width), 0, (1 << 8 * width) - 1, (value + step) % (1 << 8 * width)]
    device.write(offset, random_source.choice(choices).to_bytes(width, "little"))
    if random_source.random() < 0.6:
        for lba in (1, 32767):
            header = layout.Header.parse(device.read(lba * 512, 512))
            if 0 < header.partition_entry_lba < 32736:
                entries = device.read(header.partition_entry_lba * 512, 16384)
                header.partition_entry_array_crc32 = zlib.crc32(entries)
            device.write(lba * 512, header.seal())
    return None if device.read(0, SIZE) == clean.read(0, SIZE) else device


def compare(seed, count, path):
    save(disk(example()), path)
    broken = 0
    for number in range(count):
        device = mutate(random.Random(f"{seed}.{number}"))
        if device is None:
            continue
        with path.open("r+b") as file:
            for start in (0, SIZE - 33 * 512):
                file.seek(start)
                file.write(device.read(start, 34 * 512 if start == 0 else 33 * 512))
        ours = {finding.rule for finding in check.check(device)} - set(STRICTER)
        stricter = {finding.rule for finding in check.check(device)} & set(STRICTER)
        theirs = complaints(path)
        broken += bool(theirs)
        where = f"mutation {seed}.{number}: {sorted(ours | stricter)}\n{theirs}"
        if not theirs:
            assert not ours, where
        elif LAXER not in theirs:
            assert ours or stricter, where
    return broken


@pytest.mark.slow
def test_verdicts_on_damage_are_sgdisks(tmp_path):
    assert compare(1, 120, tmp_path / "disk.img") > 40


@pytest.mark.soak
def test_verdicts_on_a_thousand_damages_are_sgdisks(tmp_path):
    assert compare(2, 1000, tmp_path / "disk.img") > 400
