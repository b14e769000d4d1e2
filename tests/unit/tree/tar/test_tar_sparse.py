"""Sparse maps in all forms."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.device.memory import MemoryDevice
from blockwright.errors import ArchiveRejected
from blockwright.tree.node import Directory, File
from blockwright.tree.spool import Spool
from blockwright.tree.tar import pax, read_tar, read_tar_stream
from tests.support.tarmaker import GNU, archive, base256, header, member, octal, padded
from tests.support.tarmaker import pax as extended
from tests.support.trees import content_bytes

Runs = list[tuple[int, int]]


def old_gnu(size: int, runs: Runs, data: bytes) -> bytes:
    pairs = [octal(offset, 12) + octal(length, 12) for offset, length in runs]
    head = b"".join(pairs[:4])
    more = [pairs[at : at + 21] for at in range(4, len(pairs), 21)]
    patches = {386: head, 482: bytes([bool(more)]), 483: octal(size, 12)}
    blocks = [header(b"f", kind=b"S", size=len(data), magic=GNU, patches=patches)]
    for number, part in enumerate(more):
        block = b"".join(part).ljust(504, b"\0") + bytes([number + 1 < len(more)])
        blocks.append(padded(block))
    return archive(*blocks, padded(data))


def pax_00(size: int, runs: Runs, data: bytes) -> bytes:
    records = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.numblocks", b"%d" % len(runs))]
    for offset, length in runs:
        records += [(b"GNU.sparse.offset", b"%d" % offset), (b"GNU.sparse.numbytes", b"%d" % length)]
    return archive(extended(*records), member(b"f", data))


def pax_01(size: int, runs: Runs, data: bytes) -> bytes:
    text = b",".join(b"%d,%d" % run for run in runs)
    records = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.numblocks", b"%d" % len(runs))]
    records += [(b"GNU.sparse.name", b"f"), (b"GNU.sparse.map", text)]
    return archive(extended(*records), member(b"GNUSparseFile.1/f", data))


def pax_10(size: int, runs: Runs, data: bytes) -> bytes:
    text = b"".join(b"%d\n" % number for number in [len(runs), *[number for run in runs for number in run]])
    records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"f")]
    records += [(b"GNU.sparse.realsize", b"%d" % size)]
    return archive(extended(*records), member(b"GNUSparseFile.1/f", padded(text) + data))


FORMS = {"old GNU": old_gnu, "0.0": pax_00, "0.1": pax_01, "1.0": pax_10}
form = pytest.mark.parametrize("form", FORMS)


def file(root: Directory) -> File:
    node = root.entries[b"f"]
    assert isinstance(node, File)
    return node


def both(data: bytes) -> list[File]:
    """The file as a device gives it and as a stream does."""
    source = memoryview(data)
    position = 0

    def read(length: int) -> bytes:
        nonlocal position
        part = bytes(source[position : position + min(length, 1000)])
        position += len(part)
        return part

    spool = Spool(MemoryDevice(0))
    return [file(read_tar(MemoryDevice(content=data))), file(read_tar_stream(read, spool.place))]


@st.composite
def sparse_files(draw: st.DrawFn) -> tuple[int, Runs, bytes]:
    gaps = draw(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 900)), max_size=60))
    runs, position = [], 0
    for gap, length in gaps:
        runs.append((position + gap, length))
        position += gap + length
    size = position + draw(st.integers(0, 1000))
    data = bytes(i * 7 % 251 for i in range(sum(length for _, length in runs)))
    return size, runs, data


@form
@given(sparse_files())
def test_every_form_says_the_same(form: str, case: tuple[int, Runs, bytes]) -> None:
    size, runs, data = case
    expected, at = bytearray(size), 0
    for offset, length in runs:
        expected[offset : offset + length] = data[at : at + length]
        at += length
    for node in both(FORMS[form](size, runs, data)):
        assert node.content.size == size
        assert content_bytes(node.content) == bytes(expected)
        told = node.content.runs()
        assert sum(length for _, length in told) == len(data)
        assert all(length for _, length in told)
        assert all(one[0] + one[1] < two[0] for one, two in itertools.pairwise(told))


@form
def test_a_file_that_is_all_hole(form: str) -> None:
    for node in both(FORMS[form](5000, [(5000, 0)], b"")):
        assert (node.content.size, node.content.runs()) == (5000, ())


BAD = {
    "past the size": (100, [(90, 20)], bytes(20)),
    "overlapping": (100, [(0, 20), (10, 20)], bytes(40)),
    "descending": (100, [(50, 10), (0, 10)], bytes(20)),
    "more than is stored": (100, [(0, 30)], bytes(20)),
    "less than is stored": (100, [(0, 10)], bytes(20)),
}


@form
@pytest.mark.parametrize("how", BAD)
def test_maps_that_lie(form: str, how: str) -> None:
    with pytest.raises(ArchiveRejected, match="sparse map"):
        both(FORMS[form](*BAD[how]))


def test_sizes_of_old_gnu_headers_may_be_binary() -> None:
    size = 1 << 40
    patches = {386: base256(size - 3, 12) + octal(3, 12), 483: base256(size, 12)}
    data = archive(header(b"f", kind=b"S", size=3, magic=GNU, patches=patches), padded(b"end"))
    for node in both(data):
        assert (node.content.size, node.content.runs()) == (size, ((size - 3, 3),))
    with pytest.raises(ArchiveRejected, match="size: expected 0 to"):
        both(archive(header(b"f", kind=b"S", magic=GNU, patches={483: base256(-1, 12)})))


def test_an_old_gnu_map_that_is_cut() -> None:
    data = old_gnu(1000, [(i * 10, 1) for i in range(30)], bytes(30))
    for cut in (512, 512 + 511, 1024):
        with pytest.raises(ArchiveRejected, match="archive's end"):
            both(data[:cut])


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([(b"GNU.sparse.major", b"2"), (b"GNU.sparse.minor", b"0")], "found 2.0"),
        ([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"1")], "found 1.1"),
        ([(b"GNU.sparse.major", b"0"), (b"GNU.sparse.minor", b"9")], "found 0.9"),
        ([(b"GNU.sparse.major", b"\xff" * 100)], "sparse map: expected format"),
    ],
)
def test_other_versions(records: list[tuple[bytes, bytes]], message: str) -> None:
    with pytest.raises(ArchiveRejected, match=message):
        both(archive(extended(*records), member(b"f")))


@pytest.mark.parametrize(
    "records",
    [
        [(b"GNU.sparse.map", b"0,0")],
        [(b"GNU.sparse.size", b"0"), (b"GNU.sparse.map", b"0")],
        [(b"GNU.sparse.size", b"0"), (b"GNU.sparse.map", b"0,-0")],
        [(b"GNU.sparse.size", b"0"), (b"GNU.sparse.map", b"a,b")],
        [(b"GNU.sparse.size", b"0"), (b"GNU.sparse.map", b"0,0,")],
        [(b"GNU.sparse.size", b"0"), (b"GNU.sparse.numblocks", b"2"), (b"GNU.sparse.map", b"0,0")],
        [(b"GNU.sparse.size", b"x"), (b"GNU.sparse.map", b"0,0")],
        [(b"GNU.sparse.size", b"0"), (b"GNU.sparse.numbytes", b"0")],
        [(b"GNU.sparse.size", b"0"), (b"GNU.sparse.offset", b"0"), (b"GNU.sparse.offset", b"0")],
        [(b"GNU.sparse.size", b"0"), (b"GNU.sparse.offset", b"0")],
        [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")],
        [(b"GNU.sparse.size", b"0"), (b"GNU.sparse.name", b"a\0b"), (b"GNU.sparse.map", b"0,0")],
    ],
)
def test_records_that_do_not_make_a_map(records: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(ArchiveRejected):
        both(archive(extended(*records), member(b"f")))


@pytest.mark.parametrize(
    "text",
    [b"", b"x\n", b"1\n", b"1\n0\n", b"1\n0\nx\n", b"\n", b"-1\n", b"1" * 600, b"1\n" + b"0" * 600, b"2\n0\n1\n"],
)
def test_text_maps_that_do_not_end_well(text: bytes) -> None:
    records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"1")]
    with pytest.raises(ArchiveRejected):
        both(archive(extended(*records), member(b"f", padded(text))))


def test_counts_are_limited_before_anything_is_read() -> None:
    records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"1")]
    with pytest.raises(ArchiveRejected, match="at most 1048576 runs, found 1048577"):
        both(archive(extended(*records), member(b"f", padded(b"1048577\n"))))


def test_all_maps_of_an_archive_are_limited_together(monkeypatch: pytest.MonkeyPatch) -> None:
    one = old_gnu(100, [(i * 10, 1) for i in range(4)], bytes(4))[: 512 * 2]
    monkeypatch.setattr(pax, "MAX_SPARSE_RUNS", 11)
    both(archive(one, one))
    with pytest.raises(ArchiveRejected, match="in all"):
        both(archive(one, one, one))
