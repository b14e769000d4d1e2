"""Fuzz target: any bytes as a compressed image, read at both ends and in the middle."""

from blockwright.device.memory import MemoryDevice
from blockwright.errors import FormatError
from blockwright.format.open import open_image

MAX_BYTES = 1 << 18
READ = 1 << 16


def fuzz_one(data: bytes) -> None:
    """Lets nothing but FormatError out."""
    for form in ("gz", "xz", "zst"):
        file = MemoryDevice(content=data[:MAX_BYTES])
        try:
            with open_image(file, form=form) as disk:
                for offset in {0, disk.size // 2, max(0, disk.size - READ)}:
                    disk.read(offset, min(READ, disk.size - offset))
        except FormatError:
            continue
