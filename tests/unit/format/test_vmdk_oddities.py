"""Images that are not as they should be: each is refused or found, with the byte where it is wrong."""

import os

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.errors import Corrupt, FormatError, LimitExceeded, NotAllowed, NotFound, Unsupported
from blockwright.format.open import open_image
from blockwright.format.policy import Policy
from blockwright.format.vmdk.check import MAX_FINDINGS, check
from blockwright.format.vmdk.create import GRAIN
from blockwright.format.vmdk.descriptor import parse
from blockwright.format.vmdk.layout import SparseHeader, entries
from blockwright.format.vmdk.sparse import read_header
from blockwright.resolve import open_device
from blockwright.units import MiB
from tests.support.inprocess import blockwright, document
from tests.support.vmdk import Lent, Shelf, new, opened, save

SIZE = 64 * MiB
FIELDS = {name: field.offset for name, field in SparseHeader.FIELDS.items()}


def image() -> MemoryDevice:
    """Return an image of two tables with three grains: of the bytes 0, 64 KiB, and 40 MiB."""
    file = new(SIZE)
    with opened(Lent(file)) as disk:
        for offset in (0, GRAIN, 40 * MiB):
            disk.write(offset, b"data" * (GRAIN // 4))
        disk.flush()
    return file


def tables(file: MemoryDevice) -> list[int]:
    """Return where the tables begin: two, and two redundant ones."""
    header = read_header(file)
    return [
        each * 512
        for where in (header.directory, header.redundant)
        for each in entries(file.read(where, header.tables * 4))
    ]


def put(file: MemoryDevice, at: int, value: int, width: int = 4) -> None:
    file.write(at, value.to_bytes(width, "little"))


@pytest.mark.parametrize(
    ("field", "value", "width", "error"),
    [
        ("version", 4, 4, Unsupported),
        ("version", 0, 4, Unsupported),
        ("flags", 0x40003, 4, Unsupported),
        ("flags", 0x10003, 4, Unsupported),
        ("capacity", SIZE // 512 + 1, 8, Corrupt),
        ("capacity", 1 << 60, 8, LimitExceeded),
        ("grain_size", 0, 8, Corrupt),
        ("grain_size", 96, 8, Corrupt),
        ("grain_size", 1 << 40, 8, Corrupt),
        ("gtes_per_gt", 1024, 4, Unsupported),
        ("rgd_offset", 0, 8, Corrupt),
        ("rgd_offset", 1 << 50, 8, Corrupt),
        ("gd_offset", 0, 8, Corrupt),
        ("gd_offset", 1 << 50, 8, Corrupt),
        ("gd_offset", (1 << 64) - 1, 8, Corrupt),
        ("descriptor_size", 1 << 40, 8, LimitExceeded),
        ("descriptor_offset", 1 << 40, 8, Corrupt),
        ("descriptor_size", 0, 8, Unsupported),
        ("newlines", 0x0A0A200A, 4, Corrupt),
        ("compress_algorithm", 1, 2, Unsupported),
        ("magic", 0x44574F43, 4, Unsupported),
    ],
)
def test_headers(field, value, width, error):
    file = image()
    put(file, FIELDS[field], value, width)
    with pytest.raises(error):
        opened(file, writable=False)


@pytest.mark.parametrize("size", [4, 100, 511, 512, 5000, 15_000])
def test_truncated(size):
    cut = MemoryDevice(content=image().read(0, size))
    with pytest.raises(FormatError):
        open_image(cut)


def test_grains_out_of_the_file_and_over_one_another():
    file = image()
    first = tables(file)[0]
    for value, rule in ((1, "vmdk.grain"), (0xFFFFFFF0, "vmdk.grain")):
        put(file, first + 4, value)
        found = list(check(file, Shelf()))
        assert (found[0].rule, found[0].offset) == ("vmdk.copies", first + 4)
        assert (found[1].rule, found[1].offset) == (rule, first + 4)
        with opened(Lent(file), writable=False) as disk, pytest.raises(Corrupt, match="grain table 0, entry 1"):
            disk.read(GRAIN, 1)
    (entry,) = entries(file.read(first, 4))
    for copy in (0, 2):
        put(file, tables(file)[copy] + 4, entry)
    found = list(check(file, Shelf()))
    assert [each.rule for each in found] == ["vmdk.overlap", "vmdk.leak"]
    assert found[0].offset == entry * 512


def test_a_file_that_ends_within_a_grain():
    file = image()
    second = tables(file)[1]
    (entry,) = [each for each in entries(file.read(second, 2048)) if each]
    assert entry * 512 + GRAIN == file.size
    file.resize(file.size - 512)
    (found,) = check(file, Shelf())
    assert (found.rule, found.offset) == ("vmdk.grain", second + 4 * (8 * MiB // GRAIN))
    file = new(SIZE + 512)  # of the last grain the disk's part is enough
    with opened(Lent(file)) as disk:
        disk.write(SIZE, b"x" * 512)
    file.resize(file.size - GRAIN + 512)
    assert list(check(file, Shelf())) == []


def test_grains_over_tables_and_behind_the_disk():
    file = image()
    first, second = tables(file)[:2]
    header = read_header(file)
    put(file, FIELDS["overhead"], header.redundant // 512, 8)
    for copy in (0, 2):
        put(file, tables(file)[copy] + 8, second // 512)
    assert "vmdk.overlap" in {each.rule for each in check(file, Shelf())}
    file = new(MiB)
    put(file, tables(file)[0] + 4 * 100, read_header(file).overhead // 512)
    assert {"vmdk.grain", "vmdk.copies"} == {each.rule for each in check(file, Shelf())}
    assert first


def test_redundant_tables():
    file = image()
    first, _, copy, _ = tables(file)
    put(file, copy + 4, 0)
    (found,) = check(file, Shelf())
    assert (found.rule, found.offset) == ("vmdk.copies", first + 4)
    with opened(Lent(file)) as disk:  # a change of the table makes its copy whole
        disk.write(5 * GRAIN, b"x")
        disk.flush()
    assert list(check(file, Shelf())) == []
    put(file, read_header(file).redundant, 0)
    assert [each.rule for each in check(file, Shelf())] == ["vmdk.copies"]


def test_tables_out_of_the_file_and_at_one_place():
    file = image()
    directory = read_header(file).directory
    put(file, directory, 0xFFFFFF00)
    found = list(check(file, Shelf()))
    assert "vmdk.grain-table" in {each.rule for each in found}
    with opened(Lent(file), writable=False) as disk, pytest.raises(Corrupt):
        disk.read(0, 1)
    with pytest.raises(Corrupt, match="tables within"):
        opened(Lent(file))
    put(file, directory, *entries(file.read(directory + 4, 4)))
    assert "vmdk.overlap" in {each.rule for each in check(file, Shelf())}
    with pytest.raises(Corrupt, match="tables apart"):
        opened(Lent(file))


def test_leaks():
    file = image()
    file.resize(file.size + 5 * GRAIN)
    (found,) = check(file, Shelf())
    assert found.rule == "vmdk.leak"
    assert str(5 * GRAIN) in found.message


def test_findings_are_bounded():
    file = new(1 << 40)
    header = read_header(file)
    file.write(header.directory, b"\xf0\xff\xff\xff" * header.tables)
    found = list(check(file, Shelf()))
    assert len(found) == MAX_FINDINGS + 1
    assert found[-1].rule == "vmdk.more"


def split(tmp_path, name: str, kind: str = "FLAT", size: int = 1):
    path = tmp_path / "disk.vmdk"
    path.write_text(f'# Disk DescriptorFile\nCID=1\ncreateType="monolithicFlat"\nRW {size} {kind} "{name}" 0\n')
    return path


@pytest.mark.parametrize("name", ["/etc/shadow", "../../../../../../etc/passwd", "link", "file:///etc/passwd"])
def test_an_extent_discloses_nothing(tmp_path, name):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "link").symlink_to("/etc/passwd")
    path = split(tmp_path / "images", name)
    for policy in (Policy(), Policy((str(tmp_path / "images"),))):
        with pytest.raises((NotAllowed, Unsupported)) as told:
            open_device(str(path), policy=policy)
        assert "root:" not in str(told.value)
    done = blockwright("convert", path, tmp_path / "out.img", code=1)
    assert b"is not opened unasked" in done.stderr or b"protocol" in done.stderr
    assert not (tmp_path / "out.img").exists()
    assert b"root:" not in blockwright("check", path, code=1).stderr


def test_extents_that_do_not_fit(tmp_path):
    allowed = Policy((str(tmp_path),))
    (tmp_path / "flat").write_bytes(b"x" * 511)
    with pytest.raises(Corrupt, match="expected 512 bytes, found 511"):
        open_device(str(split(tmp_path, "flat")), policy=allowed)
    with pytest.raises(NotFound):
        open_device(str(split(tmp_path, "none")), policy=allowed)
    save(new(MiB), tmp_path / "sparse")
    with pytest.raises(Corrupt, match="expected 512 bytes as the descriptor says, found 1048576"):
        open_device(str(split(tmp_path, "sparse", "SPARSE")), policy=allowed)
    path = split(tmp_path, "sparse", "SPARSE", 2048)
    path.write_text(path.read_text() + 'RW 2048 SPARSE "sparse" 0\n')
    with pytest.raises(Corrupt, match="again"):
        open_device(str(path), policy=allowed)


def test_a_disk_of_zeros_and_pieces_of_one_file(tmp_path):
    (tmp_path / "flat").write_bytes(b"a" * 512 + b"b" * 512)
    path = tmp_path / "disk.vmdk"
    path.write_text(
        '# Disk DescriptorFile\nCID=1\ncreateType="custom"\nRW 1 FLAT "flat" 1\nRW 3 ZERO\nRDONLY 1 FLAT "flat" 0\n'
    )
    with open_device(str(path), policy=Policy((str(tmp_path),))) as disk:
        assert disk.read(0, disk.size) == b"b" * 512 + bytes(3 * 512) + b"a" * 512


def test_a_short_content_id_grows(tmp_path):
    (tmp_path / "flat").write_bytes(bytes(512))
    path = split(tmp_path, "flat")
    with open_device(str(path), writable=True, policy=Policy((str(tmp_path),))) as disk:
        disk.write(0, b"x")
        disk.flush()
    assert (tmp_path / "flat").read_bytes()[:1] == b"x"
    changed = parse(path.read_bytes())
    assert changed.content_id > 0xFFFF
    assert changed.extents[0].name == b"flat"


def test_a_parent_that_stands_on_itself(tmp_path):
    path = tmp_path / "disk.vmdk"
    (tmp_path / "flat").write_bytes(bytes(512))
    path.write_text(
        '# Disk DescriptorFile\nCID=1\nparentCID=1\nparentFileNameHint="disk.vmdk"\n'
        'createType="monolithicFlat"\nRW 1 FLAT "flat" 0\n'
    )
    with pytest.raises(Corrupt, match="stands on itself"):
        open_device(str(path), policy=Policy((str(tmp_path),)))


def test_an_extent_opened_alone(tmp_path):
    (tmp_path / "raw").write_bytes(os.urandom(4096))
    blockwright("convert", tmp_path / "raw", tmp_path / "disk.vmdk", "--vmdk-type", "twoGbMaxExtentSparse")
    told = blockwright("inspect", tmp_path / "disk-s001.vmdk", code=1).stderr
    assert b"open the disk's descriptor" in told


def test_the_commands_tell(tmp_path):
    path = save(image(), tmp_path / "disk.vmdk")
    found = document("inspect", path)["format"]
    assert (found["name"], found["kind"], found["grains"]) == ("vmdk", "monolithicSparse", "64 KiB")
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) + MiB)
    told = document("check", path, code=3)
    assert told["places"][0]["findings"][0]["rule"] == "vmdk.leak"
