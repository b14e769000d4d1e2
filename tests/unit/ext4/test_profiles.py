"""The table of old kernels and loaders, and what a file system is made without for their sake."""

import re
from itertools import combinations
from pathlib import Path

import pytest

from blockwright.errors import UsageError
from blockwright.fs.ext4.layout import Incompat, RoCompat
from blockwright.fs.ext4.options import Ext4Options, Features
from blockwright.fs.ext4.plan import plan
from blockwright.fs.ext4.profiles import READERS, TYPES, Profile, profile
from blockwright.tree.node import Directory, File
from blockwright.units import MiB

DOCUMENT = Path(__file__).parents[3] / "docs" / "ext4.md"


def options_of(chosen: Profile, **others: object) -> Ext4Options:
    return Ext4Options(
        features=chosen.features,
        inode_size=chosen.inode_size,
        large_dir=chosen.large_dir,
        **others,  # type: ignore[arg-type]  # whatever the test asks for
    )


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("names", [(), *((name,) for name in READERS), *combinations(READERS, 2)])
def test_nothing_is_in_it_that_a_reader_does_not_know(kind, names):
    chosen = profile(kind, names)
    summary = plan(Directory(), options_of(chosen, size=16 * MiB)).summary
    assert set(summary.features) == set(chosen.features.names)
    for name in names:
        reader = READERS[name]
        features = chosen.features
        assert not features.incompat & ~reader.incompat
        assert not features.ro_compat & ~reader.ro_compat
        assert not features.compat & reader.without
        assert chosen.inode_size <= reader.inode_size
        assert not chosen.large_dir or Incompat.large_dir in reader.incompat


def test_what_is_left_out_for_each():
    def lost(*names: str) -> set[str]:
        return set(TYPES["ext4"].names) - set(profile("ext4", names).features.names)

    old = {"extent", "64bit", "flex_bg"}
    sums = {"metadata_csum"}
    assert lost("linux-2.6.18") == old | sums | {"huge_file", "dir_nlink", "extra_isize"}
    assert lost("linux-2.6.32") == lost("linux-3.10") == sums
    assert lost("linux-4.12") == lost("grub-2.00") == lost("syslinux-6.04") == set()
    assert lost("syslinux-6.03") == {"64bit"}
    assert lost("grub-0.97") == old | {"extra_isize"}
    assert lost("u-boot-write") == sums | {"dir_index"}
    assert lost("syslinux-6.03", "linux-3.10") == sums | {"64bit"}


def test_groups_are_summed_by_whoever_knows_how():
    assert RoCompat.uninit_bg in profile("ext4", ["linux-2.6.32"]).features.ro_compat
    assert RoCompat.uninit_bg not in profile("ext4", ["linux-2.6.18"]).features.ro_compat
    assert RoCompat.uninit_bg not in profile("ext3").features.ro_compat


def test_large_dir_only_where_it_is_known():
    assert profile().large_dir
    assert profile("ext4", ["syslinux-6.04"]).large_dir
    assert not profile("ext4", ["linux-4.12"]).large_dir
    assert not profile("ext3").large_dir


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("ext5",), "expected ext2, ext3, ext4, found 'ext5'"),
        (("ext4", ["windows"]), "expected one of linux-2.6.18, .*found 'windows'"),
        (("ext4", ["grub-0.97"], 256), "at most 128 bytes, found 256"),
    ],
)
def test_refused(arguments, told):
    with pytest.raises(UsageError, match=told):
        profile(*arguments)


def test_old_limits_of_links():
    many = Directory(entries={b"d%05d" % i: Directory() for i in range(31_999)})
    with pytest.raises(UsageError, match="at most 31998 directories in it without dir_nlink, found 31999"):
        plan(many, options_of(profile("ext3"), lost_found=False))
    file = File()
    names = Directory(entries={b"n%05d" % i: file for i in range(32_001)})
    with pytest.raises(UsageError, match="at most 32000 links, found 32001"):
        plan(names, options_of(profile("ext2")))


def test_a_directory_too_large_for_two_levels_is_refused_with_the_limit():
    files: dict[bytes, Directory | File] = {(b"%07d" % i).rjust(255, b"n"): File() for i in range(46_800)}
    tree = Directory(entries={b"d": Directory(entries=files)})
    with pytest.raises(UsageError, match="/d: directory: expected at most 15498 blocks of names without large_dir"):
        plan(tree, options_of(profile("ext4", ["linux-4.12"]), block_size=1024))


def test_a_value_that_does_not_fit_is_named():
    tree = Directory(entries={b"f": File(xattrs={b"user.small": b"s", b"user.large": bytes(5000)})})
    with pytest.raises(UsageError, match=r"/f: extended .* at most one block of 4096 .*user\.large"):
        plan(tree, Ext4Options())


def test_attributes_go_where_the_driver_of_ext2_looks():
    tree = Directory(entries={b"f": File(xattrs={b"user.a": b"b"})})
    used = [plan(tree, options_of(profile(kind), size=8 * MiB, journal=0)).summary for kind in ("ext2", "ext3")]
    assert used[0].free_blocks == used[1].free_blocks - 1


def test_features_beyond_the_table_are_refused():
    with pytest.raises(UsageError, match="expected extent with 64bit"):
        Ext4Options(features=Features(incompat=Incompat.filetype | Incompat.bit64))


def test_the_table_in_the_documentation():
    rows = re.findall(r"^\| `([a-z0-9.-]+)` \| ([^|]*) \| ([^|]*) \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert [name for name, *_ in rows] == list(READERS)
    for name, without, source in rows:
        chosen = profile("ext4", [name])
        lost = [each for each in TYPES["ext4"].names if each not in chosen.features.names]
        lost += [] if chosen.large_dir else ["large_dir"]
        lost += ["inodes of 256 bytes"] if chosen.inode_size == 128 else []
        assert without == (", ".join(lost) or "nothing")
        assert source == READERS[name].source
