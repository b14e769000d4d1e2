"""Every kind of device and stack of wrappers, each with a way to make one that holds given bytes."""

import io
import itertools
from collections.abc import Callable
from pathlib import Path

from blockwright.device.adapter import BinaryFileDevice, ObjectDevice
from blockwright.device.base import BlockDevice, Traits
from blockwright.device.cache import CachedDevice
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
from blockwright.testing import CrashDevice, FaultDevice, RecordingDevice

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
    "tracked memory": lambda content, folder: dirty(MemoryDevice(content=content)),
    "tracked file": lambda content, folder: dirty(file(content, folder)),
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
}
"""Devices that take no writes."""
