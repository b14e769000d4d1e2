"""VHDX as one of the formats.

Knows: the registry's options. Refuses to know: bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from blockwright.device.base import BlockDevice
from blockwright.finding import Finding
from blockwright.format.driver import Beside, Driver
from blockwright.format.vhdx.create import Options, create
from blockwright.format.vhdx.open import open_vhdx
from blockwright.units import align_up, parse_size

if TYPE_CHECKING:  # a cycle by way of the registry
    from blockwright.format.open import Files


class VhdxDriver(Driver):
    """VHDX."""

    name = "vhdx"

    def open(self, file: BlockDevice, files: Files, *, writable: bool) -> BlockDevice:
        return open_vhdx(file, files, writable=writable)

    def options(self, given: Mapping[str, Any], output: str) -> Options:
        size = given.get("image_block_size")
        options = Options(
            given.get("subformat") == "fixed",
            parse_size(size) if size else None,
            int(given.get("vhdx_sector_size") or 512),
        )
        options.check()
        return options

    def create(self, file: BlockDevice, size: int, own: object, beside: Beside | None) -> BlockDevice:
        from blockwright.format.open import Files

        options = own if isinstance(own, Options) else Options()
        create(file, align_up(size, options.sector_size), options, "" if beside is None else beside.name)
        return open_vhdx(file, Files(), writable=True, owns=False)

    def check(self, file: BlockDevice, files: Files) -> Iterable[Finding]:
        from blockwright.format.vhdx.check import check

        return check(file)


DRIVER: Final = VhdxDriver()
