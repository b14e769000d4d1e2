"""Verifies a qcow2 image: entries, overlaps, refcounts, and the marks that follow from them.

Knows: what must agree. Refuses to know: how it is mended (``repair``).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from blockwright.device.base import BlockDevice
from blockwright.finding import Finding
from blockwright.format.qcow2.device import read_entries
from blockwright.format.qcow2.layout import (
    COMPRESSED,
    COPIED,
    OFFSET_MASK,
    REFCOUNT_OFFSET_MASK,
    ImageHeader,
    Incompatible,
    unpack_refcounts,
)
from blockwright.format.qcow2.open import read_header, read_refcount_table
from blockwright.format.qcow2.references import MAX_FINDINGS, References, compute
from blockwright.units import ceil_div

LEAK = "qcow2.refcount.leak"
LOW = "qcow2.refcount.low"


def check(file: BlockDevice) -> list[Finding]:
    """Return what is wrong with the image in ``file``, which stays unchanged; at most ``MAX_FINDINGS``.

    Leaks alone are no danger to data, and are ``repairable``, as is every wrong refcount. Raises FormatError for a
    header that does not hold, LimitExceeded, OSError.
    """
    image = read_header(file)
    found = compute(file, image)
    if image.has(Incompatible.CORRUPT):
        found.note("qcow2.corrupt", "the image is marked as corrupt", 72)
    if image.has(Incompatible.DIRTY):
        found.findings.append(
            Finding("qcow2.dirty", "the image was not closed: its refcounts may not hold", 72, True)
        )
    return list(islice(chain(found.findings, _refcounts(found), _copied(found)), MAX_FINDINGS))


def stored_refcounts(file: BlockDevice, image: ImageHeader) -> Iterator[tuple[int, list[int]]]:
    """Yield (first cluster, refcounts) of each block that is there and can be read."""
    geometry = image.geometry
    seen = {0}
    for index, entry in enumerate(read_refcount_table(file, image)):
        offset = entry & REFCOUNT_OFFSET_MASK
        if offset in seen:
            continue
        seen.add(offset)
        if not offset % geometry.cluster and offset < file.size:
            data = file.read(offset, min(geometry.cluster, file.size - offset)).ljust(geometry.cluster, b"\0")
            if any(data):
                yield index * geometry.refcounts, unpack_refcounts(data, geometry.refcount_order).tolist()


def differences(found: References) -> Iterator[tuple[int, int, int]]:
    """Yield (cluster, references, stored refcount) of each cluster for which they differ, ascending."""
    each = found.image.geometry.refcounts
    seen = set()
    for first, stored in stored_refcounts(found.file, found.image):
        seen.add(first // each)
        for within, count in enumerate(stored):
            references = found.count(first + within)
            if references != count:
                yield first + within, references, count
    for first, page in found.pages():
        for within, references in enumerate(page):
            if references and (first + within) // each not in seen:
                yield first + within, references, 0


def _refcounts(found: References) -> Iterator[Finding]:
    """Yield findings for runs of clusters with the same wrong refcount."""
    cluster = found.image.geometry.cluster
    run: tuple[int, int, int, int] | None = None
    for number, references, stored in differences(found):
        if run is not None and run[1:] == (number, references, stored):
            run = (run[0], number + 1, references, stored)
            continue
        if run is not None:
            yield _refcount(run, cluster)
        run = (number, number + 1, references, stored)
    if run is not None:
        yield _refcount(run, cluster)


def _refcount(run: tuple[int, int, int, int], cluster: int) -> Finding:
    first, end, references, stored = run
    what = f"cluster {first}" if end == first + 1 else f"clusters {first} to {end - 1}"
    rule = LEAK if stored > references else LOW
    text = f"{what}: expected a refcount of {references}, found {stored}"
    return Finding(rule, text, first * cluster, True)


def _copied(found: References) -> Iterator[Finding]:
    """Yield active entries whose mark of being alone contradicts the references."""
    image, geometry, file = found.image, found.image.geometry, found.file
    if image.data_file is not None:
        return
    bits, width = geometry.cluster_bits, 2 if geometry.extended else 1
    seen = {0}
    for index, entry in enumerate(read_entries(file, image.record.l1_table_offset, image.record.l1_size)):
        table = entry & OFFSET_MASK
        if table in seen or table % geometry.cluster or table >= file.size:
            continue
        seen.add(table)
        alone = found.count(table >> bits) == 1
        if alone != bool(entry & COPIED):
            yield _mark("L1", entry, found.count(table >> bits), image.record.l1_table_offset + 8 * index)
        values = read_entries(file, table, ceil_div(geometry.cluster, 8))
        for number in range(0, len(values), width):
            value = values[number]
            if not value or (value & COMPRESSED and not value & COPIED):
                continue
            offset = value & OFFSET_MASK
            if value & COMPRESSED:
                yield _mark("compressed L2", value, 0, table + 8 * number)
            elif offset and offset < file.size and (found.count(offset >> bits) == 1) != bool(value & COPIED):
                yield _mark("L2", value, found.count(offset >> bits), table + 8 * number)


def _mark(what: str, entry: int, references: int, at: int) -> Finding:
    said = "alone" if entry & COPIED else "shared"
    return Finding("qcow2.copied", f"an {what} entry says {said} of a cluster with {references} references", at, True)
