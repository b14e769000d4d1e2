"""New disks: an image of a size, with or without a table; a table on a disk that has none, or another.

Knows: which table a disk begins with. Refuses to know: partitions.
"""

from __future__ import annotations

import os

from blockwright.codec.identity import derive_u32
from blockwright.device.descriptor import is_disk
from blockwright.device.output import OutputFile
from blockwright.errors import UsageError
from blockwright.format.output import ImageOptions, image_output
from blockwright.format.registry import PACKED_SUFFIXES, format_by_name
from blockwright.table import convert, edit
from blockwright.table.gpt.plan import plan
from blockwright.table.mbr.change import new_table
from blockwright.table.partition import AnyTable, PartitionTable
from blockwright.units import MAX_SIZE, SECTOR

KINDS = ("gpt", "mbr")


def create(
    image: str,
    size: int,
    *,
    kind: str | None = None,
    seed: bytes,
    sector_size: int = SECTOR,
    form: str | None = None,
    force: bool = False,
) -> None:
    """Make ``image`` a disk of ``size`` bytes that read as zeros, but for an empty table where ``kind`` names one.

    ``form`` is the image's format, by the file's suffix where None. The size is rounded up to whole sectors. It
    appears under its name when it is whole and durable. Raises UsageError where something has that name, without
    ``force``, and for a block device.
    """
    if os.path.exists(image) and is_disk(image, os.stat(image).st_mode):
        raise UsageError(f"{image}: expected the name of a file to make, found a block device")
    if not 0 < size <= MAX_SIZE - sector_size:
        raise UsageError(f"{image}: expected a size of 1 to {MAX_SIZE - sector_size} bytes, found {size}")
    size = -(-size // sector_size) * sector_size
    options = ImageOptions(form or format_by_name(image))
    options.check()
    if form is None and image.lower().endswith(PACKED_SUFFIXES):
        raise UsageError(f"{image}: expected a format that is written in place, found a compressed file")
    if options.once and not options.raw:
        raise UsageError(f"{image}: expected a format that is written in place, found {options.form}")
    table = None if kind is None else empty_table(kind, size, seed=seed, sector_size=sector_size)
    if not options.raw:
        with image_output(image, size, options, force=force) as device:
            if table is not None:
                edit.write(device, table)
        return
    with OutputFile(image, force=force, size=size) as out:
        if table is not None:
            edit.write(out.device, table)


def empty_table(kind: str, size: int, *, seed: bytes, sector_size: int = SECTOR, signature: int = 0) -> AnyTable:
    """Return a table without partitions; its identity follows from ``seed``, but for a ``signature`` that is given.

    Raises NoSpace where the disk is too small for it.
    """
    size = size // sector_size * sector_size
    if kind == "gpt":
        return plan([], seed=seed, size=size, sector_size=sector_size)
    return new_table(size, sector_size=sector_size, disk_signature=signature or derive_u32(seed, "mbr.disk"))


def converted(table: AnyTable, kind: str, *, seed: bytes, signature: int = 0) -> AnyTable:
    """Return the same partitions in a table of ``kind``; one of that kind stays as it is.

    A master boot record gets the disk's ``signature`` where it has one, else one that follows from ``seed``. Raises
    UsageError for what the other kind cannot say.
    """
    if table.kind == kind:
        return table
    if isinstance(table, PartitionTable):
        return convert.to_mbr(table, disk_signature=signature or derive_u32(seed, "mbr.disk"))
    return convert.to_gpt(table, seed=seed)
