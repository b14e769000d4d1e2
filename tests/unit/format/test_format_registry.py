import subprocess
import sys

import pytest

from blockwright.errors import UsageError
from blockwright.format.output import ImageOptions
from blockwright.format.probe import HEAD, look
from blockwright.format.registry import FORMATS, MADE, NAMES, format_by_name, format_named, own_options


def test_each_format_has_its_own_driver_marks_and_suffixes():
    assert [each.load().name for each in FORMATS] == list(NAMES)
    assert set(MADE) <= set(NAMES)
    for each in FORMATS:
        for offset, mark in each.marks:
            assert offset + len(mark) <= HEAD
            assert look(bytes(offset) + mark + bytes(HEAD)) == each.name
        for suffix in each.suffixes:
            assert format_by_name(f"a/DISK{suffix.upper()}") == each.name
    assert format_by_name("disk.img") == format_by_name("qcow2") == "raw"


@pytest.mark.parametrize(
    "name", ["a.img.xz", "a.BZ2", "a.tar", "a.tgz", "a.tar.gz", "a.qcow2.gz", "a.vmdk.zst", "a.qed"]
)
def test_a_name_of_what_is_never_written_stands_for_no_disk(name):
    with pytest.raises(UsageError, match=r"^a.*: no \..* file is written: expected another suffix, or --format"):
        format_by_name(name)


@pytest.mark.parametrize("name", ["a.img.gz", "a.ZST", "xz", "a.xz.img", "a.qcow2.old", "tar/a"])
def test_other_names_stand_for_a_raw_disk(name):
    assert format_by_name(name) == "raw"


def test_options_of_another_format_are_refused():
    with pytest.raises(UsageError, match="--cluster-size: is no option of the format raw"):
        own_options("raw", {"cluster_size": "64k"}, "x")
    with pytest.raises(UsageError, match="level: expected a number, found 'high'"):
        own_options("qcow2", {"level": "high"}, "x")
    with pytest.raises(UsageError, match="format: expected raw or qcow2"):
        format_named("qed")
    with pytest.raises(UsageError, match="format: expected raw or qcow2"):
        ImageOptions("qed").check()


def test_no_format_is_imported_before_it_is_used():
    program = (
        "import sys, blockwright.cli.options, blockwright.cli.convert, blockwright.resolve\n"
        "print([name for name in sys.modules if name.count('.') > 2 and name.startswith('blockwright.format.')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
