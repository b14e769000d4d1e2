"""Fuzz target: any bytes as a qcow2 image, read, verified, described, changed and mended."""

from blockwright.device.memory import MemoryDevice
from blockwright.errors import FormatError, NotSupported, UsageError
from blockwright.format.qcow2.bitmap import bitmap_ranges, read_bitmaps
from blockwright.format.qcow2.check import check
from blockwright.format.qcow2.open import no_files, open_qcow2, read_header
from blockwright.format.qcow2.repair import repair
from blockwright.format.qcow2.snapshot import open_snapshot, read_snapshots

MAX_BYTES = 1 << 20
READ = 1 << 16


def fuzz_one(data: bytes) -> None:
    """Lets nothing but FormatError out, and what says that it was mended is."""
    data = data[:MAX_BYTES]
    _read(data)
    for use in (_snapshots, _bitmaps, _change, _repair):
        try:
            use(MemoryDevice(content=data))
        except (FormatError, UsageError, NotSupported):
            continue


def _read(data: bytes) -> None:
    try:
        disk = open_qcow2(MemoryDevice(content=data), below=no_files, data=no_files, bare=True)
    except FormatError:
        return
    with disk:
        for offset in {0, disk.size // 2, max(0, disk.size - READ)}:
            try:
                disk.read(offset, min(READ, disk.size - offset))
                for number, _ in enumerate(disk.extents(offset, disk.size - offset)):
                    if number > 2000:
                        break
            except FormatError:
                continue


def _snapshots(file: MemoryDevice) -> None:
    header = read_header(file)
    for snapshot in read_snapshots(file, header)[:8]:
        disk = open_snapshot(file, header, snapshot, owns=False)
        disk.read(0, min(READ, disk.size))


def _bitmaps(file: MemoryDevice) -> None:
    header = read_header(file)
    for bitmap in read_bitmaps(file, header)[:8]:
        for number, _ in enumerate(bitmap_ranges(file, header, bitmap)):
            if number > 2000:
                break
    _marks(file)


def _marks(file: MemoryDevice) -> None:
    disk = open_qcow2(file, below=no_files, data=no_files, bare=True, owns=False)
    for context in list(disk.contexts.values())[:8]:
        for number, _ in enumerate(context.extents(0, disk.size)):
            if number > 2000:
                break


def _change(file: MemoryDevice) -> None:
    with open_qcow2(file, writable=True, below=no_files, data=no_files, bare=True) as disk:
        length = min(READ, disk.size)
        disk.write(0, b"x" * length)
        disk.zero(0, length)
        disk.write(disk.size - length, b"y" * length)
        disk.flush()


def _repair(file: MemoryDevice) -> None:
    repair(file)
    left = check(file)
    if left:
        raise AssertionError(f"still broken after a repair: {left[0]}")
