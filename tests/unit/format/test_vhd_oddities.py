"""VHD images that contradict themselves, whose parent lies elsewhere, or whose size is told in two ways."""

import random

import pytest

from blockwright.device.file import FileDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import Corrupt, FormatError, LimitExceeded, NotAllowed, NotThisFormat, Unsupported, UsageError
from blockwright.format.open import open_image
from blockwright.format.policy import Policy
from blockwright.format.vhd.check import check
from blockwright.format.vhd.create import Options, create
from blockwright.format.vhd.layout import MAX_SIZE, Footer, Locator, geometry, pack_footer, pack_header
from blockwright.format.vhd.open import open_vhd, read_image
from blockwright.units import GiB, KiB, MiB
from tests.support.blockimages import Lends, lent, new, opened, over, parent_of

SIZE = 3 * MiB


def image():
    file = new("vhd", SIZE)
    with opened("vhd", file, owns=False) as disk:
        disk.write(0, b"a" * 1000)
        disk.write(2 * MiB, b"b" * 1000)
    assert check(file) == []
    return file


def changed_footer(file, **values):
    footer = pack_footer(Footer.parse(file.read(0, 512)).replace(**values))
    file.write(file.size - 512, footer)
    file.write(0, footer)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        (40 * MiB, (963, 5, 17)),
        (504 * MiB, (1024, 16, 63)),
        (127 * GiB, (65278, 16, 255)),
        (2 * MAX_SIZE, (65535, 16, 255)),
    ],
)
def test_geometry_as_the_specification_computes_it(size, wanted):
    assert geometry(size) == wanted


@pytest.mark.parametrize(
    ("creator", "by_geometry"),
    [(b"vpc ", True), (b"vs  ", True), (b"qemu", True), (b"qem2", False), (b"win ", False), (b"vbox", False)],
)
def test_the_size_is_the_geometry_where_the_creator_goes_by_it(creator, by_geometry):
    file = image()
    cylinders, heads, sectors = geometry(SIZE)
    changed_footer(file, creator=creator)
    with opened("vhd", file) as disk:
        assert disk.size == (cylinders * heads * sectors * 512 if by_geometry else SIZE)
        assert dict(disk.describe().details)["size by"] == ("geometry" if by_geometry else "current size")
        if by_geometry:
            with pytest.raises(UsageError, match="no geometry makes"):
                disk.resize(SIZE + 512)


def test_the_largest_geometry_says_nothing_of_the_size():
    assert Footer(creator=b"vpc ", cylinders=65535, heads=16, sectors=255, current_size=5 * MiB).size == 5 * MiB


def test_a_size_that_the_format_cannot_have_is_refused():
    with pytest.raises(UsageError, match="a disk of 1 to 2190433320960 bytes, found 2190433321472"):
        create(MemoryDevice(0), MAX_SIZE + 512, Options())
    with pytest.raises(UsageError, match="block size: expected 512 KiB, 1 MiB or 2 MiB, found 4194304"):
        Options(block_size=4 * MiB).check()


def test_a_footer_that_is_lost_is_made_again_from_its_copy():
    file = image()
    file.write(file.size - 512, bytes(512))
    (found,) = check(file)
    assert (found.rule, found.offset, found.repairable) == ("vhd.footer", file.size, True)
    with opened("vhd", file, owns=False) as disk:
        assert disk.read(2 * MiB, 5) == b"bbbbb"
        disk.write(0, b"c")
    assert check(file) == []
    file.write(0, bytes(512))
    assert [(each.rule, each.offset) for each in check(file)] == [("vhd.footer", 0)]
    with opened("vhd", file, owns=False) as disk:
        assert disk.read(0, 2) == b"ca"


def test_a_fixed_image_goes_by_its_end_whatever_its_guest_writes_first():
    parent = image()
    file = new("vhd, fixed", SIZE)
    with opened("vhd, fixed", file, owns=False) as disk:
        disk.write(0, parent.read(0, 4096))
    with opened("vhd, fixed", file) as disk:
        assert dict(disk.describe().details)["subformat"] == "fixed"
        assert disk.read(0, 4096) == parent.read(0, 4096)


