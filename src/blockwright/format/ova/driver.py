"""OVA as one of the formats: its options as they are spelled, and which module does what.

Knows: the registry's options. Refuses to know: bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from blockwright.device.base import BlockDevice
from blockwright.errors import UsageError
from blockwright.finding import Finding
from blockwright.format.driver import Beside, Driver, level_of
from blockwright.format.ova.layout import Machine
from blockwright.units import GiB, parse_size

if TYPE_CHECKING:  # a cycle by way of the registry
    from blockwright.format.open import Files


@dataclass(frozen=True, slots=True)
class Making:
    """The machine that the archive describes, and the level of its disk's compression."""

    machine: Machine = field(default_factory=Machine)
    level: int | None = None


class OvaDriver(Driver):
    """OVA."""

    name = "ova"

    def open(self, file: BlockDevice, files: Files, *, writable: bool) -> BlockDevice:
        from blockwright.format.ova.read import open_ova

        return open_ova(file, files, writable=writable)

    def once(self, own: object) -> bool:
        return True

    def options(self, given: Mapping[str, Any], output: str) -> Making:
        cpus, memory = given.get("ova_cpus"), given.get("ova_memory")
        try:
            number = 1 if cpus is None else int(cpus)
        except ValueError:
            raise UsageError(f"ova: expected a number of processors, found {str(cpus)[:40]!r}") from None
        machine = Machine(number, GiB if memory is None else parse_size(memory), given.get("ova_firmware") or "bios")
        machine.check()
        return Making(machine, level_of(given))

    def create(self, file: BlockDevice, size: int, own: object, beside: Beside | None) -> BlockDevice:
        from blockwright.format.ova.write import OvaWriter

        making = own if isinstance(own, Making) else Making()
        name = "disk.ova" if beside is None else beside.name
        return OvaWriter(file, size, making.machine, name=name, level=making.level)

    def check(self, file: BlockDevice, files: Files) -> Iterable[Finding]:
        from blockwright.format.ova.read import check

        return check(file)


DRIVER: Final = OvaDriver()
