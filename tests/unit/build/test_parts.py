"""Partitions that are asked for become a table: numbers, types, places, marks and names, of both kinds of tables."""

from dataclasses import replace
from uuid import UUID

import pytest

from blockwright.build.definition import Definition, Table
from blockwright.build.partition import PartitionDefinition
from blockwright.build.parts import Wish, partition_numbers, plan_table, table_segments
from blockwright.build.parts_mbr import identity, numbers, os_type
from blockwright.device.planned import PlannedDevice
from blockwright.errors import NoSpace, UsageError
from blockwright.table.partition import MbrTable, PartitionTable
from blockwright.units import GiB, KiB, MiB

GPT, MBR = Definition(), Definition(table=Table.MBR)
GUID = UUID("11111111-2222-3333-4444-555555555555")


def wish(size: int = MiB, type_name: str = "linux-generic", **fields) -> Wish:
    asked = {name: fields.pop(name) for name in ("name", "guid", "read_only", "marked") if name in fields}
    return Wish("role", PartitionDefinition(**fields), fields.get("type") or type_name, size, **asked)


def gpt(*wishes: Wish, **options) -> PartitionTable:
    table = plan_table(wishes, replace(GPT, **options), b"seed")
    assert isinstance(table, PartitionTable)
    return table


def mbr(*wishes: Wish, **options) -> MbrTable:
    table = plan_table(wishes, replace(MBR, **options), b"seed")
    assert isinstance(table, MbrTable)
    return table


