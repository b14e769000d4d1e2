"""VMDK images to try: in memory, of each kind, with all files of one."""

import random
from pathlib import Path

from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.device.file import FileDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import NotFound
from blockwright.format.vmdk.create import Options, create
from blockwright.format.vmdk.descriptor import MONOLITHIC_SPARSE, STREAM, Descriptor, Extent, text_of
from blockwright.format.vmdk.open import open_vmdk
from blockwright.format.vmdk.stream import StreamWriter


class Shelf:
    """Files in memory: what an image names is found here, and made here."""

    def __init__(self, name: str = "disk.vmdk") -> None:
        self.name = name
        self.files: dict[str, MemoryDevice] = {}

    def __call__(self, name: str) -> BlockDevice:
        return self.files.setdefault(name, MemoryDevice(0))

    def part(self, name: bytes, what: str, *, writable: bool = False) -> BlockDevice:
        if name.decode() not in self.files:
            raise NotFound(f"{what} {name!r}: no such file")
        return Lent(self.files[name.decode()])

    def below(self, name: bytes, form: str | None, what: str = "parent") -> BlockDevice:
        return open_vmdk(self.part(name, what), self)


class Lent(ForwardingDevice, ResizableDevice):
    """A file that stays open when whoever opened it closes it."""

    def __init__(self, inner: MemoryDevice) -> None:
        super().__init__(inner, owns=False)

    def _resize(self, size: int) -> None:
        self._inner.resize(size)


def new(size: int, kind: str = MONOLITHIC_SPARSE, shelf: Shelf | None = None) -> MemoryDevice:
    """Return a file in memory with an empty image."""
    file = MemoryDevice(0)
    with create(file, size, Options(kind), shelf) as disk:
        disk.flush()
    return file


def opened(file: BlockDevice, shelf: Shelf | None = None, *, writable: bool = True) -> BlockDevice:
    """Return the disk in a file, which it owns."""
    return open_vmdk(file, shelf or Shelf(), writable=writable)


def stream_of(content: bytes, *, piece: int = 4096, level: int | None = None) -> bytes:
    """Return a stream-optimized image of the content, zeros left out."""
    file = MemoryDevice(0)
    with StreamWriter(file, len(content), Options(STREAM, level=level), threads=2) as out:
        for offset in range(0, len(content), piece):
            part = content[offset : offset + piece]
            if any(part):
                out.write(offset, part)
        out.finish()
    return file.read(0, file.size)


def child_of(parent: BlockDevice, size: int, name: bytes = b"parent.vmdk") -> MemoryDevice:
    """Return a file in memory with an empty image of ``size`` bytes over the disk ``parent``."""
    file = new(size)
    extent = Extent("RW", size, "SPARSE", b"child.vmdk")
    found = Descriptor(1234, MONOLITHIC_SPARSE, (extent,), parent.descriptor.content_id, name)
    file.write(512, text_of(found).ljust(20 * 512, b"\0"))
    return file


def content(size: int, seed: str) -> bytes:
    """Noise, text that compresses, and zeros, in pieces of many sizes."""
    chance = random.Random(seed)
    data = bytearray()
    while len(data) < size:
        length = chance.choice((512, 4096, 10_000, 65_536, 300_000))
        data += chance.choice((chance.randbytes, bytes, lambda n: (b"so many words " * n)[:n]))(length)
    return bytes(data[:size])


def save(file: BlockDevice, path: Path) -> Path:
    """Write what a device holds to a file."""
    path.unlink(missing_ok=True)
    with FileDevice(path, create=True) as out:
        out.resize(file.size)
        out.write(0, file.read(0, file.size))
    return path
