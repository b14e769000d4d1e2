"""Images that break a rule: what is wrong is named with its byte, and nothing but FormatError comes out."""

import sys

import pytest

from blockwright.device.file import FileDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import Corrupt, FormatError, LimitExceeded, NotThisFormat, ReadOnly, Unsupported
from blockwright.format.open import open_image
from blockwright.format.policy import Policy
from blockwright.format.qcow2 import check as check_module
from blockwright.format.qcow2.check import check
from blockwright.format.qcow2.create import Options, create
from blockwright.format.qcow2.layout import COPIED
from blockwright.format.qcow2.open import no_files, open_qcow2, read_header
from blockwright.format.qcow2.repair import repair
from blockwright.units import GiB, KiB, MiB
from tests.support.qcow2 import new, opened

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CLUSTER = 64 * KiB
HEADER, TABLE, BLOCK, L1, DATA, _, L2 = (n * CLUSTER for n in range(7))
"""Where things lie in the image that ``image`` makes."""


def image(**options) -> MemoryDevice:
    """Return an image of 1 GiB with two clusters of data, at DATA and behind it."""
    file = new(1024 * MiB, Options(**options))
    with opened(file, owns=False) as disk:
        disk.write(0, b"a" * 2 * CLUSTER)
    return file


def put(file: MemoryDevice, offset: int, value: int, width: int = 8) -> None:
    file.write(offset, value.to_bytes(width, "big"))


def rules(file) -> dict[str, int | None]:
    return {each.rule: each.offset for each in check(file)}


def test_the_image_is_what_the_others_are_made_from():
    assert check(image()) == []
    assert image().read(DATA, 1) == b"a"


@pytest.mark.parametrize(
    ("offset", "width", "value", "kind", "text"),
    [
        (0, 4, 0x514649FA, NotThisFormat, "magic"),
        (4, 4, 1, Unsupported, "version 2 or 3, found 1"),
        (20, 4, 8, Corrupt, "cluster bits: expected 9 to 21, found 8"),
        (20, 4, 22, Corrupt, "cluster bits: expected 9 to 21, found 22"),
        (24, 8, 1 << 63, LimitExceeded, "size"),
        (24, 8, 1 << 50, Corrupt, "L1 size: expected at least"),
        (32, 4, 1, Unsupported, "AES"),
        (32, 4, 2, Unsupported, "LUKS"),
        (36, 4, 1 << 30, LimitExceeded, "L1 size"),
        (40, 8, 12345, Corrupt, "L1 table: expected an offset"),
        (40, 8, 1 << 40, Corrupt, "L1 table: expected an end within"),
        (48, 8, 0, Corrupt, "refcount table: expected an offset"),
        (56, 4, 0, Corrupt, "refcount table: expected at least one"),
        (56, 4, 1 << 20, LimitExceeded, "refcount table"),
        (60, 4, 1 << 20, LimitExceeded, "snapshots"),
        (72, 8, 1 << 5, Unsupported, "features 0x20"),
        (72, 8, 8, Corrupt, "contradict"),
        (96, 4, 7, Corrupt, "refcount order"),
        (100, 4, 90, Corrupt, "header length"),
        (104, 1, 1, Corrupt, "contradict"),
        (116, 4, 1 << 20, Corrupt, "header extension"),
    ],
)
def test_headers_that_do_not_hold(offset, width, value, kind, text):
    file = image()
    put(file, offset, value, width)
    with pytest.raises(kind, match=text) as raised:
        read_header(file)
    assert raised.value.offset in {offset, 36, 104}  # the field itself, or the one that contradicts it


def test_a_known_mark_is_never_raw():
    file = image()
    put(file, 4, 9, 4)
    with pytest.raises(Unsupported):
        open_image(file)
    with pytest.raises(FormatError):
        open_image(MemoryDevice(content=b"QFI\xfb"))
    with pytest.raises(Unsupported, match="found qed"):
        open_image(MemoryDevice(content=b"QED\0" + bytes(508)))
    assert open_image(file, form="raw") is file


