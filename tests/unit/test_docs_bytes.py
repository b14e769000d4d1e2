"""The tables of bytes in docs/format-*.md and docs/explain-*.md say what the records say: where, and how wide."""

import re
from pathlib import Path

import pytest

from blockwright.codec.record import Record, raw
from blockwright.format.qcow2 import layout as qcow2
from blockwright.format.vdi import layout as vdi
from blockwright.format.vhd import layout as vhd
from blockwright.format.vhdx import layout as vhdx
from blockwright.format.vmdk import layout as vmdk
from blockwright.fs.ext4 import layout as ext4
from blockwright.fs.fat import layout as fat
from blockwright.system.linux.thin import layout as thin
from blockwright.table.gpt import layout as gpt
from blockwright.table.mbr import layout as mbr
from blockwright.verity import layout as verity
from blockwright.volume.thin.label import LabelRecord

DOCS = Path(__file__).parents[2] / "docs"
HEAD = re.compile(r"^\| byte(?: of [^|]*)? \| size \|.*$", re.MULTILINE)
TIMES = "\N{MULTIPLICATION SIGN}"
NUMBER = re.compile(r"0x[0-9a-f]+|\d+")


class BootRecord(Record, size=512):
    """A master boot record: what `mbr.layout` has as a record, and as positions."""

    code: bytes = raw(0, mbr.BOOT_CODE)
    disk_signature: int = mbr.Signature.FIELDS["disk_signature"]
    entries: bytes = raw(mbr.PARTITIONS, mbr.COUNT * mbr.Entry.SIZE)
    signature: int = mbr.Signature.FIELDS["signature"]


TABLES: dict[str, list[tuple[type[Record], ...]]] = {
    "format-qcow2": [(qcow2.Header,)],
    "format-vmdk": [(vmdk.SparseHeader,)],
    "format-vhd": [(vhd.Footer,), (vhd.DynamicHeader,)],
    "format-vhdx": [(vhdx.Header,)],
    "format-vdi": [(vdi.Header,)],
    "format-partitions": [(BootRecord,), (mbr.Entry,), (gpt.Header,), (gpt.Entry,)],
    "format-ext4": [(ext4.GroupDescriptor,), (ext4.Inode,)],
    "format-fat": [(fat.BootSector, fat.BootSector32), (fat.DirEntry,)],
    "format-verity": [(verity.Superblock,)],
    "explain-thin": [(thin.Superblock,), (LabelRecord,)],
}
"""By page, in its order: the records of each of its tables."""


def tables(text: str) -> list[list[tuple[str, str]]]:
    """The first two columns of each table of bytes."""
    found = []
    for head in HEAD.finditer(text):
        rows = text[head.end() :].partition("\n\n")[0].strip().splitlines()[1:]
        found.append([tuple(cell.strip() for cell in row.split("|")[1:3]) for row in rows])
    return found


def spans(offsets: str, sizes: str) -> list[tuple[int, int]]:
    """What a row tells of, as (first byte, bytes): `24, 32 | 8, 8` is two, `64 | 2, 2` two in a row."""
    starts = [int(each, 0) for each in NUMBER.findall(offsets)]
    widths = [int(each, 0) for each in NUMBER.findall(sizes)]
    assert starts, offsets
    assert widths, sizes
    if TIMES in sizes:
        widths = [widths[0] * widths[1]]
    if len(starts) == 1:
        return [(starts[0], sum(widths))]
    return list(zip(starts, widths if len(widths) > 1 else widths * len(starts), strict=True))


def covered(record: type[Record], start: int, width: int) -> bool:
    """Whether fields of the record begin at `start` and end `width` bytes behind it, one behind the other."""
    position = start
    for field in record.FIELDS.values():
        if field.offset == position < start + width:
            position += field.width
    return position == start + width


@pytest.mark.parametrize("page", TABLES)
def test_tables_of_bytes_are_the_records_(page: str) -> None:
    found = tables((DOCS / f"{page}.md").read_text())
    assert len(found) == len(TABLES[page])
    for rows, records in zip(found, TABLES[page], strict=True):
        assert len(rows) > 3
        for offsets, sizes in rows:
            for start, width in spans(offsets, sizes):
                assert any(covered(record, start, width) for record in records), f"{offsets} | {sizes}"


def test_every_page_with_such_a_table_is_looked_at() -> None:
    assert {path.stem for path in DOCS.glob("*.md") if HEAD.search(path.read_text())} == set(TABLES)


def test_a_wrong_row_would_be_seen() -> None:
    assert covered(qcow2.Header, 16, 4)
    assert covered(vhd.Footer, 56, 4)
    assert not covered(qcow2.Header, 17, 4)
    assert not covered(qcow2.Header, 24, 4)
    assert spans("446", f"4 {TIMES} 16") == [(446, 64)]
    assert spans("64", "2, 2") == [(64, 4)]
    assert spans("37 or 65", "1") == [(37, 1), (65, 1)]
