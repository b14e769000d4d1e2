"""gzip, xz and zstd as formats: raw images that were compressed as a whole, to be read where they lie.

Knows: which module reads which. Refuses to know: bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from blockwright.device.base import BlockDevice
from blockwright.errors import ReadOnly, UsageError
from blockwright.format.driver import Beside, Driver

if TYPE_CHECKING:  # a cycle by way of the registry
    from blockwright.format.open import Files


class PackedDriver(Driver):
    """One of them."""

    def __init__(self, name: str) -> None:
        self.name = name

    def open(self, file: BlockDevice, files: Files, *, writable: bool) -> BlockDevice:
        if writable:
            raise ReadOnly(f"{files.path or 'image'}: is compressed with {self.name}, and only read: convert it")
        if self.name == "gz":
            from blockwright.format.packed.gzipped import open_gzip

            return open_gzip(file)
        if self.name == "xz":
            from blockwright.format.packed.xz import open_xz

            return open_xz(file)
        from blockwright.format.packed.zst import open_zstd

        return open_zstd(file)

    def create(self, file: BlockDevice, size: int, own: object, beside: Beside | None) -> BlockDevice:
        raise UsageError(f"{self.name}: is not made")


GZ: Final = PackedDriver("gz")
XZ: Final = PackedDriver("xz")
ZST: Final = PackedDriver("zst")
