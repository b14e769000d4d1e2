"""Numbers that users and files of others give: digits, and nothing else that Python's own reading takes."""

from dataclasses import replace

import pytest

from blockwright.build.definition import Definition, Table
from blockwright.build.genimage.disk import _integer
from blockwright.build.mkfs import _volume_id
from blockwright.build.parts_mbr import identity
from blockwright.build.repart import _flags
from blockwright.cli.loopless import _write
from blockwright.errors import UsageError

odd = pytest.mark.parametrize("text", ["1_2", "+1", "-1", " 1", "1 ", "1\n", "", "0x", "\u0661", "0x1_2", "x"])
MBR = Definition(table=Table.MBR)


@odd
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="disk id: expected"):
        identity(replace(MBR, disk_id=text), b"", 1)
    with pytest.raises(UsageError, match="volume id: expected"):
        _volume_id(text)
    for read in (_integer, _flags):
        with pytest.raises(ValueError, match=r"^expected a number"):
            read(text)
    with pytest.raises(UsageError, match="mode: expected"):
        _write("x:1", ["/a", text])


def test_numbers() -> None:
    for text in ("89abcdef", "0x89ABCDEF", "0X89abcdef"):
        assert identity(replace(MBR, disk_id=text), b"", 2) == "89abcdef-02"
    assert identity(replace(MBR, disk_id="1"), b"", 2) == "00000001-02"
    for text in ("1234-abcd", "1234ABCD", "0x1234abcd"):
        assert _volume_id(text) == 0x1234ABCD
    assert [_integer(text) for text in ("0", "10", "0xff")] == [0, 10, 255]
    assert [_flags(text) for text in ("0", "10", "0xff", "0b11", "0o17")] == [0, 10, 255, 3, 15]
