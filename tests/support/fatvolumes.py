"""FAT volumes for tests: a tree with every kind of entry, planned by us or made by mkfs.fat and mtools."""

import dataclasses
import random
from pathlib import Path

from hypothesis import strategies as st

from blockwright.device.memory import MemoryDevice
from blockwright.fs.fat import layout
from blockwright.fs.fat.device import open_plan
from blockwright.fs.fat.names import fold
from blockwright.fs.fat.plan import FatOptions, plan
from blockwright.fs.fat.volume import read_volume
from blockwright.tree import BytesContent, Directory, File
from tests.support.disks import memory
from tests.support.tools import run, tool

TIME_NS = 1_600_000_000 * 10**9


def file(size, seed=0, **options):
    return File(content=BytesContent(random.Random(seed).randbytes(size)), mtime_ns=TIME_NS, **options)


def directory(**entries):
    return Directory(mtime_ns=TIME_NS, entries={name.encode(): node for name, node in entries.items()})


def sample() -> Directory:
    """A tree with short, long and mixed-case names, empty files, and directories of several clusters."""
    many = directory(**{f"some longer name {number}.txt": file(number, number) for number in range(30)})
    boot = directory(**{"BOOTX64.EFI": file(9000, 1), "fbx64.efi": file(1, 2)})
    tree = directory(EFI=directory(BOOT=boot), many=many, empty=directory(), zero=file(0))
    tree.entries["Ünïcödé \U0001f427 name".encode()] = file(5000, 3)
    tree.entries[b"README"] = file(512, 4)
    tree.entries[b"read me.first"] = file(513, 5, permissions=0o444)
    return tree


def planned(**options) -> MemoryDevice:
    """A writable copy of our volume with the sample."""
    return memory(open_plan(plan(sample(), FatOptions(seed=b"test", **options))))


def small32() -> MemoryDevice:
    """A FAT32 volume with the sample, of far fewer clusters than the specification wants, as mkfs.fat -F 32 makes."""
    ours = plan(sample(), FatOptions(seed=b"test", bits=32))
    geometry = ours.geometry
    clusters = ours.used_clusters + 50
    total = geometry.data_start // geometry.sector_size + clusters * geometry.sectors_per_cluster
    small = dataclasses.replace(geometry, total_sectors=total, clusters=clusters)
    return memory(open_plan(dataclasses.replace(ours, geometry=small)))


def with_mtools(path: Path, bits: int, size: int, *options: str) -> MemoryDevice:
    """A volume by mkfs.fat, filled by mtools with files that are in pieces; left at `path`."""
    with path.open("wb") as handle:
        handle.truncate(size)
    run([tool("mkfs.fat"), "-F", str(bits), "-i", "1234abcd", "-n", "MTOOLS", *options, path])
    env = {"MTOOLS_SKIP_CHECK": "1", "SOURCE_DATE_EPOCH": "1600000000"}
    folder = path.parent / "source"
    folder.mkdir(exist_ok=True)
    names = ["plain.txt", "A Long Name.with dots.txt", "UPPER.BIN", "h\u00e9llo.txt", "empty"]
    for number, name in enumerate(names):
        (folder / name).write_bytes(random.Random(number).randbytes([100, 20000, 513, 3000, 0][number]))
    run([tool("mmd"), "-i", path, "::/DIR", "::/a directory", "::/a directory/sub"], env=env)
    for name in names:
        run([tool("mcopy"), "-m", "-i", path, folder / name, f"::/a directory/sub/{name}"], env=env)
    run([tool("mdel"), "-i", path, "::/a directory/sub/plain.txt"], env=env)
    for place in ("", "DIR/", "a directory/"):
        run([tool("mcopy"), "-m", "-i", path, folder / names[1], f"::/{place}{names[1]}"], env=env)
    return MemoryDevice(content=path.read_bytes())


def fields(device) -> list[tuple[str, int, int]]:
    """The (name, position, width in bytes) of every field of a volume that is worth damaging."""
    geometry = read_volume(device).geometry
    boot = layout.BootSector32 if geometry.bits == 32 else layout.BootSector
    found = [(name, field.offset, min(field.width, 8)) for name, field in boot.FIELDS.items()]
    if geometry.bits == 32:
        start = geometry.sector_size
        found += [(name, start + field.offset, 4) for name, field in layout.FsInfo.FIELDS.items()] * 2
    width = max(2, geometry.bits // 8)
    for number in range(40):
        entry = number * geometry.bits // 8
        found += [(f"fat{copy}.{number}", geometry.fat_start(copy) + entry, width) for copy in range(geometry.fats)]
    starts = [geometry.cluster_start(geometry.root_cluster)] if geometry.bits == 32 else [geometry.root_start]
    for cluster in range(2, 60):
        start = geometry.cluster_start(cluster)
        if device.read(start, 11) == b".".ljust(11):
            starts.append(start)
    for start in starts:
        for slot in range(0, min(512, geometry.cluster_size), layout.ENTRY_SIZE):
            raw = device.read(start + slot, layout.ENTRY_SIZE)
            if raw[0] == 0:
                break
            record = layout.LongEntry if raw[11] == layout.LONG_NAME else layout.DirEntry
            found += [
                (name, start + slot + field.offset, min(field.width, 4)) for name, field in record.FIELDS.items()
            ]
    return found


def damage(device, places, source: random.Random) -> tuple[str, int, bytes, bytes]:
    """Change one field of the device; return (name, position, bytes before, bytes after)."""
    while True:
        name, position, width = source.choice(places)
        before = device.read(position, width)
        value = int.from_bytes(before, "little")
        step = source.choice([1, -1, 2, 32, -32, 512])
        choices = [source.getrandbits(8 * width), 0, (1 << 8 * width) - 1, (value + step) % (1 << 8 * width)]
        choices += [value ^ 1 << source.randrange(8 * width)] * 2
        after = source.choice(choices).to_bytes(width, "little")
        if after != before:
            device.write(position, after)
            return name, position, before, after


NAMES = st.text(st.sampled_from("aAbBzZ019 ._-~+é世\U0001f427ß"), min_size=1, max_size=30)


def legal(name):
    return name[-1] not in ". " and name.strip(". ") != ""


@st.composite
def fat_trees(draw, depth=3):
    entries, seen = {}, set()
    for name in draw(st.lists(NAMES.filter(legal), max_size=8)):
        if fold(name) in seen:
            continue
        seen.add(fold(name))
        mtime = draw(st.sampled_from([0, TIME_NS, TIME_NS + 1_990_000_000, 2**31 * 10**9]))
        if depth and draw(st.booleans()):
            node = draw(fat_trees(depth=depth - 1))
            node.mtime_ns = mtime
        else:
            size = draw(st.sampled_from([0, 1, 511, 512, 513, 4096, 9000]))
            node = File(content=BytesContent(random.Random(size).randbytes(size)), mtime_ns=mtime)
        entries[name.encode()] = node
    return Directory(mtime_ns=TIME_NS, entries=entries)
