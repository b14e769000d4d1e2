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


def test_a_list_that_goes_on() -> None:
    vfat = 'files = { "a", b }\nfiles += { c }\nfiles+={d}\nfiles += "e"\nother-is = 1'
    text = disk(partitions="partition p { image = i }", beside=f"image i {{ vfat {{ {vfat} }} size = 1M }}")
    refused(text, "other-is: is not known in vfat", 5)
    (made,) = read(text.replace("other-is = 1", "")).partitions
    assert made.files == tuple((f"/where/input/{name}", f"/{name}") for name in "abcde")
    assert read(text.replace("other-is = 1", "files = x+y")).partitions[0].files == (("/where/input/x+y", "/x+y"),)


@pytest.mark.timeout(10)
def test_a_list_that_goes_on_and_on() -> None:
    """Each addition copied the list once."""
    vfat = f"files = {{ {'x ' * 200_000} }}" + "files += y " * 90_000
    text = disk(partitions="partition p { image = i }", beside=f"image i {{ vfat {{ {vfat} }} size = 1M }}")
    assert len(read_genimage(text, "x").partitions[0].files) == 290_000


@pytest.mark.timeout(10)
def test_files_are_many_where_images_are() -> None:
    """Each partition looked through all images for a file's name."""
    images = "".join(f"image i{number} {{}}\n" for number in range(18_000))
    partitions = f"partition p {{ image = {__file__} }}\n" * 18_000
    assert len(read_genimage(disk(partitions=partitions, beside=images), "x").partitions) == 18_000


def test_a_partition_is_no_smaller_than_its_image() -> None:
    def one(size: str, partition: str, disk_size: str = "size = 64M"):
        beside = f"image i {{ ext4 {{}} size = {size} }}"
        return disk(partitions=f"partition p {{\nimage = i {partition} }}", beside=beside, inside=disk_size)

    assert read(one("8M", "")).partitions[0].size == 8 << 20
    assert read(one("8M", "size = 8M")).partitions[0].size == 8 << 20
    assert read(one("8M", "size = 9M")).partitions[0].size == 9 << 20
    refused(one("8M", "size = 7M"), "partition p: expected a size of at least the 8388608 bytes of its image", 5)
    for partition, least in (("", 8), ("size = 7M", 8), ("size = 9M", 9)):
        (made,) = read(one("8M", f"autoresize = true {partition}")).partitions
        assert (made.rest, made.size, made.minimum) == (True, None, least << 20)
    assert read(one("200%", "")).partitions[0].free == 0.5
    for partition in ("size = 7M", "autoresize = true"):
        assert read(one("200%", partition)).partitions[0].free == 0


def test_sections_and_files_are_only_so_deep(tmp_path) -> None:
    path = tmp_path / "board.cfg"
    path.write_text('include("board.cfg")')
    with pytest.raises(
        FormatError, match=r"board.cfg: expected sections and files that include others at most 8 deep, found more"
    ):
        read_genimage(path.read_text(), str(path))
    (tmp_path / "empty").write_text("")
    for number, fits in ((64, True), (65, False)):
        text = disk(beside='include("empty")\n' * number)
        if fits:
            assert read(text, str(path)).partitions
        else:
            with pytest.raises(FormatError, match="include: expected at most 64 files, found more"):
                read(text, str(path))
