"""VDI as one of the formats.

Knows: the registry's options. Refuses to know: bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from blockwright.device.base import BlockDevice
from blockwright.finding import Finding
from blockwright.format.driver import Beside, Driver
from blockwright.format.vdi.create import Options, create
from blockwright.format.vdi.device import open_vdi
from blockwright.format.vdi.layout import DEFAULT_BLOCK
from blockwright.units import SECTOR, align_up, parse_size

if TYPE_CHECKING:  # a cycle by way of the registry
    from blockwright.format.open import Files


class VdiDriver(Driver):
    """VDI."""

    name = "vdi"

    def open(self, file: BlockDevice, files: Files, *, writable: bool) -> BlockDevice:
        return open_vdi(file, writable=writable)

    def options(self, given: Mapping[str, Any], output: str) -> Options:
        size = given.get("image_block_size")
        options = Options(given.get("subformat") == "fixed", parse_size(size) if size else DEFAULT_BLOCK)
        options.check()
        return options

    def create(self, file: BlockDevice, size: int, own: object, beside: Beside | None) -> BlockDevice:
        options = own if isinstance(own, Options) else Options()
        create(file, align_up(size, SECTOR), options, "" if beside is None else beside.name)
        return open_vdi(file, writable=True, owns=False)

    def check(self, file: BlockDevice, files: Files) -> Iterable[Finding]:
        from blockwright.format.vdi.check import check

        return check(file)


DRIVER: Final = VdiDriver()
