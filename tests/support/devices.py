"""Every kind of device and stack of wrappers, each with a way to make one that holds given bytes."""

import io
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from blockwright.device.adapter import BinaryFileDevice, ObjectDevice
from blockwright.device.base import BlockDevice, ResizableDevice, Traits
from blockwright.device.cache import CachedDevice
from blockwright.device.comparing import ComparingDevice
from blockwright.device.concat import Concat
from blockwright.device.dirty import DirtyDevice, track
from blockwright.device.file import FileDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.guarded import guarded
from blockwright.device.memory import MemoryDevice
from blockwright.device.overlay import Overlay
from blockwright.device.planned import PlannedDevice, SegmentTable
from blockwright.device.steady import SteadyDevice
from blockwright.device.window import Window
from blockwright.format.qcow2.create import Options, create
from blockwright.format.qcow2.open import no_files, open_qcow2
from blockwright.format.qcow2.pack import CompressingDevice
from blockwright.format.qcow2.write import WritableQcow2
from blockwright.format.vmdk.descriptor import MONOLITHIC_FLAT, MONOLITHIC_SPARSE, SPLIT_SPARSE
from blockwright.store.disk import create_disk, open_disk
from blockwright.store.layout import MIN_CHUNK
from blockwright.testing import CrashDevice, FaultDevice, RecordingDevice
from tests.support import blockimages as block_images
from tests.support import vmdk as vmdks
from tests.support.objects import MemoryObjects

Maker = Callable[[bytes, Path], BlockDevice]


