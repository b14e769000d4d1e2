"""Mends the refcounts of an image, from what its tables refer to.

Leaks are mended in place. Refcounts that are too low are made anew as a whole, behind all that is used, and count
when the header says so: until then the image is what it was.

Knows: how refcounts come to hold again. Refuses to know: how to mend anything else.
"""

from __future__ import annotations

from array import array

from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.device.memory import ZeroDevice
from blockwright.errors import Corrupt, LimitExceeded, NoSpace
from blockwright.format.qcow2.check import LEAK, LOW, check, differences
from blockwright.format.qcow2.device import read_entries
from blockwright.format.qcow2.layout import (
    COMPRESSED,
    COPIED,
    MAX_REFCOUNT_TABLE_BYTES,
    OFFSET_MASK,
    ImageHeader,
    Incompatible,
    entry_bytes,
    new_refcounts,
    pack_refcounts,
)
from blockwright.format.qcow2.open import no_files, open_qcow2, read_header
from blockwright.format.qcow2.references import MAX_FINDINGS, References, compute
from blockwright.format.qcow2.write import WritableQcow2
from blockwright.units import ceil_div

REBUILT = frozenset({LOW, "qcow2.dirty", "qcow2.corrupt"})
"""What makes all refcounts be made anew."""
MENDABLE = REBUILT | {LEAK, "qcow2.copied"}


def repair(file: BlockDevice) -> bool:
    """Mend leaks and wrong refcounts of the image in ``file``, and return whether anything was changed.

    Raises Corrupt where something else is wrong, with nothing changed: no refcount can be right then.
    """
    image = read_header(file)
    findings = check(file)
    if not findings:
        return False
    others = [each for each in findings if each.rule not in MENDABLE]
    if others:
        found = f"{others[0].rule}: {others[0].message}"
        raise Corrupt(f"qcow2: only refcounts can be mended, found {found}", offset=others[0].offset)
    rules = {each.rule for each in findings}
    if rules & REBUILT or len(findings) >= MAX_FINDINGS:  # what is not told may be one of these
        rebuild_refcounts(file, image)
    elif LEAK in rules:
        _free_leaks(file, image)
    _mark(file, read_header(file))
    return True


def _free_leaks(file: BlockDevice, image: ImageHeader) -> None:
    found = compute(file, image)
    device = open_qcow2(file, writable=True, below=no_files, data=_no_data, bare=True, owns=False)
    assert isinstance(device, WritableQcow2), "asked to be writable"
    with device:
        with device.updates.lock:
            for cluster, references, stored in differences(found):  # the file stays as it is until the flush
                device.updates.counts.add([cluster], references - stored)
        device.flush()


def _no_data(_name: bytes) -> BlockDevice:
    """Stand in for an external data file, of which nothing is counted and nothing is touched."""
    return ZeroDevice(0)


def rebuild_refcounts(file: BlockDevice, image: ImageHeader) -> None:
    """Give the image a new refcount table that holds; its marks of being dirty or corrupt are taken away.

    Raises Corrupt where its tables break a rule, NoSpace where the file cannot grow, LimitExceeded for a file of more
    clusters than a table of refcounts may count; nothing was changed then.
    """
    found = compute(file, image, refcounts=False)
    if found.findings:
        raise Corrupt(
            f"qcow2: was not closed, and its refcounts cannot be made anew: {found.findings[0].message}",
            offset=found.findings[0].offset,
        )
    geometry = image.geometry
    # Behind all that the present refcounts are, too: they count until the header says otherwise.
    start = found.stop if isinstance(file, ResizableDevice) else compute(file, image).end
    blocks = tables = 1
    while True:
        needed = ceil_div(start + blocks + tables, geometry.refcounts)
        tables = ceil_div(max(needed, blocks), geometry.table_entries)
        if needed <= blocks:
            break
        blocks = needed
    if tables * geometry.cluster > max(MAX_REFCOUNT_TABLE_BYTES, geometry.cluster):
        raise LimitExceeded(
            f"qcow2: expected a file that a refcount table of {MAX_REFCOUNT_TABLE_BYTES} bytes can count, found "
            f"{file.size} bytes in clusters of {geometry.cluster}: convert it"
        )
    end = (start + blocks + tables) * geometry.cluster
    if end > file.size:
        if not isinstance(file, ResizableDevice):
            raise NoSpace(f"qcow2: expected room for {end} bytes, found {file.size}")
        file.resize(end)
    for number in range(start, start + blocks + tables):
        found.add(number)
    table = array("Q", bytes(tables * geometry.cluster))
    last = found.end
    for number in range(blocks):
        table[number] = (start + number) * geometry.cluster
        file.write(table[number], _block(found, number, last))
    offset = (start + blocks) * geometry.cluster
    file.write(offset, entry_bytes(table))
    file.flush()
    incompatible = image.record.incompatible_features & ~(Incompatible.DIRTY | Incompatible.CORRUPT)
    _put_header(file, image, offset, tables, incompatible)


def _block(found: References, number: int, last: int) -> bytes:
    geometry = found.image.geometry
    counts, first = new_refcounts(geometry), number * geometry.refcounts
    for within in range(min(geometry.refcounts, max(0, last - first))):
        count = found.count(first + within)
        if count > geometry.max_refcount:
            raise Corrupt(f"qcow2: cluster {first + within} has {count} references, more than can be counted")
        counts[within] = count
    return pack_refcounts(counts, geometry.refcount_order)


def _put_header(file: BlockDevice, image: ImageHeader, offset: int, clusters: int, incompatible: int) -> None:
    record = image.record.replace(
        refcount_table_offset=offset, refcount_table_clusters=clusters, incompatible_features=incompatible
    )
    end = 60 if image.record.version == 2 else 80
    file.write(48, record.pack()[48:end])  # in one sector, so that all of it arrives or nothing
    file.flush()


def _mark(file: BlockDevice, image: ImageHeader) -> None:
    """Make the marks of active entries say what the references do.

    With an external data file they say of places in that one, which is nobody else's, and stay.
    """
    if image.data_file is not None:
        return
    found, geometry, record = compute(file, image), image.geometry, image.record
    width = 2 if geometry.extended else 1
    l1 = read_entries(file, record.l1_table_offset, record.l1_size)
    for index, entry in enumerate(l1):
        table = entry & OFFSET_MASK
        if not table:
            continue
        values = read_entries(file, table, geometry.cluster // 8)
        before = values[:]
        for number in range(0, len(values), width):
            values[number] = _marked(values[number], found, geometry.cluster_bits)
        if values != before:
            file.write(table, entry_bytes(values))
        l1[index] = _marked(entry, found, geometry.cluster_bits)
    file.write(record.l1_table_offset, entry_bytes(l1))
    file.flush()


def _marked(entry: int, found: References, bits: int) -> int:
    if entry & COMPRESSED or not entry & OFFSET_MASK:
        return entry & ~COPIED
    alone = found.count((entry & OFFSET_MASK) >> bits) == 1
    return entry | COPIED if alone else entry & ~COPIED
