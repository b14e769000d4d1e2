"""genimage's files, read: what becomes of each option, and what is refused with its place."""

import pytest

from blockwright.build.genimage import read_genimage
from blockwright.build.toml_read import Asked
from blockwright.errors import FormatError


def disk(hdimage: str = "", partitions: str = "partition a { size = 1M }", beside: str = "", inside: str = "") -> str:
    return f"{beside}\nimage disk.img {{\n{inside}\nhdimage {{ {hdimage} }}\n{partitions}\n}}\n"


def read(text: str, path: str = "/where/board.cfg") -> Asked:
    asked = read_genimage(text, path)
    asked.definition()
    return asked


def refused(text: str, said: str, line: int) -> None:
    with pytest.raises(FormatError) as caught:
        read(text)
    assert str(caught.value).startswith(f"/where/board.cfg:{line}: ")
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["banana", "0x100000000", "-1", "1_0"])
@pytest.mark.parametrize("kind", ["mbr", "gpt"])
def test_a_signature_that_is_none_has_its_place(text: str, kind: str) -> None:
    refused(
        disk(f"disk-signature = {text} partition-table-type = {kind}"),
        "disk-signature: expected a number of 32 bits",
        4,
    )


def test_signatures() -> None:
    for text, found in (("0x12", "00000012"), ("4294967295", "ffffffff"), ("random", None)):
        assert read(disk(f"disk-signature = {text}")).disk.get("disk-id") == found
    assert "disk-id" not in read(disk()).disk
    assert "disk-id" not in read(disk("disk-signature = 1 partition-table-type = gpt")).disk