class Store:
    """An object with read-at, write-at, size and sync, which transfers at most 700 bytes at once."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        self.synced = self.closed = 0

    def size(self) -> int:
        return len(self.content)

    def read_at(self, offset: int, length: int) -> bytes:
        return bytes(self.content[offset : offset + min(length, 700)])

    def write_at(self, offset: int, data: memoryview) -> int:
        part = data[:700]
        self.content[offset : offset + len(part)] = part
        return len(part)

    def sync(self) -> None:
        self.synced += 1

    def close(self) -> None:
        self.closed += 1


class BlockedDevice(ForwardingDevice):
    """A device that takes whole blocks only."""

    def __init__(self, inner: BlockDevice, block: int = 512) -> None:
        super().__init__(inner, traits=Traits(writable=True, parallelism=4, minimum_block=block))


def blocked(content: bytes) -> BlockedDevice:
    return BlockedDevice(MemoryDevice(content=content))


def file(content: bytes, folder: Path, *, writable: bool = True) -> FileDevice:
    path = folder / "device"
    path.unlink(missing_ok=True)
    with FileDevice(path, create=True) as made:
        made.resize(len(content))
        for offset in range(0, len(content), 4096):
            block = content[offset : offset + 4096]
            if any(block):
                made.write(offset, block)
    return FileDevice(path, writable=writable)


def planned(content: bytes) -> PlannedDevice:
    """Return a plan of bytes, computed parts and gaps that together hold the content."""
    table, position, turn = SegmentTable(), 0, 0
    source = MemoryDevice(content=content)

    class Whole:
        def read_into(self, offset: int, buffer: memoryview) -> None:
            source.read_into(offset, buffer)

    whole = Whole()
    while position < len(content):
        length = min((1, 4096, 777, 100_000)[turn % 4], len(content) - position)
        part = content[position : position + length]
        if any(part):
            if turn % 3:
                table.add(position, length, whole, position)
            else:
                table.add_bytes(position, part)
        position, turn = position + length, turn + 1
    return PlannedDevice(len(content), table)


def concat(content: bytes) -> Concat:
    cuts = [0, 1, 5000, 70_000, len(content)]
    cuts = sorted(min(cut, len(content)) for cut in cuts)
    return Concat.of(*(MemoryDevice(content=content[low:high]) for low, high in itertools.pairwise(cuts)))


def comparing(content: bytes) -> ComparingDevice:
    """A target over other bytes than those that are written to it."""
    device = ComparingDevice(
        MemoryDevice(content=bytes(each ^ (number >> 12 & 1) for number, each in enumerate(content)))
    )
    device.write(0, content)
    return device


def gapped(content: bytes) -> Concat:
    """Return parts for what is not zero in blocks of 8 KiB, and gaps for the rest."""
    parts = []
    for offset in range(0, len(content), 8192):
        part = content[offset : offset + 8192]
        if any(part):
            parts.append((offset, MemoryDevice(content=part)))
    return Concat(reversed(parts), len(content))


def window(inner: BlockDevice, start: int, length: int) -> Window:
    return Window(inner, start, length)


def dirty(inner: BlockDevice) -> DirtyDevice:
    """Return the device, its changes tracked since two checkpoints of different blocks."""
    device = track(inner)
    device.checkpoint("bytes", block=1)
    device.checkpoint("blocks", block=4096)
    return device


def padded(content: bytes) -> bytes:
    return b"\xee" * 1536 + content + b"\xee" * 999


def qcow2(content: bytes, options: Options, container: ResizableDevice | None = None) -> BlockDevice:
    """Return an image that holds the content, its zeros as holes."""
    container = MemoryDevice(0) if container is None else container
    create(container, len(content), options)
    disk = open_qcow2(container, writable=True, below=no_files, data=no_files)
    _put(disk, content)
    return disk


def qcow2_over(content: bytes, options: Options) -> BlockDevice:
    """Return an image over another that is shorter, each with every second block of the content."""
    shorter = content[: len(content) * 3 // 4]
    below = MemoryDevice(content=shorter)
    container = MemoryDevice(0)
    create(container, len(content), replace(options, backing_file="below", backing_format="raw"))
    disk = open_qcow2(container, writable=True, below=lambda *_: below, data=no_files)
    for offset in range(0, len(content), 4096):
        if offset % 8192 or offset + 4096 > len(shorter):
            disk.write(offset, content[offset : offset + 4096])
            below.write(min(offset, len(shorter)), b"\xee" * len(shorter[offset : offset + 4096]))
    return disk


def qcow2_data_file(content: bytes, folder: Path) -> BlockDevice:
    container, data = MemoryDevice(0), MemoryDevice(0)
    create(container, len(content), Options(data_file="data", cluster_size=4096))
    disk = open_qcow2(container, writable=True, below=no_files, data=lambda *_: data)
    _put(disk, content)
    return disk


def qcow2_compressing(content: bytes, options: Options) -> BlockDevice:
    disk = qcow2(bytes(len(content)), options)
    assert isinstance(disk, WritableQcow2)
    packing = CompressingDevice(disk, threads=2)
    _put(packing, content)
    packing.flush()
    return packing


def qcow2_packed(content: bytes, options: Options) -> BlockDevice:
    """Return an image of compressed clusters, to read."""
    container = MemoryDevice(0)
    create(container, len(content), options)
    disk = open_qcow2(container, writable=True, below=no_files, data=no_files, owns=False)
    assert isinstance(disk, WritableQcow2)
    with CompressingDevice(disk, threads=2) as packing:
        packing.write(0, content)
        packing.flush()
    return open_qcow2(container, below=no_files, data=no_files)


def _put(disk: BlockDevice, content: bytes) -> None:
    for offset in range(0, len(content), 4096):
        block = content[offset : offset + 4096]
        if any(block):
            disk.write(offset, block)


def vmdk(content: bytes, kind: str = MONOLITHIC_SPARSE) -> BlockDevice:
    """Return a VMDK disk that holds the content, its zeros as holes."""
    shelf = vmdks.Shelf()
    disk = vmdks.opened(vmdks.new(len(content), kind, shelf), shelf)
    _put(disk, content)
    return disk


def vmdk_child(content: bytes) -> BlockDevice:
    """Return a VMDK disk over another that is shorter, each with every second block of the content."""
    shorter = content[: max(512, len(content) * 3 // 4 // 512 * 512)]
    shelf = vmdks.Shelf()
    shelf.files["parent.vmdk"] = parent = vmdks.new(len(shorter))
    with vmdks.opened(vmdks.Lent(parent)) as disk:
        _put(disk, shorter)
        disk.flush()
    with vmdks.opened(vmdks.Lent(parent), writable=False) as disk:
        child = vmdks.child_of(disk, len(content))
    made = vmdks.opened(child, shelf)
    for offset in range(0, len(content), 4096):
        if offset % 8192 or offset + 4096 > len(shorter):
            made.write(offset, content[offset : offset + 4096])
    return made


def vmdk_stream(content: bytes) -> BlockDevice:
    return vmdks.opened(MemoryDevice(content=vmdks.stream_of(content)), writable=False)


def block_image(content: bytes, kind: str) -> BlockDevice:
    """Return the disk of a VHD, VHDX or VDI image, of whole sectors and as long as the content; it only grows."""
    unit = 4096
    size = -(-len(content) // unit) * unit
    disk = block_images.opened(kind, block_images.new(kind, size))
    _put(disk, content)
    return Window(disk, 0, len(content))


WRITABLE: dict[str, Maker] = {
    "memory": lambda content, folder: MemoryDevice(content=content),
    "file": file,
    "window over memory": lambda content, folder: Window(MemoryDevice(content=padded(content)), 1536, len(content)),
    "window over file": lambda content, folder: Window(file(padded(content), folder), 1536, len(content)),
    "concatenation": lambda content, folder: concat(content),
    "overlay over memory": lambda content, folder: Overlay(MemoryDevice(content=content)),
    "overlay over file, blocks of 64 KiB": lambda content, folder: Overlay(
        file(content, folder, writable=False), block=65536
    ),
    "overlay over plan": lambda content, folder: Overlay(planned(content), block=512),
    "overlay over overlay": lambda content, folder: Overlay(Overlay(MemoryDevice(content=content)), block=8192),
    "overlay into file": lambda content, folder: Overlay(MemoryDevice(content=content), file(b"", folder)),
    "cache over memory": lambda content, folder: CachedDevice(
        MemoryDevice(content=content), capacity=32 * 1024, block=1024, read_ahead=4096
    ),
    "cache over overlay": lambda content, folder: CachedDevice(Overlay(planned(content)), capacity=1 << 20),
    "adapter of an object": lambda content, folder: ObjectDevice(Store(content)),
    "adapter of a file object": lambda content, folder: BinaryFileDevice(io.BytesIO(content)),
    "forwarding": lambda content, folder: ForwardingDevice(file(content, folder)),
    "guarded": lambda content, folder: guarded(file(content, folder), lambda head: None, 512),
    "steady": lambda content, folder: SteadyDevice(file(content, folder)),
    "comparing": lambda content, folder: comparing(content),
    "tracked memory": lambda content, folder: dirty(MemoryDevice(content=content)),
    "tracked file": lambda content, folder: dirty(file(content, folder)),
    "qcow2": lambda content, folder: qcow2(content, Options()),
    "qcow2, version 2, clusters of 512": lambda content, folder: qcow2(content, Options(version=2, cluster_size=512)),
    "qcow2 with subclusters": lambda content, folder: qcow2(
        content, Options(extended_l2=True, cluster_size=16384), file(b"", folder)
    ),
    "qcow2 over a backing file": lambda content, folder: qcow2_over(content, Options(cluster_size=4096)),
    "qcow2, version 2, over a backing file": lambda content, folder: qcow2_over(content, Options(version=2)),
    "qcow2 with subclusters over a backing file": lambda content, folder: qcow2_over(
        content, Options(extended_l2=True, cluster_size=65536)
    ),
    "qcow2 with a data file": qcow2_data_file,
    "qcow2, compressing": lambda content, folder: qcow2_compressing(content, Options(compression="zstd")),
    "recording": lambda content, folder: RecordingDevice(file(content, folder)),
    "fault": lambda content, folder: FaultDevice(MemoryDevice(content=content)),
    "crash": lambda content, folder: CrashDevice(MemoryDevice(content=content)),
}
"""Devices of any size."""

BLOCKED: dict[str, Maker] = {
    "blocks of 512": lambda content, folder: blocked(content),
    "window over blocks": lambda content, folder: Window(blocked(bytes(1024) + content), 1024),
    "overlay over blocks": lambda content, folder: Overlay(blocked(content)),
    "overlay into blocks": lambda content, folder: Overlay(
        MemoryDevice(content=content), blocked(bytes(len(content)))
    ),
    "cache over blocks": lambda content, folder: CachedDevice(blocked(content), capacity=65536, block=4096),
    "tracked blocks": lambda content, folder: dirty(blocked(content)),
    "vmdk": lambda content, folder: vmdk(content),
    "vmdk, twoGbMaxExtentSparse": lambda content, folder: vmdk(content, SPLIT_SPARSE),
    "vmdk, monolithicFlat": lambda content, folder: vmdk(content, MONOLITHIC_FLAT),
    "vhd": lambda content, folder: block_image(content, "vhd"),
    "vhd, fixed": lambda content, folder: block_image(content, "vhd, fixed"),
    "vhdx": lambda content, folder: block_image(content, "vhdx"),
    "vdi": lambda content, folder: block_image(content, "vdi"),
    "vmdk over a parent": lambda content, folder: vmdk_child(content),
    "concatenation of blocks": lambda content, folder: Concat.of(blocked(content[:2048]), blocked(content[2048:])),
}
"""Devices whose size must be a multiple of 512."""

READ_ONLY: dict[str, Maker] = {
    "plan": lambda content, folder: planned(content),
    "file": lambda content, folder: file(content, folder, writable=False),
    "concatenation with gaps": lambda content, folder: gapped(content),
    "read-only window": lambda content, folder: Window(MemoryDevice(content=content), 0, read_only=True),
    "cache over plan": lambda content, folder: CachedDevice(planned(content), capacity=1 << 16, block=4096),
    "tracked plan": lambda content, folder: dirty(planned(content)),
    "adapter of a reading object": lambda content, folder: ObjectDevice(Store(content), writable=False),
    "vmdk, streamOptimized": lambda content, folder: Window(
        vmdk_stream(content.ljust(-(-len(content) // 512) * 512, b"\0")), 0, len(content)
    ),
    "qcow2, compressed": lambda content, folder: qcow2_packed(content, Options()),
    "qcow2, compressed with zstd, clusters of 4 KiB": lambda content, folder: qcow2_packed(
        content, Options(compression="zstd", cluster_size=4096)
    ),
}
"""Devices that take no writes."""


def stored(content: bytes, folder: Path, *, cached: bool = False) -> BlockDevice:
    """Return a disk in a bucket in memory, written by another writer, with little room for what is changed."""
    objects = MemoryObjects()
    with create_disk(objects, "disk", len(content), chunk=MIN_CHUNK) as disk:
        disk.write(0, content)
        disk.flush()
    again = open_disk(objects, "disk", writable=True, dirty=2 * MIN_CHUNK)
    return CachedDevice(again, capacity=4 * MIN_CHUNK, block=MIN_CHUNK, read_ahead=MIN_CHUNK) if cached else again


STORED: dict[str, Maker] = {
    "bucket": stored,
    "cached bucket": lambda content, folder: stored(content, folder, cached=True),
}
"""Devices that are never empty."""
