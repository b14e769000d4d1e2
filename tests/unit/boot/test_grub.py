"""GRUB for a BIOS and for UEFI: a core image of its parts, led to by absolute sectors; where an image looks."""

import lzma
import struct

import pytest

from blockwright.boot import grubefi
from blockwright.boot.elf import memory_image
from blockwright.boot.grub import Grub, boot_code, embedded
from blockwright.errors import Corrupt, FormatError, LimitExceeded, NotFound, NotThisFormat, Unsupported, UsageError
from tests.support import loaders


@pytest.fixture
def grub() -> Grub:
    return Grub(loaders.grub_reader(), "here")


def test_modules_come_behind_what_they_need(grub: Grub) -> None:
    assert grub.with_dependencies(["normal"]) == ["biosdisk", "fshelp", "ext2", "normal"]
    with pytest.raises(NotFound, match="no module 'zfs'"):
        grub.with_dependencies(["zfs"])
    circle = Grub(loaders.grub_reader({"moddep.lst": b"a: b\nb: a\n../c: \nd: ../c\n"}), "here")
    assert circle.with_dependencies(["a"]) == ["b", "a"]
    with pytest.raises(NotFound, match="no module"):
        circle.with_dependencies(["d"])


def test_all_modules_and_lists_are_a_directory(grub: Grub) -> None:
    files = grub.directory()
    assert set(files) == {"biosdisk.mod", "ext2.mod", "fshelp.mod", "normal.mod", "moddep.lst"}
    assert files["ext2.mod"] == loaders.grub_files()["ext2.mod"]
    without = {key: value for key, value in loaders.grub_files().items() if key != "ext2.mod"}
    with pytest.raises(NotFound, match=r"ext2\.mod"):
        Grub(loaders.grub_reader(without), "here").directory()


def test_the_payload_is_kernel_modules_configuration_and_prefix(grub: Grub) -> None:
    payload = grub.payload("(,gpt2)/boot/grub", ["ext2"], "echo hello")
    assert payload[:0x40] == b"text" * 10 + bytes(0x40 - 40)
    assert payload[0x40:0x44] == b"data"
    magic, offset, size = struct.unpack_from("<III", payload, 0x44)
    assert (magic, offset, size) == (0x676D696D, 12, len(payload) - 0x44)
    found, at = [], 0x44 + offset
    while at < len(payload):
        kind, length = struct.unpack_from("<II", payload, at)
        found.append((kind, payload[at + 8 : at + length].rstrip(b"\0")))
        at += length
    assert found == [
        (0, b"\x7fELFfshelp.mod"),
        (0, b"\x7fELFext2.mod"),
        (2, b"echo hello"),
        (3, b"(,gpt2)/boot/grub"),
    ]


def test_the_core_unpacks_to_the_payload(grub: Grub) -> None:
    core = grub.core("(,gpt2)/boot/grub", ["normal"])
    assert len(core) % 512 == 0
    packed, unpacked, redundancy = struct.unpack_from("<III", core, 512 + 8)
    assert redundancy == 0
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16, "lc": 3, "lp": 0, "pb": 2}]
    start = 512 + len(loaders.grub_files()["lzma_decompress.img"])
    payload = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters).decompress(
        core[start : start + packed], unpacked
    )
    assert payload == grub.payload("(,gpt2)/boot/grub", ["normal"])


def test_the_core_and_the_first_sector_lead_on(grub: Grub) -> None:
    core = grub.core("(,msdos1)/boot/grub", ["ext2"])
    placed = embedded(core, 34 * 512)
    assert struct.unpack_from("<QHH", placed, 0x1F4) == (35, len(core) // 512 - 1, 0x820)
    assert placed[0x1F4 - 12 : 0x1F4] == bytes(12)
    assert placed[512:] == core[512:]
    existing = bytes(range(256)) * 2
    code = boot_code(loaders.grub_files()["boot.img"], 34 * 512, existing)
    assert len(code) == 440
    assert code[:3] == b"\xeb\x63\x90"
    assert code[3:0x5A] == existing[3:0x5A]
    assert struct.unpack_from("<Q", code, 0x5C) == (34,)
    assert code[0x64] == 0xFF
    assert code[0x66:0x68] == b"\x90\x90"
    with pytest.raises(UsageError):
        embedded(core, 100)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("diskboot.img", b"x" * 511, NotThisFormat),
        ("lzma_decompress.img", b"x" * 0xE01, NotThisFormat),
        ("lzma_decompress.img", b"", NotThisFormat),
        ("kernel.img", b"MZ", NotThisFormat),
        ("kernel.img", loaders.elf32([(0x100000, b"x")]), LimitExceeded),
        ("kernel.img", loaders.elf32([(0x8000, b"x")]), LimitExceeded),
        ("kernel.img", loaders.elf32([]), Corrupt),
        ("ext2.mod", b"text", NotThisFormat),
        ("ext2.mod", b"\x7fELF" + bytes((1 << 20) + 1), LimitExceeded),
    ],
)
def test_parts_that_are_none_are_refused(name: str, content: bytes, error: type[FormatError]) -> None:
    with pytest.raises(error):
        Grub(loaders.grub_reader(loaders.grub_files() | {name: content}), "here").core("/", ["ext2"])
    missing = {key: value for key, value in loaders.grub_files().items() if key != name}
    with pytest.raises(NotFound, match=name):
        Grub(loaders.grub_reader(missing), "here").core("/", ["ext2"])


