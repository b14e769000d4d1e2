"""VMDK as one of the formats: its options as they are spelled, and which module does what.

Knows: the registry's options. Refuses to know: bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from blockwright.device.base import BlockDevice
from blockwright.errors import UsageError
from blockwright.finding import Finding
from blockwright.format.driver import Beside, Driver, level_of
from blockwright.format.vmdk.create import Options, create
from blockwright.format.vmdk.descriptor import MONOLITHIC_SPARSE, STREAM
from blockwright.format.vmdk.open import open_vmdk

if TYPE_CHECKING:  # a cycle by way of the registry
    from blockwright.format.open import Files


class VmdkDriver(Driver):
    """VMDK."""

    name = "vmdk"

    def open(self, file: BlockDevice, files: Files, *, writable: bool) -> BlockDevice:
        return open_vmdk(file, files, writable=writable)

    def options(self, given: Mapping[str, Any], output: str) -> Options:
        kind = given.get("vmdk_type") or (STREAM if output == "-" or given.get("compress") else MONOLITHIC_SPARSE)
        if given.get("compress") and kind != STREAM:
            raise UsageError(f"compress: expected the type {STREAM}, found {kind}")
        options = Options(kind, given.get("vmdk_adapter"), level_of(given))
        options.check()
        return options

    def streams(self, own: object) -> bool:
        return isinstance(own, Options) and own.kind == STREAM

    def create(self, file: BlockDevice, size: int, own: object, beside: Beside | None) -> BlockDevice:
        options = own if isinstance(own, Options) else Options()
        if options.kind != STREAM:
            return create(file, size, options, beside)
        from blockwright.format.vmdk.stream import StreamWriter

        return StreamWriter(file, size, options, name="disk.vmdk" if beside is None else beside.name)

    def check(self, file: BlockDevice, files: Files) -> Iterable[Finding]:
        from blockwright.format.vmdk.check import check

        return check(file, files)


DRIVER: Final = VmdkDriver()