@pytest.mark.parametrize(
    ("at", "data", "error", "message"),
    [
        (64, b"\0\0\0\0", Corrupt, r"footer: expected the checksum 0x\w+, found 0x00000000 \(byte"),
        (0, b"x", NotThisFormat, "expected the cookie conectix"),
        (512, b"x", Corrupt, "expected the cookie cxsparse"),
        (512 + 33, b"\1", Corrupt, "dynamic header: expected the checksum"),
        (1536, b"\0\x7f\0\0", Corrupt, r"block 0: expected to lie within the \d+ bytes of the file"),
        (1536, b"\0\0\0\0", Corrupt, "expected a place of its own"),
    ],
)
def test_damage_is_refused_with_its_byte(at, data, error, message):
    file = image()
    file.write(at, data)
    if at < 512:
        file.write(file.size - 512 + at, data)
    with pytest.raises(error, match=message) as raised:
        opened("vhd", file, writable=False)
    assert raised.value.offset is not None


def test_check_names_every_damage():
    file = image()
    table = read_image(file).header.table_offset
    file.write(table + 4, file.read(table, 4))
    (found,) = check(file)
    assert found.rule == "vhd.block.overlap"
    assert "over block 0" in found.message
    file.write(table + 8, b"\0\x7f\0\0")
    assert {(each.rule, each.offset) for each in check(file)} >= {("vhd.block.range", table + 8)}


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"kind": 5}, Unsupported, "of the type 2, 3 or 4, found 5"),
        ({"saved": 1}, Unsupported, "saved state"),
        ({"version": 0x20000}, Unsupported, "expected version 1, found 2"),
        ({"current_size": 3 << 40}, LimitExceeded, "at most 2190433320960 bytes"),
        ({"current_size": 1000}, Corrupt, "whole sectors"),
        ({"current_size": GiB}, Corrupt, "expected at least 2048 entries"),
        ({"data_offset": 7}, Corrupt, "a dynamic header at a sector"),
        ({"kind": 2, "current_size": GiB}, Corrupt, "bytes of a fixed disk"),
    ],
)
def test_footers_that_cannot_be(values, error, message):
    file = image()
    changed_footer(file, **values)
    with pytest.raises(error, match=message):
        opened("vhd", file, writable=False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"block_size": 3 * MiB}, "block size: expected a power of two"),
        ({"table_offset": 1000}, "table: expected"),
        ({"table_offset": 1 << 40}, "table: expected"),
        ({"version": 0x20000}, "expected version 1, found 2"),
    ],
)
def test_headers_that_cannot_be(values, message):
    file = image()
    file.write(512, pack_header(read_image(file).header.replace(**values)))
    with pytest.raises(FormatError, match=message):
        opened("vhd", file, writable=False)


def test_more_blocks_than_are_read_are_refused_before_the_table_is():
    file = image()
    header = read_image(file).header
    file.write(512, pack_header(header.replace(block_size=4096, entries=1 << 30)))
    changed_footer(file, current_size=MAX_SIZE)
    with pytest.raises(LimitExceeded, match="expected at most 8388608 blocks, found 534773760"):
        opened("vhd", file, writable=False)


# -- parents --------------------------------------------------------------------------------------------------


def differencing(tmp_path, name=".\\base.vhd"):
    parent = parent_of("vhd, differencing", random.Random(3).randbytes(SIZE))
    file = over("vhd, differencing", parent, name)
    (tmp_path / "base.vhd").write_bytes(parent.read(0, parent.size))
    path = tmp_path / "top.vhd"
    path.write_bytes(file.read(0, file.size))
    return path


def test_a_parent_is_opened_by_policy_only(tmp_path):
    path = differencing(tmp_path)
    with FileDevice(path) as file, pytest.raises(NotAllowed, match=r"base\.vhd"):
        open_image(file, path=str(path))
    with open_image(FileDevice(path), path=str(path), policy=Policy((str(tmp_path),))) as disk:
        assert disk.read(0, SIZE) == random.Random(3).randbytes(SIZE)
        assert dict(disk.describe().details)["subformat"] == "differencing"


@pytest.mark.parametrize("name", ["..\\..\\..\\etc\\shadow", "/etc/shadow", "\\\\server\\share\\x.vhd"])
def test_a_parent_elsewhere_is_refused(name, tmp_path):
    path = differencing(tmp_path, name)
    with FileDevice(path) as file, pytest.raises(NotAllowed):
        open_image(file, path=str(path), policy=Policy((str(tmp_path),)))


