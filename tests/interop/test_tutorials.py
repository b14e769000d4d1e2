"""The tutorials, word for word."""

import re
import shutil
from pathlib import Path

import pytest

from tests.support.loaders import debian_loaders
from tests.support.sessions import pattern, play, sessions
from tests.support.smallroot import debian_kernel
from tests.support.tools import package_file, tool

pytestmark = pytest.mark.unprivileged

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """What a reader has who did as the pages say: busybox, a kernel and a loader."""
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs/busybox").symlink_to(package_file("bin/busybox", package="busybox-static"))
    return tmp_path


def test_from_nothing_to_a_disk(place: Path) -> None:
    shutil.copy(debian_kernel(), place / "vmlinuz")
    loaders = debian_loaders(place / "loaders", "systemd-bootx64.efi")
    shutil.copy(loaders / "systemd-bootx64.efi", place)
    *before, start = sessions((DOCS / "tutorial-disk.md").read_text())
    assert start[0][0].startswith("qemu-system-x86_64")
    play(before, place)


@pytest.mark.ci
def test_from_nothing_to_a_booted_disk(place: Path) -> None:
    tool("qemu-system-x86_64")
    firmware = package_file("usr/share/ovmf/OVMF.fd", package="ovmf")
    page = (DOCS / "tutorial-disk.md").read_text()
    found = sessions(page.replace("/usr/share/ovmf/OVMF.fd", str(firmware)))
    shutil.copy(debian_kernel(), place / "vmlinuz")
    loaders = debian_loaders(place / "loaders", "systemd-bootx64.efi")
    shutil.copy(loaders / "systemd-bootx64.efi", place)
    (command, expected), *_ = found[-1]
    found[-1] = [(f"{command} </dev/null | tr -d '\\r'", re.sub("^hello", "…hello", expected, flags=re.MULTILINE))]
    play([found[0], found[-2], found[-1]], place)


def test_a_first_backend(place: Path) -> None:
    play(sessions((DOCS / "tutorial-backend.md").read_text()), place)


def test_a_volume_from_an_image(place: Path) -> None:
    play(sessions((DOCS / "tutorial-volume.md").read_text()), place)


def test_a_page_that_is_wrong_is_seen(place: Path) -> None:
    assert pattern("a…\n…\nz\n").fullmatch("abc\n1\n2\nz\n")
    assert not pattern("a…\nz\n").fullmatch("abc\n1\nz\n")
    with pytest.raises(AssertionError, match="expected:\nhello"):
        play([[("echo good bye", "hello\n")]], place)
    with pytest.raises(AssertionError, match="exit 1"):
        play([[("false", "")]], place)
