"""Which loop devices are attached, by a tree such as sysfs has."""

import os
import sys
from dataclasses import replace

import pytest

from blockwright.errors import Unavailable
from blockwright.system.linux import loop
from blockwright.system.linux.loop.state import backing_of, sequence_of

pytestmark = pytest.mark.skipif(os.name != "posix" or not os.path.isdir("/sys/block"), reason="needs sysfs")


@pytest.fixture
def block(tmp_path, monkeypatch):
    # By the table of modules, since the package has a function of that name.
    monkeypatch.setattr(sys.modules[backing_of.__module__], "_BLOCK", str(tmp_path / "block"))
    return tmp_path / "block"


def attach(block, name, backing, sequence):
    (block / name / "loop").mkdir(parents=True)
    (block / name / "loop" / "backing_file").write_text(f"{backing}\n")
    (block / name / "diskseq").write_text(f"{sequence}\n")


def test_attached_devices_are_told_in_the_order_of_their_numbers(block):
    for name in ("loop2", "loop10", "loop7", "zram0", "loop"):
        attach(block, name, f"/{name}.img", 7)
    (block / "loop3").mkdir()  # free
    attach(block, "loop4", "", 8)  # on its way out
    found = list(loop.states())
    assert [(each.number, each.backing, each.sequence) for each in found] == [
        (2, "/loop2.img", 7),
        (7, "/loop7.img", 7),
        (10, "/loop10.img", 7),
    ]


def test_what_one_device_stands_on(block):
    attach(block, "loop1", "/a file", 5)
    assert (backing_of(1), sequence_of(1)) == ("/a file", 5)
    (block / "loop3").mkdir()
    assert (backing_of(3), sequence_of(3)) == ("", None)
    assert backing_of(99) == ""


def test_a_kernel_without_such_devices_has_none_attached(block):
    assert list(loop.states()) == []


def test_a_folder_that_cannot_be_read_is_told(block):
    block.write_text("")
    with pytest.raises(Unavailable, match="list: sysfs is not mounted"):
        list(loop.states())


def test_ranges_that_touch_do_not_overlap(block):
    attach(block, "loop0", "/a", "1")
    (found,) = loop.states()
    found = replace(found, offset=4096, size=8192)
    ranges = {
        (0, 4096): False,
        (0, 4097): True,
        (4096, 1): True,
        (12287, 1): True,
        (12288, 4096): False,
        (0, 1 << 40): True,
    }
    assert {each: found.overlaps(*each) for each in ranges} == ranges
