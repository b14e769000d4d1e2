"""Unified kernel images: sections behind a stub's own, in its file and in its memory; stubs that take none."""

import struct

import pytest

from blockwright.boot import pe, uki
from blockwright.errors import Corrupt, FormatError, LimitExceeded, NotThisFormat, Unsupported, UsageError
from blockwright.tree.content import BytesContent, Content
from blockwright.tree.joined import JoinedContent
from tests.support import loaders

SECTIONS = {
    ".linux": BytesContent(b"kernel" * 1000),
    ".cmdline": BytesContent(b"quiet\0"),
    ".initrd": BytesContent(b"i"),
}


def whole(content: Content) -> bytes:
    buffer = bytearray(content.size)
    content.read_into(0, memoryview(buffer))
    return bytes(buffer)


@pytest.mark.parametrize("alignment", [0x200, 0x1000])
@pytest.mark.parametrize("machine", [0x8664, 0xAA64])
def test_sections_follow_the_stubs_own(alignment: int, machine: int) -> None:
    stub = loaders.stub(section_alignment=alignment, machine=machine)
    image = whole(uki.assemble(stub, SECTIONS, "here"))
    program = pe.read(image, "here")
    before = pe.read(stub, "here")
    assert program.machine == machine
    assert program.sections[:2] == before.sections
    assert [each.name for each in program.sections[2:]] == [".cmdline", ".initrd", ".linux"]
    ends = before.memory_end, len(stub)
    for section in program.sections[2:]:
        assert section.address % alignment == section.offset % 0x200 == section.file_size % 0x200 == 0
        assert section.address >= ends[0]
        assert section.offset == ends[1]
        ends = section.address + section.size, section.offset + section.file_size
        assert image[section.offset :][: section.size] == whole(SECTIONS[section.name])
    assert ends[1] == len(image)
    assert program.optional.size_of_image % alignment == 0
    assert program.optional.size_of_image >= ends[0]
    assert image[0x400 : len(stub)] == stub[0x400:]


def test_symbols_behind_the_stub_are_forgotten() -> None:
    stub = bytearray(loaders.stub())
    struct.pack_into("<II", stub, 0x84 + 8, len(stub), 5)
    image = whole(uki.assemble(bytes(stub) + b"symbols", SECTIONS, "here"))
    assert struct.unpack_from("<II", image, 0x84 + 8) == (0, 0)
    assert b"symbols" not in image


def test_headers_that_end_behind_the_stub_are_refused() -> None:
    stub = bytearray(loaders.stub())
    struct.pack_into("<I", stub, 0x98 + 60, len(stub) + 0x200)
    with pytest.raises(Corrupt, match="headers: expected to end by byte"):
        uki.assemble(bytes(stub), SECTIONS, "here")


def test_headers_that_have_no_room_are_refused() -> None:
    room = (0x400 - 0x98 - 240) // 40
    names = [(".sdmagic", b"#### LoaderInfo: systemd-stub"), *((f".s{n}", b"x") for n in range(room - 3))]
    fits = loaders.program(names)
    uki.assemble(fits, {".linux": SECTIONS[".linux"], ".cmdline": SECTIONS[".cmdline"]}, "here")
    with pytest.raises(Unsupported, match="room for 3 more"):
        uki.assemble(fits, SECTIONS, "here")


@pytest.mark.parametrize(
    ("stub", "error", "said"),
    [
        (b"", NotThisFormat, "EFI program"),
        (loaders.program([(".text", b"x")]), NotThisFormat, "systemd's stub"),
        (loaders.stub(certificate=64), Unsupported, "signature"),
        (loaders.program([(".linux", b"#### LoaderInfo: systemd-stub")]), Unsupported, "already"),
        (loaders.stub() + bytes(uki.MAX_STUB), LimitExceeded, "at most"),
        (loaders.stub(section_alignment=3), Corrupt, "power of two"),
        (loaders.stub()[:0x500], Corrupt, "end by byte"),
        (loaders.stub()[:0x90], Corrupt, "found the end"),
        (loaders.stub()[:0x1A0], Corrupt, "section table"),
    ],
)
def test_stubs_that_take_no_sections_are_refused(stub: bytes, error: type[FormatError], said: str) -> None:
    with pytest.raises(error, match=said):
        uki.assemble(stub, SECTIONS, "here")


def test_sections_that_make_no_image_are_refused() -> None:
    for sections in ({".cmdline": BytesContent(b"x")}, {".linux": BytesContent(b"x"), ".text": BytesContent(b"x")}):
        with pytest.raises(UsageError, match=r"\.linux"):
            uki.assemble(loaders.stub(), sections, "here")
    with pytest.raises(UsageError, match="found none"):
        uki.assemble(loaders.stub(), {".linux": BytesContent(b"")}, "here")


class Huge(Content):
    """More than addresses of 32 bits reach."""

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        raise AssertionError("nobody reads it")


def test_an_image_of_4_gib_is_refused() -> None:
    with pytest.raises(LimitExceeded, match="4 GiB"):
        uki.assemble(loaders.stub(), {".linux": BytesContent(b"x"), ".initrd": Huge((1 << 32) - 512)}, "here")


def test_too_many_sections_are_refused() -> None:
    data = bytearray(loaders.stub())
    struct.pack_into("<H", data, 0x86, 97)
    with pytest.raises(LimitExceeded):
        pe.read(bytes(data), "here")


def test_joined_contents_read_as_one() -> None:
    class Holes(Content):
        def runs(self) -> tuple[tuple[int, int], ...]:
            return ((2, 3),)

        def read_into(self, offset: int, buffer: memoryview, /) -> None:
            buffer[:] = b"..abc"[offset : offset + len(buffer)]

    joined = JoinedContent([BytesContent(b"12"), BytesContent(b""), Holes(5), BytesContent(b"34")])
    assert joined.size == 9
    assert joined.runs() == [(0, 2), (4, 5)]
    assert whole(joined) == b"12..abc34"
    for start in range(9):
        for end in range(start + 1, 10):
            buffer = bytearray(end - start)
            joined.read_into(start, memoryview(buffer))
            assert bytes(buffer) == b"12..abc34"[start:end]
    assert JoinedContent([]).runs() == []
    with joined.backing(0, 2) as found:
        assert found is None
