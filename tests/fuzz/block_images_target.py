"""Fuzz target: any bytes as a VHD, VHDX and VDI image, read, verified, described and changed."""

from blockwright.device.memory import MemoryDevice
from blockwright.errors import FormatError, NoSpace, NotAllowed, UsageError
from blockwright.format.open import Files
from blockwright.format.vdi import check as vdi
from blockwright.format.vdi.device import open_vdi
from blockwright.format.vhd import check as vhd
from blockwright.format.vhd.open import open_vhd
from blockwright.format.vhdx import check as vhdx
from blockwright.format.vhdx.open import open_vhdx

MAX_BYTES = 8 << 20
READ = 1 << 16
OPENERS = (
    (lambda file, **more: open_vhd(file, Files(), **more), vhd.check),
    (lambda file, **more: open_vhdx(file, Files(), **more), vhdx.check),
    (open_vdi, vdi.check),
)


def fuzz_one(data: bytes) -> None:
    """Lets nothing but FormatError out, and what is written to a disk that opens is read again."""
    data = data[:MAX_BYTES]
    for opener, check in OPENERS:
        for use in (_read, _change):
            try:
                use(opener, MemoryDevice(content=data))
            except (FormatError, NotAllowed, NoSpace, UsageError):
                continue
        try:
            check(MemoryDevice(content=data))
        except FormatError:
            continue


def _read(opener, file: MemoryDevice) -> None:
    with opener(file) as disk:
        disk.describe()
        for offset in {0, disk.size // 2, max(0, disk.size - READ)}:
            disk.read(offset, min(READ, disk.size - offset))
            for number, _ in enumerate(disk.extents(offset, disk.size - offset)):
                if number > 2000:
                    break


def _change(opener, file: MemoryDevice) -> None:
    disk = opener(file, writable=True)
    if disk.block_size > MAX_BYTES:  # which would cost memory here, and nothing in a file
        disk.close()
        return
    with disk:
        for offset in {0, max(0, disk.size - READ)}:
            length = min(READ, disk.size - offset)
            disk.write(offset, b"x" * length)
            if disk.read(offset, length) != b"x" * length:
                raise AssertionError("what was written is not what is read")
        disk.zero(0, min(READ, disk.size))
        disk.flush()
