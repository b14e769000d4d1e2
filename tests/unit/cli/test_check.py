"""What check says of what it cannot read or mend."""

from collections import Counter
from pathlib import Path

import pytest

from blockwright import check as checking
from blockwright.cli.check import SHOWN
from blockwright.device.file import FileDevice
from blockwright.finding import Finding
from tests.support.command import blockwright
from tests.support.inprocess import blockwright as inprocess
from tests.support.inprocess import document

pytestmark = pytest.mark.unprivileged


@pytest.fixture
def image(tmp_path: Path) -> Path:
    blockwright("disk", "create", tmp_path / "disk.qcow2", "4M")
    return tmp_path / "disk.qcow2"


def test_what_is_not_mended_is_told_with_its_place_once(image: Path) -> None:
    with image.open("r+b") as file:
        file.seek(int.from_bytes(file.read(56)[48:56], "big"))  # the offset of the table of refcounts
        file.write(b"x" * 8)
    done = blockwright("check", "--repair", image, code=1)
    assert b"only refcounts can be mended, found qcow2." in done.stderr
    assert done.stderr.count(b"(byte ") == 1


def test_an_image_that_is_not_read_is_named(image: Path) -> None:
    with image.open("r+b") as file:
        file.seek(32)  # crypt_method
        file.write(b"\0\0\0\2")
    done = blockwright("check", image, code=1)
    assert done.stderr.decode().startswith(f"blockwright: {image}: qcow2: is encrypted with LUKS")


def test_what_repeats_is_told_a_few_times_and_counted(tmp_path: Path) -> None:
    """A FAT in which many files have the same cluster: the text is short, the document whole."""
    image, source = tmp_path / "fat.img", tmp_path / "source"
    source.mkdir()
    for number in range(30):
        (source / f"F{number:02}.TXT").write_bytes(b"x")
    inprocess("fs", "mkfs", image, "--type", "fat", "--fat-bits", "16", "--size", "8M", "--source", source)
    data = bytearray(image.read_bytes())
    first = data.index(b"F00     TXT") + 26
    for number in range(1, 30):
        at = data.index(b"F%02d     TXT" % number) + 26
        data[at : at + 2] = data[first : first + 2]
    image.write_bytes(data)
    (place,) = document("check", image, code=3)["places"]
    rules = Counter(each["rule"] for each in place["findings"])
    assert max(rules.values()) > SHOWN
    assert place["more"] == 0
    lines = inprocess("check", image, code=3).stdout.decode().splitlines()
    for rule, count in rules.items():
        shown = [line for line in lines if line.startswith(f"{image}: {place['kind']}: {rule}: ")]
        told = f"{image}: {place['kind']}: {rule}: {count - SHOWN} more"
        assert (told in shown) == (count > SHOWN)
        assert len(shown) == min(count, SHOWN + 1)
    assert lines[: len(lines) - len([each for each in rules.values() if each > SHOWN])] == [
        line for line in lines if not line.endswith(" more")
    ]


def test_what_is_kept_of_an_image_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of many partitions, all of them the same damaged file system, as a hostile one may have."""
    monkeypatch.setattr(checking, "MAX_FINDINGS", 12)
    monkeypatch.setattr(checking, "check_fat", lambda _device: [Finding("fat.rule", str(each)) for each in range(10)])
    image = tmp_path / "disk.img"
    inprocess("disk", "create", image, "40M", "--table", "gpt")
    for _ in range(4):
        inprocess("disk", "add", image, "--size", "4M")
    for number in range(1, 5):
        inprocess("fs", "mkfs", f"{image}:{number}", "--type", "fat")
    found = document("check", image, code=3)["places"]
    assert [(len(each["findings"]), each["more"]) for each in found] == [(0, 0), (10, 0), (2, 8), (1, 9), (1, 9)]
    with FileDevice(image) as device:
        assert [each.more for each in checking.check(device, source="disk")] == [0, 0, 8, 9, 9]
    said = inprocess("check", image, code=3).stdout.decode().splitlines()
    assert said[-1].startswith(f"{image}:4: fat: 9 more findings, which are past the ")