@pytest.mark.parametrize(
    ("missing", "whole"), [(1, True), (CLUSTER - 1, True), (CLUSTER, False), (2 * CLUSTER, False)]
)
def test_no_more_than_a_piece_of_the_last_cluster_may_be_missing(missing, whole):
    file = new(8 * CLUSTER, Options(cluster_size=CLUSTER))
    with opened(file, owns=False) as disk:
        disk.write(0, b"x")
        disk.write(CLUSTER, b"y" * 4 * CLUSTER)
        (place,) = disk.resolve(CLUSTER, 5 * CLUSTER)
    cut = MemoryDevice(content=file.read(0, place.host + 4 * CLUSTER - missing))
    with opened(cut, writable=False) as disk:
        if whole:
            assert disk.read(CLUSTER, 4 * CLUSTER) == b"y" * (4 * CLUSTER - missing) + bytes(missing)
        else:
            with pytest.raises(Corrupt, match="bytes of the file") as caught:
                disk.read(CLUSTER, 4 * CLUSTER)
            assert caught.value.offset == place.host + 3 * CLUSTER


@pytest.mark.parametrize("size", [4, 71, 72, 104, 600, CLUSTER, DATA, L2])
def test_truncated(size):
    file = image()
    whole = file.read(0, size)
    cut = MemoryDevice(content=whole)
    with pytest.raises(FormatError):
        opened(cut, writable=False).read(0, 2 * CLUSTER)
    if size > CLUSTER:
        assert check(cut)
    else:
        with pytest.raises(FormatError):
            check(cut)


def test_data_behind_the_end_is_found_with_its_entry():
    file = image()
    put(file, L2 + 8, 100 * CLUSTER | COPIED)
    assert rules(file) == {"qcow2.l2.outside": L2 + 8, "qcow2.refcount.leak": DATA + CLUSTER}
    disk = opened(file, writable=False)
    assert disk.read(0, CLUSTER) == b"a" * CLUSTER
    with pytest.raises(Corrupt, match="expected at most") as raised:
        disk.read(CLUSTER, 1)
    assert raised.value.offset == 100 * CLUSTER


def test_entries_that_are_no_offsets():
    file = image()
    put(file, L2, DATA + 512 | COPIED)
    assert "qcow2.l2.entry" in rules(file)
    with pytest.raises(Corrupt, match="L2 entry 0") as raised:
        opened(file, writable=False).read(0, 1)
    assert raised.value.offset == L2
    file = image()
    put(file, L1, L2 + 512 | COPIED)
    assert rules(file)["qcow2.l1.entry"] == L1
    with pytest.raises(Corrupt, match="L1 entry 0") as raised:
        opened(file, writable=False).read(0, 1)
    assert raised.value.offset == L1
    file = image()
    put(file, L1, 1 << 40)
    assert rules(file)["qcow2.l1.outside"] == L1
    with pytest.raises(Corrupt, match="L2 table 0"):
        opened(file, writable=False).read(0, 1)


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (BLOCK + 512, "qcow2.refcount-table.entry"),
        (BLOCK | 1, "qcow2.refcount-table.entry"),
        (100 * CLUSTER, "qcow2.refcount-table.outside"),
    ],
)
def test_refcount_blocks_that_are_none(value, rule):
    file = image()
    put(file, TABLE, value)
    assert rules(file)[rule] == TABLE
    with opened(file, writable=False) as disk:
        assert disk.read(0, CLUSTER) == b"a" * CLUSTER


def test_marks_and_tables_that_check_names():
    file = image()
    put(file, 72, 2)
    assert rules(file) == {"qcow2.corrupt": 72}
    file = image(extended_l2=True)
    l2 = int.from_bytes(file.read(read_header(file).record.l1_table_offset, 8), "big") & ~COPIED
    put(file, l2 + 8, 1 << 32 | 1)
    assert rules(file) == {"qcow2.l2.subclusters": l2}
    file = image()
    put(file, 60, 1, 4)
    put(file, 64, DATA)
    assert "qcow2.snapshots" in rules(file)


@pytest.mark.parametrize(("where", "what"), [(HEADER, "header"), (TABLE, "refcount table"), (L1, "L1"), (L2, "L2")])
def test_overlaps_are_found(where, what):
    file = image()
    put(file, L2 + 8, where | COPIED)
    if where:
        found = check(file)
        overlap = next(each for each in found if each.rule == "qcow2.overlap")
        assert what in overlap.message
        assert overlap.offset == L2 + 8
    assert check(file)


