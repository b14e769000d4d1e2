"""Images to try qcow2 on: options to combine, a device that crashes and can grow, and what qemu-img says."""

import subprocess
from pathlib import Path

from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.device.file import FileDevice
from blockwright.device.memory import MemoryDevice
from blockwright.format.qcow2.create import Options, create
from blockwright.format.qcow2.open import no_files, open_qcow2
from blockwright.testing import CrashDevice
from blockwright.units import KiB, MiB
from tests.support.tools import run, tool

GEOMETRIES: dict[str, Options] = {
    "default": Options(),
    "version 2": Options(version=2),
    "version 2, small clusters": Options(version=2, cluster_size=4 * KiB),
    "clusters of 512": Options(cluster_size=512),
    "clusters of 512, wide refcounts": Options(cluster_size=512, refcount_bits=64),
    "clusters of 2 MiB": Options(cluster_size=2 * MiB),
    "1-bit refcounts": Options(refcount_bits=1, cluster_size=4 * KiB),
    "2-bit refcounts": Options(refcount_bits=2, cluster_size=4 * KiB),
    "4-bit refcounts": Options(refcount_bits=4),
    "8-bit refcounts": Options(refcount_bits=8, cluster_size=1 * KiB),
    "32-bit refcounts": Options(refcount_bits=32),
    "subclusters": Options(extended_l2=True, cluster_size=16 * KiB),
    "subclusters of 2 KiB": Options(extended_l2=True, cluster_size=64 * KiB),
    "zstd": Options(compression="zstd"),
    "lazy refcounts": Options(lazy_refcounts=True),
}


def qemu_arguments(options: Options) -> str:
    """Return what qemu-img's -o takes for the same image."""
    parts = [
        f"compat={'0.10' if options.version == 2 else '1.1'}",
        f"cluster_size={options.cluster_size}",
        f"refcount_bits={options.refcount_bits}",
    ]
    if options.extended_l2:
        parts.append("extended_l2=on")
    if options.compression != "zlib":
        parts.append(f"compression_type={options.compression}")
    if options.lazy_refcounts:
        parts.append("lazy_refcounts=on")
    return ",".join(parts)


def new(size: int, options: Options = Options(), *, room: int | None = None) -> MemoryDevice:  # noqa: B008 - a value
    """Return a file in memory with an empty image."""
    file = MemoryDevice(0)
    create(file, size, options)
    if room:
        file.resize(room)
    return file


def opened(file: BlockDevice, *, writable: bool = True, owns: bool = True, below: BlockDevice | None = None):
    """Return the disk in a file in memory."""
    return open_qcow2(
        file, writable=writable, below=no_files if below is None else lambda *_: below, data=no_files, owns=owns
    )


def holding(content: bytes, options: Options) -> BlockDevice:
    """Return a writable disk with this content."""
    disk = opened(new(len(content), options))
    for offset in range(0, len(content), 4096):
        part = content[offset : offset + 4096]
        if any(part):
            disk.write(offset, part)
    return disk


class GrowingCrash(CrashDevice, ResizableDevice):
    """A crash device that can grow up to ``room`` bytes."""

    def __init__(self, content: bytes, room: int) -> None:
        super().__init__(MemoryDevice(room, content))
        self._size = len(content)

    def alone(self, count: int) -> BlockDevice:
        """Return the disk after a cut behind ``count`` events, of which only the last arrived without a flush."""
        events = self.events[:count]
        flushed = max((index + 1 for index, event in enumerate(events) if event.is_flush), default=0)
        return self._disk([*events[:flushed], *events[max(flushed, count - 1) :]])

    def _resize(self, size: int) -> None:
        assert size <= self._before.size, "give the test more room"


def save(file: BlockDevice, path: Path) -> Path:
    """Write what a device holds to a sparse file."""
    path.unlink(missing_ok=True)
    with FileDevice(path, create=True) as out:
        out.resize(file.size)
        for extent in file.extents():
            if not extent.flags:
                out.write(extent.offset, file.read(extent.offset, extent.length))
    return path


def qemu_check(path: Path, *, leaks: bool = False) -> None:
    """Fail where qemu-img finds errors in the image, or leaks where they are not allowed."""
    run([tool("qemu-img"), "check", "-f", "qcow2", path], ok=(0, 3) if leaks else (0,))


def qemu_check_code(path: Path) -> int:
    """Return what qemu-img check exits with: 0 clean, 2 errors, 3 leaks."""
    return subprocess.run(
        [tool("qemu-img"), "check", "-f", "qcow2", path], capture_output=True, check=False
    ).returncode
