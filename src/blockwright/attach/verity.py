"""Data and its hash tree as a read-only block device that the kernel verifies as it is read.

Files are attached to loop devices on the way. What is made is on record before it is, and goes with ``close``, or
with ``gc`` where the process died that was to do it.

Knows: the order of steps, and what belongs to a device. Refuses to know: how a tree is computed.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from blockwright.errors import IntegrityError, InUse, NotFound
from blockwright.resolve import Location, locate, naming, open_device
from blockwright.system.linux import dm, loop
from blockwright.system.linux.dm import nodes
from blockwright.system.linux.ioctl import require_linux
from blockwright.system.linux.log import Logger, told
from blockwright.system.linux.registry import Record, Registry
from blockwright.verity.check import proves_root
from blockwright.verity.find import area_of
from blockwright.verity.format import HashArea
from blockwright.verity.layout import parse_root
from blockwright.verity.plan import plan_tree

_KIND = "verity"


@dataclass(frozen=True, slots=True)
class Opened:
    """A verified device: its ``path`` and ``size`` in bytes, and the devices that data and hashes are read from.

    As a context manager it goes with the block.
    """

    name: str
    path: str
    size: int
    data: str
    hashes: str

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close(self.name)


def open_verified(
    data: str,
    hashes: str | None,
    root: str,
    name: str,
    *,
    hash_offset: int | None = None,
    area: HashArea | None = None,
    owned: bool = False,
    logger: Logger | None = None,
) -> Opened:
    """Return a device of that name whose every block is verified against the root hash, in hexadecimal, when read.

    ``data`` and ``hashes`` are addresses of files or devices, or of parts of them; without ``hashes`` the tree is
    behind the data. ``area`` says where and of what kind the tree is where no superblock does. With ``owned`` it goes
    with this process: ``gc`` removes it when that has died.

    Raises NotFound; FormatError for a superblock that does not hold; IntegrityError where the tree is not that of the
    root hash; InUse where the name is taken; Unavailable without privilege or device-mapper; KernelError.
    """
    require_linux("verity open", name)
    nodes.checked_name(name)
    with dm.Mapper(logger=logger) as mapper, Registry(_KIND).locked():
        found, root_bytes = _read(data, hashes, root, hash_offset, area)
        _sweep(mapper, name)
        places = locate(data), locate(data if hashes is None else hashes)
        return _open(mapper, places, found, root_bytes, name, owned=owned, logger=logger)


def _read(
    data: str, hashes: str | None, root: str, hash_offset: int | None, area: HashArea | None
) -> tuple[HashArea, bytes]:
    """Return where the tree is and the root hash, once they belong together and the data is there."""
    with open_device(data if hashes is None else hashes) as device, naming(data if hashes is None else hashes):
        found = area or area_of(device, hash_offset, behind=hashes is None)
        wanted = parse_root(root, found.parameters)
        proves_root(device, found, wanted)
    with open_device(data) as device:
        if device.size < found.parameters.data_size:
            raise IntegrityError(
                f"{data}: expected at least {found.parameters.data_size} bytes of data, found {device.size}"
            )
    return found, wanted


def _open(
    mapper: dm.Mapper,
    places: tuple[Location, Location],
    area: HashArea,
    root: bytes,
    name: str,
    *,
    owned: bool,
    logger: Logger | None,
) -> Opened:
    given = area.parameters
    identity = "0" * 32 if area.uuid is None else area.uuid.hex
    # What cryptsetup's tools look for, and what nobody else gives.
    uuid = f"CRYPT-VERITY-{identity}-blockwright-{name}"[:128]
    registry = Registry(_KIND)
    with ExitStack() as undo:
        ends = given.data_size, area.tree_start + plan_tree(given).size
        attached = [_attached(place, end, undo, logger) for place, end in zip(places, ends, strict=True)]
        loops = [each for each in attached if isinstance(each, loop.LoopDevice)]
        fields: dict[str, Any] = {"uuid": uuid, "loops": [[each.number, each.sequence] for each in loops]}
        undo.callback(registry.remove, name)
        registry.put(name, fields, owned=True)
        table = dm.Verity(
            given.data_size,
            data=os.fspath(attached[0]),
            hashes=os.fspath(attached[1]),
            root=root,
            salt=given.salt,
            hash_start_blocks=area.tree_start // given.hash_block,
            data_block=given.data_block,
            hash_block=given.hash_block,
            algorithm=given.algorithm,
        )
        path = mapper.create(name, [table], uuid=uuid, read_only=True)
        undo.pop_all()
    if not owned:
        for each in loops:
            each.keep()
    registry.put(name, fields, owned=owned)
    told(logger).info("opened %s as %s", places[0].path, path)
    return Opened(name, path, given.data_size, table.data, table.hashes)


def _attached(place: Location, end: int, undo: ExitStack, logger: Logger | None) -> loop.LoopDevice | str:
    """Return a device that begins where the place does: itself, or a loop device, which ``undo`` detaches."""
    if place.size is None and stat.S_ISBLK(os.stat(place.path).st_mode):
        return place.path
    device = loop.attach(place.path, read_only=True, offset=place.start, size_limit=end, owned=True, logger=logger)
    undo.callback(device.detach)
    return device


def close(name: str, *, logger: Logger | None = None) -> None:
    """Have no device of that name that was opened here, nor its loop devices.

    Raises NotFound where none was opened here, InUse, naming who, where it is held; Unavailable, KernelError.
    """
    require_linux("verity close", name)
    nodes.checked_name(name)
    with dm.Mapper(logger=logger) as mapper, Registry(_KIND).locked():
        record = Registry(_KIND).get(name)
        if record is None or not record.current or not _close(mapper, record, logger):
            raise NotFound(f"{name}: no verified device of that name was opened here")


def gc(*, logger: Logger | None = None) -> loop.Collected:
    """Have no verified devices whose owner died. Raises Unavailable, KernelError."""
    require_linux("gc", "verified devices")
    gone: list[str] = []
    held: list[str] = []
    registry = Registry(_KIND)
    for record in list(registry.records()):
        if not record.current:
            registry.remove(record.name)
    if not _dead(registry):
        return loop.Collected((), ())
    with dm.Mapper(logger=logger) as mapper, registry.locked():
        for record in _dead(registry):  # anew: somebody may have opened another of that name
            try:
                if _close(mapper, record, logger):
                    gone.append(nodes.path_of(record.name))
            except InUse as error:
                told(logger).warning("%s", error)
                held.append(str(error))
    return loop.Collected(tuple(gone), tuple(held))


def _dead(registry: Registry) -> list[Record]:
    """Return the records whose owner died."""
    return [each for each in registry.records() if each.owner is not None and not each.alive]


def _sweep(mapper: dm.Mapper, name: str) -> None:
    """Raise InUse where there is such a device; where only a record of one is left, its loop devices go."""
    if mapper.exists(name):
        raise InUse(f"{nodes.path_of(name)}: exists already")
    record = Registry(_KIND).get(name)
    if record is not None and record.current:
        _close(mapper, record, None)


def _close(mapper: dm.Mapper, record: Record, logger: Logger | None) -> bool:
    """Remove what a record tells of, as far as it is still that; answer whether the device was there."""
    uuid, loops = record.fields.get("uuid"), record.fields.get("loops")
    there = False
    for entry in mapper.devices():
        if entry.name == record.name and entry.uuid == uuid:
            mapper.remove(record.name)
            there = True
    if not there:
        nodes.sweep(record.name)
    for number, sequence in loops if isinstance(loops, list) else ():
        loop.detach(int(number), sequence=sequence, logger=logger)
    Registry(_KIND).remove(record.name)
    return there
