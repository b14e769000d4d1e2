from pathlib import Path

import pytest

from blockwright.address import Address, parse_address, part_name
from blockwright.errors import FormatError, NotFound, NotThisFormat, OutOfRange, Unsupported, UsageError
from blockwright.resolve import locate, open_device, open_file_system


def test_paths_parts_and_schemes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_address("disk.img") == Address("file", "disk.img")
    assert parse_address("disk.img:2") == Address("file", "disk.img", 2)
    assert parse_address("file:disk.img:2") == Address("file", "disk.img", 2)
    assert parse_address("a:b:3,4") == Address("file", "a:b", None, 3, 4)
    assert parse_address("disk.img:34s,1s") == Address("file", "disk.img", None, 34 * 512, 512)
    assert parse_address("disk.img:1M,2GiB") == Address("file", "disk.img", None, 1 << 20, 2 << 30)
    assert parse_address("volume:p/a:1k,4KB") == Address("volume", "p/a", None, 1024, 4000)
    assert parse_address("disk.img:1M,2X") == Address("file", "disk.img:1M,2X")
    assert parse_address("disk.img", partition=3) == Address("file", "disk.img", 3)
    assert parse_address("mem:1T") == Address("mem", "1T")
    assert str(parse_address("disk.img:2")) == "disk.img:2"
    assert str(parse_address("disk.img:512,1024")) == "disk.img:512,1024"


def test_exports_and_their_parts() -> None:
    assert parse_address("nbd://host/x") == Address("nbd", "nbd://host/x")
    assert parse_address("nbd+unix:///?socket=/run/x#2") == Address("nbd", "nbd+unix:///?socket=/run/x", 2)
    assert parse_address("nbds://h/x:1#start=1M,size=34s") == Address("nbd", "nbds://h/x:1", None, 1 << 20, 34 * 512)
    assert parse_address("nbd://host/x", partition=3) == Address("nbd", "nbd://host/x", 3)
    assert str(parse_address("nbd://host/x#2")) == "nbd://host/x#2"
    assert str(parse_address("nbd://host/x#start=1k,size=1k")) == "nbd://host/x#start=1024,size=1024"
    assert (part_name("nbd://host/x", 2), part_name("disk.img", 2)) == ("nbd://host/x#2", "disk.img:2")
    with pytest.raises(UsageError, match="the part once"):
        parse_address("nbd://host/x#2", partition=3)


@pytest.mark.parametrize(
    "text",
    ["ftp://host/x", "nbd://host/x#0", "nbd://host/x#one", "nbd://host/x#start=1", "disk.img:0", "file:"],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_address(text)


def test_a_file_of_the_whole_name_wins_and_doubt_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("disk.img:1").write_bytes(b"x")
    assert parse_address("disk.img:1") == Address("file", "disk.img:1")
    Path("disk.img").write_bytes(b"y")
    with pytest.raises(UsageError, match=r"disk\.img:1 or a part of disk\.img"):
        parse_address("disk.img:1")
    assert parse_address("disk.img:1", partition=2) == Address("file", "disk.img:1", 2)
    Path("mem:1G").write_bytes(b"z")
    assert parse_address("mem:1G") == Address("file", "mem:1G")


def test_snapshots_are_addressed_behind_everything_else():
    for text, address in (
        ("disk.qcow2#snapshot=a", Address("file", "disk.qcow2", snapshot="a")),
        ("file:disk.qcow2#snapshot=a: b#c", Address("file", "disk.qcow2", snapshot="a: b#c")),
        ("disk.qcow2:2#snapshot=a:3", Address("file", "disk.qcow2", 2, snapshot="a:3")),
        ("disk.qcow2:512,1024#snapshot=a", Address("file", "disk.qcow2", None, 512, 1024, snapshot="a")),
        ("s3://b/disk.qcow2#snapshot=a,b", Address("store", "s3://b/disk.qcow2", snapshot="a,b")),
        ("s3://b/disk.qcow2#2,snapshot=a", Address("store", "s3://b/disk.qcow2", 2, snapshot="a")),
        (
            "s3://b/d#start=512,size=1024,snapshot=a",
            Address("store", "s3://b/d", None, 512, 1024, snapshot="a"),
        ),
    ):
        assert parse_address(text) == address
        assert str(address) == text.removeprefix("file:")
    assert parse_address("disk.qcow2#snapshot=a", partition=3) == Address("file", "disk.qcow2", 3, snapshot="a")
    assert parse_address("#snapshot=a") == Address("file", "#snapshot=a")
    assert part_name("disk.qcow2#snapshot=a", 2) == "disk.qcow2:2#snapshot=a"
    assert part_name("s3://b/d#snapshot=a", 2) == "s3://b/d#2,snapshot=a"
    for text in (
        "disk.qcow2#snapshot=",
        "s3://b/d#snapshot=",
        "nbd://host/x#snapshot=a",
        "nbd://host/x#2,snapshot=a",
    ):
        with pytest.raises(UsageError, match="expected the name of a snapshot"):
            parse_address(text)


def test_a_file_whose_name_looks_like_a_snapshot(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk#snapshot=a").write_bytes(b"x")
    assert parse_address("disk#snapshot=a") == Address("file", "disk#snapshot=a")
    assert part_name("disk#snapshot=a", 2) == "disk#snapshot=a:2"
    (tmp_path / "disk").write_bytes(b"x")
    with pytest.raises(UsageError, match="could be the file disk#snapshot=a or a snapshot of disk"):
        parse_address("disk#snapshot=a")


def test_devices(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(bytes(range(256)) * 16)
    with open_device(f"{path}:512,1024") as part:
        assert part.size == 1024
        assert part.read(0, 4) == bytes(range(4))
    with open_device("mem:1T", writable=True) as memory:
        assert memory.size == 1 << 40
    with open_device("null:4k") as null:
        assert null.read(0, 4096) == bytes(4096)
    with pytest.raises(OutOfRange):
        open_device(f"{path}:4000,1024")
    with pytest.raises(NotFound):
        open_device(str(tmp_path / "nothing"))
    with pytest.raises(UsageError):
        open_device(str(tmp_path))
    with pytest.raises(NotThisFormat) as caught:
        open_device(f"{path}:1")
    assert caught.value.source == str(path)


def test_a_part_of_what_has_no_table_names_the_whole() -> None:
    with pytest.raises(FormatError, match=r"^mem:1M: expected a partition table, found none"):
        open_device("mem:1M", partition=1)


def test_a_range_outside_names_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(4096))
    with pytest.raises(OutOfRange, match=r"disk: expected a range within its 4096 bytes, found 512 bytes at 4096$"):
        open_device(f"{path}:4096,512")


def test_what_is_no_file_system_says_so(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(bytes(1 << 16))
    with open_device(str(path)) as device, pytest.raises(NotThisFormat, match="raw"):
        open_file_system(device, source=str(path))


def test_the_kernel_gets_no_image_that_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(b"QFI\xfb" + bytes(5000))
    for text in (str(path), f"{path}:512,1024", f"{path}:1"):
        with pytest.raises(Unsupported, match="found qcow2"):
            locate(text)
    path.write_bytes(bytes(5000))
    assert locate(str(path)).path == str(path)
