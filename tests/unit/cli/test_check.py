"""What check says of what it cannot read or mend."""

from pathlib import Path

import pytest

from tests.support.command import blockwright

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
