"""qcow2 as one of the formats: its options as they are spelled, and which module does what.

Knows: the registry's options. Refuses to know: bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from blockwright.device.base import BlockDevice
from blockwright.errors import Unsupported, UsageError
from blockwright.finding import Finding
from blockwright.format.driver import Beside, Driver, level_of
from blockwright.format.qcow2.create import Options, create
from blockwright.format.qcow2.open import no_files, open_qcow2, read_header
from blockwright.units import SECTOR, align_up, parse_size

if TYPE_CHECKING:  # a cycle by way of the registry
    from blockwright.format.open import Files


@dataclass(frozen=True, slots=True)
class Making:
    """How a new image is made: what it is like, and whether its data is compressed, at which ``level``."""

    options: Options = field(default_factory=Options)
    compress: bool = False
    level: int | None = None

    def check(self) -> None:
        """Raise UsageError where the options contradict one another."""
        if self.compress and self.options.data_file is not None:
            raise UsageError("compress: an external data file cannot hold compressed clusters")
        self.options.check()


class Qcow2Driver(Driver):
    """qcow2."""

    name = "qcow2"
    resizes = True

    def open(self, file: BlockDevice, files: Files, *, writable: bool) -> BlockDevice:
        def data(name: bytes) -> BlockDevice:
            return files.part(name, "external data file", writable=writable)

        return open_qcow2(file, writable=writable, below=files.below, data=data)

    def open_snapshot(self, file: BlockDevice, files: Files, name: str) -> BlockDevice:
        from blockwright.format.qcow2.snapshot import find_snapshot, open_snapshot, read_snapshots

        image = read_header(file)
        if image.data_file is not None:
            raise Unsupported("snapshot: the data of an image with an external data file is that of now")
        found = find_snapshot(read_snapshots(file, image), name)
        below = None if image.backing_file is None else files.below(image.backing_file, image.backing_format)
        try:
            return open_snapshot(file, image, found, below=below)
        except BaseException:
            if below is not None:
                below.close()
            raise

    def options(self, given: Mapping[str, Any], output: str) -> Making:
        extended = bool(given.get("extended_l2"))
        size = given.get("cluster_size") or ("128k" if extended else "64k")
        if given.get("compression") == "gzip":
            raise UsageError("compression: expected zlib or zstd for qcow2, found gzip")
        options = Options(
            version=int(given.get("qcow2_version") or 3),
            cluster_size=parse_size(size),
            refcount_bits=int(given.get("refcount_bits") or 16),
            extended_l2=extended,
            compression=given.get("compression") or "zlib",
        )
        making = Making(options, bool(given.get("compress")), level_of(given))
        making.check()
        return making

    def create(self, file: BlockDevice, size: int, own: object, beside: Beside | None) -> BlockDevice:
        from blockwright.format.qcow2.write import WritableQcow2

        making = own if isinstance(own, Making) else Making()
        making.check()
        create(file, align_up(size, SECTOR), making.options)
        image = open_qcow2(file, writable=True, below=no_files, data=no_files, bare=True, owns=False)
        if not making.compress:
            return image
        from blockwright.format.qcow2.pack import CompressingDevice

        assert isinstance(image, WritableQcow2), "asked to be writable"
        return CompressingDevice(image, level=making.level)

    def check(self, file: BlockDevice, files: Files) -> Iterable[Finding]:
        from blockwright.format.qcow2.check import check

        return check(file)

    def repair(self, file: BlockDevice) -> bool:
        from blockwright.format.qcow2.repair import repair

        return repair(file)


DRIVER: Final = Qcow2Driver()