def test_a_drive_of_windows_is_no_protocol_that_is_followed(tmp_path):
    path = differencing(tmp_path, "C:\\base.vhd")
    with FileDevice(path) as file, pytest.raises(Unsupported, match="the name of a protocol"):
        open_image(file, path=str(path), policy=Policy((str(tmp_path),)))


def test_another_parent_than_then_is_refused(tmp_path):
    path = differencing(tmp_path)
    with FileDevice(tmp_path / "base.vhd", writable=True) as base:
        changed_footer(base, uuid=b"x" * 16)
    with FileDevice(path) as file, pytest.raises(Corrupt, match="vhd parent: expected the id"):
        open_image(file, path=str(path), policy=Policy((str(tmp_path),)))


def test_names_of_parents():
    parent = parent_of("vhd, differencing", bytes(SIZE))
    file = over("vhd, differencing", parent, "a\\b.vhd")
    lends = Lends(lent("vhd, differencing", parent))
    open_vhd(file, lends, owns=False).close()
    assert lends.name == b"a/b.vhd"
    header = read_image(file).header
    file.write(512, pack_header(header.replace(locators=b"", parent_name=b"")))
    lends = Lends(lent("vhd, differencing", parent))
    with pytest.raises(Unsupported, match="expected a relative, plain or absolute name"):
        open_vhd(file, lends, owns=False)
    absolute = header.locators.replace(b"W2ru", b"W2ku")
    file.write(512, pack_header(header.replace(locators=absolute)))
    lends = Lends(lent("vhd, differencing", parent))
    open_vhd(file, lends, owns=False).close()
    assert lends.name == b"parent.vhd"
    file.write(512, pack_header(header.replace(locators=absolute, parent_name=b"")))
    lends = Lends(lent("vhd, differencing", parent))
    open_vhd(file, lends, owns=False).close()
    assert lends.name == b"a/b.vhd"
    long = Locator(platform=b"W2ru", length=1 << 20, offset=0).pack()
    file.write(512, pack_header(header.replace(locators=long)))
    with pytest.raises(Corrupt, match="parent locator: expected at most 65536 bytes"):
        open_vhd(file, Lends(lent("vhd, differencing", parent)), owns=False)


def test_bits_of_sectors_say_whose_they_are():
    """A block of which two sectors are its own: bit 7 of a byte stands for the first one."""
    content = random.Random(4).randbytes(SIZE)
    parent = parent_of("vhd, differencing", content)
    file = over("vhd, differencing", parent, "p")
    with opened("vhd, differencing", file, owns=False, below=lent("vhd, differencing", parent)) as disk:
        disk.write(0, b"o" * 512 * KiB)
    block = int.from_bytes(file.read(read_image(file).header.table_offset, 4), "big") * 512
    file.write(block, b"\xa0" + bytes(127))
    wanted = bytearray(content)
    wanted[:512] = wanted[1024:1536] = b"o" * 512
    with opened("vhd, differencing", file, owns=False, below=lent("vhd, differencing", parent)) as disk:
        assert disk.read(0, SIZE) == wanted
        disk.write(700, b"new")
        wanted[700:703] = b"new"
        assert disk.read(0, SIZE) == wanted
    assert file.read(block, 128) == b"\xff" * 128
    with opened("vhd, differencing", file, owns=False, below=lent("vhd, differencing", parent)) as disk:
        assert disk.read(0, SIZE) == wanted


def test_bits_of_a_dynamic_image_are_set_before_it_is_written_to():
    file = image()
    block = int.from_bytes(file.read(read_image(file).header.table_offset, 4), "big") * 512
    file.write(block, bytes(128))
    with opened("vhd", file, owns=False) as disk:
        assert disk.read(0, 3) == b"aaa"
        disk.write(5000, b"x")
    assert file.read(block, 128) == b"\xff" * 128


def test_a_footer_of_511_bytes_counts():
    file = new("vhd, fixed", SIZE)
    file.resize(SIZE + 511)
    with opened("vhd, fixed", file, writable=False) as disk:
        assert disk.size == SIZE
