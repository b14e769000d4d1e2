"""Descriptors, as they come from anywhere."""

import pytest

from blockwright.errors import Corrupt, FormatError, LimitExceeded, NotThisFormat, Unsupported, UsageError
from blockwright.format.vmdk.descriptor import (
    MAX_EXTENTS,
    NO_ID,
    NO_PARENT,
    Descriptor,
    Extent,
    geometry_of,
    next_id,
    parse,
    text_of,
    with_content_id,
)
from blockwright.units import GiB, MiB

GOOD = b"""# Disk DescriptorFile
version=1
CID = 0000abcd
parentCID=ffffffff
createType="monolithicFlat"

RW 2048 FLAT "disk-flat.vmdk" 0
# a remark
ddb.adapterType = "lsilogic"
"""


def test_what_products_write_is_read():
    found = parse(GOOD.replace(b"\n", b"\r\n") + bytes(300))
    assert found.content_id == 0xABCD
    assert found.extents == (Extent("RW", MiB, "FLAT", b"disk-flat.vmdk", 0),)
    assert (found.kind, found.size, found.parent, found.parent_id) == ("monolithicFlat", MiB, None, NO_PARENT)
    assert found.others["ddb.adaptertype"] == "lsilogic"


def test_what_is_written_is_read():
    made = Descriptor(
        7, "twoGbMaxExtentSparse", (Extent("RW", GiB, "SPARSE", b"a b\xc3\xa4.vmdk"),) * 2, 0xAB, b"base.vmdk"
    )
    found = parse(text_of(made, "lsilogic"))
    assert (found.content_id, found.kind, found.extents) == (7, made.kind, made.extents)
    assert (found.parent_id, found.parent) == (0xAB, b"base.vmdk")


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        (b"# Disk DescriptorFile", b"# A file", NotThisFormat),
        (b"version=1", b"version=9", Unsupported),
        (b"0000abcd", b"0000abcg", Corrupt),
        (b"0000abcd", b"123456789", Corrupt),
        (b"CID = 0000abcd\n", b"", Corrupt),
        (b"parentCID=ffffffff", b"CID=1", Corrupt),
        (b"parentCID=ffffffff", b"parentCID=1", Corrupt),
        (b"monolithicFlat", b"vmfs", Unsupported),
        (b"monolithicFlat", b"vmfsSparse", Unsupported),
        (b"monolithicFlat", b"seSparse", Unsupported),
        (b"monolithicFlat", b"fullDevice", Unsupported),
        (b'createType="monolithicFlat"', b"", Corrupt),
        (b'createType="monolithicFlat"', b'createType="monolithicFlat', Corrupt),
        (b" FLAT ", b" VMFS ", Unsupported),
        (b" FLAT ", b" SESPARSE ", Unsupported),
        (b" FLAT ", b" flat ", Corrupt),
        (b"RW 2048", b"WR 2048", Corrupt),
        (b"RW 2048", b"NOACCESS 2048", Unsupported),
        (b"RW 2048", b"RW 0", Corrupt),
        (b"RW 2048", b"RW 9999999999999999999", Corrupt),
        (b'"disk-flat.vmdk" 0', b'"disk-flat.vmdk" 9999999999999999999', Corrupt),
        (b'"disk-flat.vmdk" 0', b"", Corrupt),
        (b'RW 2048 FLAT "disk-flat.vmdk" 0', b"", Corrupt),
        (b"# a remark", b"any words", Corrupt),
        (b"# a remark", b"\0behind the end", Corrupt),
    ],
)
def test_what_breaks_a_rule_is_refused(old, new, error):
    assert old in GOOD
    with pytest.raises(error):
        parse(GOOD.replace(old, new))


def test_limits():
    line = b'RW 1 FLAT "x" 0\n'
    with pytest.raises(LimitExceeded, match="extents"):
        parse(GOOD + line * MAX_EXTENTS)
    with pytest.raises(LimitExceeded, match="bytes"):
        parse(GOOD + b"#" * (1 << 20))
    with pytest.raises(FormatError):
        parse(b"")


def test_the_content_id_is_changed_where_it_stands():
    changed = with_content_id(GOOD, 0xDEADBEEF)
    assert len(changed) == len(GOOD)
    assert parse(changed).content_id == 0xDEADBEEF
    assert parse(changed).parent_id == NO_PARENT
    assert parse(with_content_id(GOOD.replace(b"0000abcd", b"1"), 2)).content_id == 2
    assert parse(with_content_id(GOOD.replace(b"0000abcd", b'"0000abcd"'), 3)).content_id == 3
    with pytest.raises(Corrupt):
        with_content_id(GOOD.replace(b"CID = 0000abcd\n", b""), 1)
    for given, seed in ((5, 5), (NO_ID, 1), (5, 0), (0, NO_PARENT)):
        assert next_id(given, seed) not in (given, 0, NO_ID, NO_PARENT)


def test_names_that_cannot_be_said():
    for name in (b'a"b', b"a\nb", b"a\0b"):
        with pytest.raises(UsageError):
            text_of(Descriptor(1, "monolithicFlat", (Extent("RW", 512, "FLAT", name),)))


def test_geometry():
    assert geometry_of(512, "ide") == (1, 16, 63)
    assert geometry_of(1 << 50, "ide") == (16383, 16, 63)
    assert geometry_of(100 * GiB, "lsilogic") == (13054, 255, 63)
