"""Master boot records made by hand, right ones and wrong ones."""

from collections.abc import Sequence

from blockwright.table.mbr import layout


def record(entries: Sequence[tuple[int, int, int]], *, signature: int = 0, active: int | None = None) -> bytes:
    """A boot record of (type, start, size) entries, in sectors."""
    sector = bytearray(512)
    for index, (os_type, start, size) in enumerate(entries):
        entry = layout.Entry(os_type=os_type, starting_lba=start, size_in_lba=size)
        entry.boot_indicator = layout.ACTIVE if index == active else 0
        entry.pack_into(sector, layout.PARTITIONS + 16 * index)
    layout.Signature(disk_signature=signature).pack_into(sector)
    return bytes(sector)


def disk(records: dict[int, bytes], sectors: int = 4096, sector_size: int = 512) -> bytearray:
    """A disk with these records at these sectors."""
    data = bytearray(sectors * sector_size)
    for sector, content in records.items():
        data[sector * sector_size : sector * sector_size + len(content)] = content
    return data


CHAINED = {
    0: record([(0x83, 8, 8), (0x0C, 16, 16), (0x0F, 64, 1024)], signature=0xCAFEF00D, active=1),
    64: record([(0x83, 8, 32), (0x05, 128, 64)]),
    192: record([(0x82, 8, 16), (0x05, 256, 64)]),
    320: record([(0x83, 16, 100)]),
}
"""Two primary partitions, one of them active, and three logical ones."""
