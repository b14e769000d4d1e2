"""SYSLINUX's parts: found, held to their form, and patched so that each knows where the next one lies."""

import struct
from dataclasses import replace

import pytest

from blockwright.boot import syslinux
from blockwright.boot.syslinux import MAGIC, Syslinux, empty_adv, on_ext, sector_map, word_sum
from blockwright.boot.syslinux_parts import from_program
from blockwright.errors import Corrupt, FormatError, LimitExceeded, NotThisFormat, Unsupported, UsageError
from blockwright.fs.fat.boot import with_code
from blockwright.fs.reader import Placed
from tests.support import loaders


@pytest.fixture
def parts() -> Syslinux:
    return Syslinux.of(loaders.boot_sector(), loaders.ldlinux(), loaders.module(), "here")


def extents(image: bytes) -> list[tuple[int, int]]:
    found = [struct.unpack_from("<QH", image, loaders.EXTENT_TABLE + 10 * n) for n in range(loaders.EXTENTS)]
    return [(lba, count) for lba, count in found if count]


def test_a_file_in_one_piece(parts: Syslinux) -> None:
    boot, image = parts.install([Placed(0, 100 * 512, 1 << 20)], "/boot/extlinux")
    sectors = loaders.IMAGE // 512
    assert len(image) == parts.size == loaders.IMAGE + 1024
    assert struct.unpack_from("<HHI", image, 24 + 8) == (sectors, 2, loaders.IMAGE // 4)
    assert extents(image) == [(101, sectors - 1)]
    assert struct.unpack_from("<QQ", image, loaders.POINTERS) == (100 + sectors, 101 + sectors)
    assert image[loaders.DIRECTORY :].startswith(b"/boot/extlinux\0")
    assert word_sum(image[: loaders.IMAGE]) == MAGIC
    assert struct.unpack_from("<I", boot, 0x11A)[0] == 100
    assert struct.unpack_from("<I", boot, 0x120)[0] == 0


def test_pieces_and_addresses_of_more_than_32_bits(parts: Syslinux) -> None:
    far = (1 << 33) * 512
    runs = [Placed(0, far, 1024), Placed(1024, 4096, 2048), Placed(3072, 512 * 50, parts.size)]
    boot, image = parts.install(runs, "/x")
    assert struct.unpack_from("<I", boot, 0x11A)[0] == 0
    assert struct.unpack_from("<I", boot, 0x120)[0] == 2
    assert extents(image) == [((1 << 33) + 1, 1), (8, 4), (50, loaders.IMAGE // 512 - 6)]


def test_a_run_is_cut_into_what_the_loader_reads_at_once() -> None:
    size = 300 * 512
    parts = Syslinux.of(loaders.boot_sector(), loaders.ldlinux(size=size), loaders.module(), "here")
    image = parts.install([Placed(0, 0, 1 << 20)], "/").image
    assert extents(image) == [(1, 127), (128, 127), (255, 45)]


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([], "break at byte 0"),
        ([Placed(0, 0, 512)], "break at byte 512"),
        ([Placed(0, 0, 512), Placed(1024, 4096, 1 << 20)], "break at byte 512"),
        ([Placed(512, 0, 1 << 20)], "break at byte 0"),
        ([Placed(0, 100, 1 << 20)], "break at byte 0"),
        ([Placed(n * 512, n * 4096, 512) for n in range(100)], "pieces"),
    ],
)
def test_files_that_cannot_be_read_by_sectors_are_refused(parts: Syslinux, runs: list[Placed], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parts.install(runs, "/x")


def test_a_directory_that_is_too_long_is_refused(parts: Syslinux) -> None:
    parts.install([Placed(0, 0, 1 << 20)], "/" + "x" * 62)
    with pytest.raises(UsageError, match="less than 64 bytes"):
        parts.install([Placed(0, 0, 1 << 20)], "/" + "x" * 63)


def test_the_vector_for_options_is_sound() -> None:
    adv = empty_adv()
    assert len(adv) == 512
    assert adv[:4] == bytes.fromhex("a52f2d5a")
    assert word_sum(adv[4:508]) == 0xA3041767
    assert adv[508:] == bytes.fromhex("64bf28dd")


def test_sectors_of_a_file_are_no_more_than_its_own() -> None:
    assert sector_map([Placed(0, 5120, 4096), Placed(4096, 0, 4096)], 5000) == [10, 11, 12, 13, 14, 15, 16, 17, 0, 1]


def test_boot_sectors_of_both_file_systems() -> None:
    ext = on_ext(loaders.boot_sector(), start=1 << 20, size=(1 << 20) * 512)
    assert struct.unpack_from("<HH", ext, 11) == (512, 0)
    assert struct.unpack_from("<H", ext, 19) == (0,)
    assert struct.unpack_from("<HHII", ext, 24) == (32, 64, 2048, 1 << 20)
    assert struct.unpack_from("<H", on_ext(loaders.boot_sector(), start=0, size=1 << 20), 19) == (2048,)
    fat = with_code(bytes(range(256)) * 2, loaders.boot_sector())
    assert fat[:11] == loaders.boot_sector()[:11]
    assert fat[11:0x5A] == bytes(range(11, 0x5A))
    assert fat[0x5A:0x1FE] == loaders.boot_sector()[0x5A:0x1FE]
    assert fat[0x1FE:] == b"\xfe\xff"


def test_parts_are_found_within_the_program() -> None:
    found = from_program(loaders.extlinux(), "here")
    assert found == Syslinux.of(loaders.boot_sector(), loaders.ldlinux(), loaders.module(), "here")
    assert found.version == (6, 4)
    for damaged in (
        b"",
        b"\x7fELF",
        loaders.extlinux()[:-3000],
        loaders.extlinux().replace(b"SYSLINUX 6", b"SYSLINUX x"),
        loaders.extlinux().replace(struct.pack("<I", len(loaders.module())), b"\xff\xff\xff\xff"),
        loaders.extlinux().replace(b"\xeb\x58\x90SYS", b"\xeb\x58\x90SYZ"),
    ):
        with pytest.raises(NotThisFormat):
            from_program(damaged, "here")


@pytest.mark.parametrize(
    ("sector", "image", "module", "error"),
    [
        (loaders.boot_sector()[:-1], loaders.ldlinux(), loaders.module(), NotThisFormat),
        (loaders.boot_sector(), loaders.module(), loaders.module(), NotThisFormat),
        (loaders.boot_sector(), loaders.ldlinux(), b"text", NotThisFormat),
        (loaders.boot_sector(), loaders.ldlinux(size=(1 << 20) + 4), loaders.module(), LimitExceeded),
        (loaders.boot_sector(), loaders.ldlinux(b"3.86"), loaders.module(), Unsupported),
        (loaders.boot_sector(), loaders.ldlinux()[:64], loaders.module(), Corrupt),
        (
            loaders.boot_sector().replace(b"\xef\xbe\xad\xde", b"\0\0\0\0"),
            loaders.ldlinux(),
            loaders.module(),
            Corrupt,
        ),
    ],
)
def test_parts_that_are_none_are_refused(
    sector: bytes, image: bytes, module: bytes, error: type[FormatError]
) -> None:
    with pytest.raises(error):
        Syslinux.of(sector, image, module, "here")


@pytest.mark.parametrize("field", range(10))
def test_places_that_lie_outside_are_refused(field: int) -> None:
    image = bytearray(loaders.ldlinux())
    struct.pack_into("<H", image, loaders.EXTENDED + 2 * field, 0xFFFF)
    if field in (3, 4, 9):  # nothing is written there
        Syslinux.of(loaders.boot_sector(), bytes(image), loaders.module(), "here")
        return
    with pytest.raises(Corrupt, match="expected to end"):
        Syslinux.of(loaders.boot_sector(), bytes(image), loaders.module(), "here")


@pytest.mark.parametrize(
    ("field", "place", "message"),
    [
        (0, 24 + 8, "the patch area: lies over the pointers to the ADV"),  # over the sum of the words
        (1, 16, "the directory: lies over the patch area"),
        (5, loaders.EXTENDED - 8, "the extents: lies over its extension"),
        (0, loaders.DIRECTORY + 60, "the directory: lies over the pointers to the ADV"),
    ],
)
def test_places_that_lie_over_each_other_are_refused(field: int, place: int, message: str) -> None:
    image = bytearray(loaders.ldlinux())
    struct.pack_into("<H", image, loaders.EXTENDED + 2 * field, place)
    with pytest.raises(Corrupt, match=message):
        Syslinux.of(loaders.boot_sector(), bytes(image), loaders.module(), "here")


def test_a_patch_area_that_no_word_holds_is_refused() -> None:
    image = bytearray(loaders.ldlinux())
    image[26:50] = image[24:48]
    image[24:26] = bytes(2)
    with pytest.raises(Corrupt, match="a multiple of 4 bytes"):
        Syslinux.of(loaders.boot_sector(), bytes(image), loaders.module(), "here")


def test_an_odd_length_is_filled_up(parts: Syslinux) -> None:
    odd = Syslinux.of(parts.boot_sector, parts.image[:-3], parts.module, "here")
    assert len(odd.image) % 4 == 0
    assert odd.size % 512 == 0
    assert replace(odd, image=b"").size == 1024
    image = odd.install([Placed(0, 0, 1 << 20)], "/").image
    assert word_sum(image[: len(odd.image)]) == MAGIC
    assert syslinux.SECTOR == 512