def test_two_clusters_in_one_place():
    file = image()
    put(file, L2 + 8, DATA | COPIED)
    found = rules(file)
    assert found["qcow2.refcount.low"] == DATA
    assert found["qcow2.refcount.leak"] == DATA + CLUSTER
    assert "qcow2.copied" in found
    assert repair(file)
    assert check(file) == []
    with opened(file) as disk:
        disk.write(0, b"b" * 100)
        assert disk.read(0, 100) == b"b" * 100
        assert disk.read(CLUSTER, 100) == b"a" * 100


def test_wrong_refcounts_are_found_and_mended():
    file = image()
    put(file, BLOCK + 2 * 100, 3, 2)
    assert rules(file) == {"qcow2.refcount.leak": 100 * CLUSTER}
    assert repair(file)
    assert check(file) == []
    put(file, BLOCK + 2 * (DATA // CLUSTER), 0, 2)
    assert rules(file) == {"qcow2.refcount.low": DATA}
    assert repair(file)
    assert check(file) == []
    assert not repair(file)
    assert opened(file, writable=False).read(0, 10) == b"a" * 10


def test_what_is_no_refcount_is_not_mended():
    file = image()
    put(file, L2, DATA + 512 | COPIED)
    before = file.read(0, file.size)
    with pytest.raises(Corrupt, match="only refcounts"):
        repair(file)
    assert file.read(0, file.size) == before


def test_corrupt_is_not_written_and_dirty_is_mended():
    file = image()
    put(file, 72, 2)
    assert opened(file, writable=False).read(0, 1) == b"a"
    with pytest.raises(ReadOnly, match="marked as corrupt"):
        opened(file)
    assert repair(file)
    put(file, 72, 1)
    put(file, BLOCK + 2 * (DATA // CLUSTER), 0, 2)
    opened(file, owns=False).close()
    assert check(file) == []
    put(file, 72, 1)
    put(file, L2, DATA + 512 | COPIED)
    with pytest.raises(Corrupt, match="cannot be made anew"):
        opened(file)


@pytest.mark.parametrize("content", [b"\xff" * 64, bytes(64), b"\x03\x00" + bytes(62)])
@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_compressed_clusters_that_are_none(content, compression):
    file = image(compression=compression)
    file.write(DATA, content)
    put(file, L2, 1 << 62 | DATA)
    with pytest.raises(Corrupt, match="compressed cluster") as raised:
        opened(file, writable=False).read(0, 1)
    assert raised.value.offset == DATA


def compressed_entry(length: int) -> int:
    """Return the L2 entry of compressed bytes at DATA."""
    return 1 << 62 | (length - 1) // 512 << 54 | DATA


def test_a_cluster_of_a_few_frames_and_one_of_a_great_many():
    half = zstd.compress(b"h" * (CLUSTER // 2))
    file = image(compression="zstd")
    file.write(DATA, half + half)
    put(file, L2, compressed_entry(2 * len(half)))
    assert opened(file, writable=False).read(0, CLUSTER) == b"h" * CLUSTER
    many = zstd.compress(b"") * 1000 + half + half
    file.write(DATA, many)
    put(file, L2, compressed_entry(len(many)))
    with pytest.raises(Corrupt, match="at most 256 frames"):
        opened(file, writable=False).read(0, CLUSTER)


def test_a_header_of_a_great_many_extensions():
    file = image()
    file.write(112, ((1).to_bytes(4, "big") + bytes(4)) * 300)
    with pytest.raises(LimitExceeded, match="256 extensions"):
        read_header(file)


def test_references_without_number():
    """A directory of a million entries leads to one table of as many entries, which are all of one cluster."""
    cluster, count = 2 * MiB, 1 << 20
    table, data, entries = 4 * cluster, 5 * cluster, cluster // 8
    file = new(MiB, Options(cluster_size=cluster))
    file.resize(20 * cluster)
    put(file, 24, count * entries * cluster // 2)
    put(file, 36, count, 4)
    put(file, 40, 8 * cluster)
    file.write(8 * cluster, table.to_bytes(8, "big") * count)
    file.write(table, data.to_bytes(8, "big") * entries)
    with pytest.raises(LimitExceeded, match="references to cluster 5"):
        check(file)


def test_tables_without_number(monkeypatch):
    assert check(image()) == []
    monkeypatch.setattr("blockwright.format.qcow2.references.MAX_STRUCTURES", 3)
    with pytest.raises(LimitExceeded, match="at most 3 clusters of tables"):
        check(image())


def test_no_more_findings_are_made_than_are_told(monkeypatch):
    made = []
    monkeypatch.setattr("blockwright.format.qcow2.check.MAX_FINDINGS", 5)
    original = check_module._refcount
    monkeypatch.setattr(check_module, "_refcount", lambda *args: made.append(args) or original(*args))
    file = image(refcount_bits=1)
    file.write(BLOCK + 1024, b"\x55" * 1024)
    assert len(check(file)) == 5
    assert len(made) == 5


def test_a_file_that_no_table_can_count_is_left_as_it_is():
    file = new(MiB, Options(cluster_size=512, refcount_bits=64))
    file.resize(40 * GiB)
    put(file, 72, 1)
    before = file.read(0, MiB)
    with pytest.raises(LimitExceeded, match="refcount table of 8388608 bytes"):
        opened(file)
    assert file.size == 40 * GiB
    assert file.read(0, MiB) == before


@pytest.mark.parametrize("broken", ["leak", "low", "dirty"])
def test_marks_of_clusters_in_an_external_data_file_stay(broken):
    file, data = MemoryDevice(0), MemoryDevice(0)
    create(file, MiB, Options(data_file="data"))
    with open_qcow2(file, writable=True, below=no_files, data=lambda _: data, owns=False) as disk:
        disk.write(0, b"a" * 2 * CLUSTER)
        table = disk.updates.map.table_offset(0)
    assert check(file) == []
    before = file.read(table, CLUSTER)
    assert before[:16] == (COPIED).to_bytes(8, "big") + (COPIED | CLUSTER).to_bytes(8, "big")
    number = {"leak": 100, "low": table // CLUSTER, "dirty": 100}[broken]
    put(file, BLOCK + 2 * number, 0 if broken == "low" else 2, 2)
    if broken == "dirty":
        put(file, 72, 1 | 4)
    assert repair(file)
    assert check(file) == []
    assert file.read(table, CLUSTER) == before


def test_a_backing_chain_that_goes_round(tmp_path):
    one, two = tmp_path / "one.qcow2", tmp_path / "two.qcow2"
    for path, below in ((one, two), (two, one)):
        with FileDevice(path, create=True) as file:
            create(file, MiB, Options(backing_file=below.name, backing_format="qcow2"))
    with FileDevice(one) as file, pytest.raises(Corrupt, match="stands on itself"):
        open_image(file, path=str(one), policy=Policy((str(tmp_path),)))


def test_a_backing_chain_that_has_no_end(tmp_path, monkeypatch):
    monkeypatch.setattr("blockwright.format.open.MAX_DEPTH", 3)
    for number in range(6):
        with FileDevice(tmp_path / f"{number}", create=True) as file:
            create(file, MiB, Options(backing_file=f"{number + 1}", backing_format="qcow2"))
    with FileDevice(tmp_path / "0") as file, pytest.raises(LimitExceeded, match="at most 3 files"):
        open_image(file, path=str(tmp_path / "0"), policy=Policy((str(tmp_path),)))


@pytest.mark.parametrize("where", [HEADER, TABLE, BLOCK, L1, L2])
def test_no_structure_is_taken_for_free_whatever_its_count_says(where):
    file = image()
    put(file, BLOCK + 2 * (where // CLUSTER), 0, 2)
    before = file.read(0, file.size)
    disk = opened(file, owns=False)
    with pytest.raises(Corrupt, match="own structures") as raised:
        disk.write(MiB, b"c")
    assert raised.value.offset == where
    assert file.read(0, DATA) == before[:DATA]
    assert disk.read(0, 2 * CLUSTER) == b"a" * 2 * CLUSTER