def test_what_is_too_large_to_load_is_refused() -> None:
    import random

    noise = {f"m{n}.mod": b"\x7fELF" + random.Random(n).randbytes(1 << 19) for n in range(2)}
    files = loaders.grub_files() | noise | {"moddep.lst": b"m0:\nm1:\n"}
    with pytest.raises(LimitExceeded, match="core image"):
        Grub(loaders.grub_reader(files), "here").core("/", ["m0", "m1"])


def test_a_boot_sector_that_is_none_is_refused() -> None:
    good = loaders.grub_files()["boot.img"]
    for damaged in (good[:-1], good[:510] + b"\0\0", b"\0" + good[1:]):
        with pytest.raises(NotThisFormat):
            boot_code(damaged, 512)
    with pytest.raises(Corrupt):
        boot_code(good[:0x66] + b"\0" + good[0x67:], 512)


def test_sections_outside_the_file_are_refused() -> None:
    good = loaders.elf32([(0x9000, b"text")])
    for at, value in ((32, 0xFFFFFFF0), (52 + 4 + 40 + 16, 0xFFFFFF00)):
        damaged = bytearray(good)
        struct.pack_into("<I", damaged, at, value)
        with pytest.raises(Corrupt):
            memory_image(bytes(damaged), 0x9000, 0x1000, "here")
    damaged = bytearray(good)
    struct.pack_into("<H", damaged, 48, 65)
    with pytest.raises(LimitExceeded):
        memory_image(bytes(damaged), 0x9000, 0x1000, "here")


@pytest.mark.parametrize(
    ("prefix", "path"),
    [
        (b"/EFI/debian", "EFI/debian/grub.cfg"),
        (b"(hd0,gpt1)/boot/grub/", "boot/grub/grub.cfg"),
    ],
)
def test_where_an_image_for_uefi_reads_its_configuration(prefix: bytes, path: str) -> None:
    assert grubefi.config_path(loaders.grub_efi(prefix), "here") == path


@pytest.mark.parametrize("prefix", [b"(memdisk)/boot/grub", b"/../x", b"", b"/", b"/a b", b"relative"])
def test_images_that_read_another_configuration_are_refused(prefix: bytes) -> None:
    with pytest.raises(Unsupported, match="prefix"):
        grubefi.config_path(loaders.grub_efi(prefix), "here")


def test_images_that_are_none_of_grub_are_refused() -> None:
    with pytest.raises(NotThisFormat):
        grubefi.config_path(loaders.stub(), "here")
    with pytest.raises(Corrupt):
        grubefi.config_path(loaders.program([("mods", b"")]), "here")
    with pytest.raises(Corrupt):
        grubefi.config_path(loaders.grub_efi().replace(struct.pack("<I", 0x676D696D), bytes(4)), "here")
    many = tuple((0, b"") for _ in range(grubefi.MAX_OBJECTS + 1))
    with pytest.raises(LimitExceeded):
        grubefi.config_path(loaders.grub_efi(objects=many), "here")
    image = loaders.program([("mods", struct.pack("<IIQQ", 0x676D696D, 0, 24, 24))])
    with pytest.raises(Unsupported, match="found none"):
        grubefi.config_path(image, "here")


@pytest.mark.parametrize("length", [0, 1, 7, 17, 0xFFFFFFFF])
def test_an_object_of_a_size_that_cannot_be_is_refused(length: int) -> None:
    area = struct.pack("<IIQQ", 0x676D696D, 0, 24, 40) + struct.pack("<II", 0, length) + bytes(8)
    with pytest.raises(Corrupt, match="expected an object of up to 16 bytes"):
        grubefi.config_path(loaders.program([("mods", area)]), "here")


@pytest.mark.parametrize(
    ("offset", "size"), [(23, 512), (513, 512), (24, 513), (24, 1 << 63), ((1 << 64) - 1, (1 << 64) - 1)]
)
def test_modules_that_leave_their_section_are_refused(offset: int, size: int) -> None:
    area = struct.pack("<IIQQ", 0x676D696D, 0, offset, size).ljust(512, b"\0")
    with pytest.raises(Corrupt, match="a size of up to 512"):
        grubefi.config_path(loaders.program([("mods", area)]), "here")