def runs(table) -> list[tuple[int, int]]:
    """Start and size of each partition in KiB."""
    return [(each.start // KiB, each.size // KiB) for each in table.partitions]


def first_sector(table, wishes, boot_code: bytes = b"", at: int = 0) -> bytes:
    segments = table_segments(table, wishes, boot_code)
    segments.freeze()
    return PlannedDevice(table.size, segments).read(at, 512)


# -- sizes and places, the same in both ----------------------------------------------------------------------------


@pytest.mark.parametrize("made", [gpt, mbr])
def test_what_is_left_is_divided(made) -> None:
    size = 34 * MiB if made is gpt else 33 * MiB
    assert runs(made(wish(rest=True, weight=3000), wish(rest=True), size=size)) == [(1024, 24576), (25600, 8192)]
    assert runs(made(wish(rest=True, maximum=4 * MiB), wish(rest=True), size=size)) == [(1024, 4096), (5120, 28672)]
    # What it holds counts where that is more than it may have: who plans has refused it by then, or has not yet.
    assert runs(made(wish(6 * MiB, rest=True, maximum=4 * MiB), wish(), size=size)) == [(1024, 6144), (7168, 1024)]
    assert runs(made(wish(padding=3 * MiB), wish(), size=size)) == [(1024, 1024), (5120, 1024)]
    assert runs(made(wish(padding_weight=1000), wish(rest=True), size=size))[0] == (1024, 1024)
    padded = wish(padding_weight=1000, padding_maximum=2 * MiB)
    assert runs(made(padded, wish(rest=True), size=size)) == [(1024, 1024), (4096, 29696)]
    shared = runs(made(wish(rest=True, padding_weight=1000), wish(), size=size))
    assert shared[0][1] < 17 * 1024 < 30 * 1024 < shared[1][0]


@pytest.mark.parametrize("made", [gpt, mbr])
def test_where_partitions_begin(made) -> None:
    assert runs(made(wish(), wish())) == [(1024, 1024), (2048, 1024)]
    assert runs(made(wish(4096), wish(4096), alignment=4096)) == [(1024, 4), (1028, 4)]
    assert runs(made(wish(4096), wish(4096), alignment=2 * MiB)) == [(2048, 2048), (4096, 2048)]
    assert runs(made(wish(start=4 * MiB), wish())) == [(4096, 1024), (5120, 1024)]
    assert runs(made(wish(4096, start=64 * KiB), wish(4096), alignment=4096)) == [(64, 4), (68, 4)]
    assert runs(made(wish(4096), wish(4096, alignment=64 * KiB), alignment=4096)) == [(1024, 4), (1088, 4)]
    with pytest.raises(NoSpace, match=r"^partition 2: expected to start at byte 2097152 or later, found 1048576"):
        made(wish(), wish(start=MiB))
    for size, fits in ((GiB, True), (None, True), (2 * MiB, False)):
        if fits:
            assert made(wish(), wish(), size=size, medium_size=2 * GiB).size == (size or 2 * GiB)
        else:
            with pytest.raises(NoSpace, match="the partitions need"):
                made(wish(), wish(), size=size)


def test_the_first_and_the_last_byte_of_a_small_mbr() -> None:
    table = mbr(wish(512, start=512), wish(512, start=1024), alignment=512)
    assert [(each.start, each.end) for each in table.partitions] == [(512, 1024), (1024, 1536)]
    assert table.size == 1536
    assert runs(mbr(wish(3 * MiB, start=MiB), size=4 * MiB)) == [(1024, 3072)]
    with pytest.raises(NoSpace):
        mbr(wish(3 * MiB + 1, start=MiB), size=4 * MiB)


# -- a GPT ---------------------------------------------------------------------------------------------------------


def test_a_gpt_says_what_is_asked() -> None:
    table = gpt(
        wish(type_name="esp", name="first", guid=GUID, attributes=("no-auto", "bit-5")),
        wish(type_name=str(UUID(int=77)), read_only=True),
        wish(marked=True),
        wish(attributes=("active",)),
        disk_id="21111111-2222-3333-4444-555555555555",
    )
    assert str(table.disk_guid) == "21111111-2222-3333-4444-555555555555"
    first, second, third, fourth = table.partitions
    assert str(first.type_guid) == "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
    assert (first.number, first.name, first.guid, first.attributes) == (1, "first", GUID, 1 << 63 | 1 << 5)
    assert (second.number, second.name, second.type_guid, second.attributes) == (2, "", UUID(int=77), 1 << 60)
    assert [third.attributes, fourth.attributes] == [4, 4]
    assert len({each.guid for each in table.partitions}) == 4
    assert partition_numbers([wish(logical=True)] * 9, GPT) == [*range(1, 10)]
    with pytest.raises(UsageError, match=r"^build: disk id: expected a GUID, found '0x1'"):
        gpt(wish(), disk_id="0x1")


def test_a_gpt_of_large_sectors() -> None:
    table = gpt(wish(), sector_size=4096)
    assert (table.sector_size, table.usable_start, table.partitions[0].start) == (4096, 24 * KiB, MiB)


@pytest.mark.parametrize("active", [{"marked": True}, {"attributes": ("active",)}])
def test_a_hybrid_shows_those_that_ask_for_it(active: dict) -> None:
    wishes = [wish(), wish(hybrid="0x0c"), wish(hybrid="swap", **active)]
    code = b"code" * 110
    sector = first_sector(gpt(*wishes), wishes, code)
    assert sector[:440] == code
    entries = [sector[446 + 16 * index :][:16] for index in range(4)]
    shown = [(each[0], each[4], int.from_bytes(each[8:12], "little")) for each in entries if each[4] not in (0, 0xEE)]
    assert shown == [(0, 0x0C, 4096), (0x80, 0x82, 6144)]
    plain = [wish(), wish()]
    sector = first_sector(gpt(*plain), plain, code)
    assert sector[:440] == code
    assert [sector[446 + 16 * index + 4] for index in range(4)] == [0xEE, 0, 0, 0]


# -- an MBR --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("logical", "found", "extended"),
    [
        ("", [], None),
        ("p", [1], None),
        ("pppp", [1, 2, 3, 4], None),
        ("ppppp", [1, 2, 3, 5, 6], 4),
        ("l", [5], 1),
        ("lll", [5, 6, 7], 1),
        ("pl", [1, 5], 2),
        ("lp", [5, 2], 1),
        ("plp", [1, 5, 3], 2),
        ("pllpp", [1, 5, 6, 3, 4], 2),
        ("ppplllll", [1, 2, 3, 5, 6, 7, 8, 9], 4),
    ],
)
def test_numbers_of_an_mbr(logical: str, found: list[int], extended: int | None) -> None:
    asked = [each == "l" for each in logical]
    assert numbers(asked) == (found, extended)
    assert partition_numbers([wish(logical=each) for each in asked], MBR) == found


@pytest.mark.parametrize(
    ("logical", "said"),
    [
        ("lpl", "expected logical partitions beside one another"),
        ("ppppl", "expected at most 3 primary partitions beside the extended one, found 4"),
        ("pplppp", "expected at most 3 primary partitions beside the extended one, found 5"),
    ],
)
def test_an_order_that_no_mbr_has(logical: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        mbr(*(wish(logical=each == "l") for each in logical))


def test_logical_partitions_have_room_for_their_records() -> None:
    table = mbr(wish(), wish(logical=True), wish(2 * MiB, logical=True), wish())
    assert [(each.number, each.start // MiB, each.size // MiB, each.record // MiB) for each in table.partitions] == [
        (1, 1, 1, 0),
        (3, 7, 1, 0),
        (5, 3, 1, 2),
        (6, 5, 2, 4),
    ]
    assert [(each.number, each.start // MiB, each.size // MiB) for each in table.extended] == [(2, 2, 5)]
    table = mbr(wish(512, logical=True), wish(512, logical=True), alignment=512)
    assert [(each.start - MiB, each.record - MiB) for each in table.partitions] == [(512, 0), (1536, 1024)]
    table = mbr(wish(512, logical=True, alignment=4096), wish(512, logical=True, alignment=4096), alignment=512)
    assert [(each.start, each.start - each.record) for each in table.partitions] == [
        (MiB + 512, 512),
        (MiB + 4096, 512),
    ]
    assert runs(mbr(wish(512, logical=True, start=2 * MiB), alignment=512)) == [(2048, 0)]


def test_what_an_mbr_cannot_say_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"^partition 5: expected a primary one for a BIOS to start, found a logical"
    ):
        mbr(wish(logical=True, attributes=("active",)))
    for second in ({"marked": True}, {"attributes": ("legacy-boot",)}):
        with pytest.raises(UsageError, match=r"^mbr: expected one active partition at most, found several"):
            mbr(wish(attributes=("active",)), wish(**second))
    with pytest.raises(UsageError, match=r"^partition 1: expected a type of its own, found 0x05"):
        mbr(wish(type="0x05"))
    with pytest.raises(UsageError, match=r"^partition 1: expected a start and a size of at most 4294967295 sectors"):
        mbr(wish(2048 * GiB))
    assert mbr(wish(2048 * GiB - MiB)).partitions[0].size == 2048 * GiB - MiB
    for text in ("123456789", "0x", "g"):
        with pytest.raises(
            UsageError, match=r"^build: disk id: expected an MBR's signature of eight hexadecimal digits"
        ):
            mbr(wish(), disk_id=text)


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({}, 0x83),
        ({"type": "home"}, 0x83),
        ({"type": "root-x86-64"}, 0x83),
        ({"type": "esp"}, 0xEF),
        ({"type": "xbootldr"}, 0x0C),
        ({"type": "swap"}, 0x82),
        ({"type": "lvm"}, 0x8E),
        ({"type": "raid"}, 0xFD),
        ({"type": "luks"}, 0xE8),
        ({"type": "prep"}, 0x41),
        ({"type": "apple-hfs"}, 0xAF),
        ({"type": "microsoft-recovery"}, 0x27),
        ({"type": "microsoft-basic-data"}, 0x0C),
        ({"type_name": "microsoft-basic-data", "file_system": "fat"}, 0x0C),
        ({"type_name": "microsoft-basic-data", "file_system": "fat12"}, 0x01),
        ({"type_name": "microsoft-basic-data", "file_system": "fat16"}, 0x0E),
        ({"type_name": "microsoft-basic-data", "file_system": "fat32"}, 0x0C),
        ({"type": "0xda"}, 0xDA),
        ({"type": "ntfs"}, 0x07),
    ],
)
def test_types_of_an_mbr(fields: dict[str, str], found: int) -> None:
    assert os_type(wish(**fields)) == found
    assert mbr(wish(**fields)).partitions[0].os_type == found


@pytest.mark.parametrize("name", ["bios-boot", "microsoft-reserved", "apple-apfs", "chromeos-kernel"])
def test_types_that_no_mbr_has(name: str) -> None:
    with pytest.raises(UsageError, match=rf"^partition '{name}': expected a type that an MBR has, .* found {name}$"):
        mbr(wish(type=name))


def test_the_bytes_of_an_mbr() -> None:
    wishes = [wish(attributes=("active",)), *(wish(logical=True) for _ in range(2))]
    code = b"code" * 110
    table = mbr(*wishes, disk_id="0x12345678")
    sector = first_sector(table, wishes, code)
    assert sector[:440] == code
    assert sector[440:444] == bytes.fromhex("78563412")
    assert [sector[446 + 16 * index] for index in range(4)] == [0x80, 0, 0, 0]
    for each in table.logical:
        record = first_sector(table, wishes, code, each.record)
        assert not any(record[:446])
        assert record[510:] == b"\x55\xaa"
    assert mbr(wish(marked=True)).partitions[0].active
    assert table.partitions[0].disk_signature == table.disk_signature
    assert mbr(wish()).disk_signature not in (0, table.disk_signature)
    assert identity(replace(MBR, disk_id="abc"), b"", 31) == "00000abc-1f"
    assert identity(MBR, b"seed", 1) == f"{mbr(wish()).disk_signature:08x}-01"
