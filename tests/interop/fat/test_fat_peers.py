"""fsck.fat and mtools read what we plan, we read what mkfs.fat and mtools write, and verdicts on damage agree."""

import os
import random
import re

import pytest
from hypothesis import HealthCheck, given, settings

from blockwright.device.memory import MemoryDevice
from blockwright.errors import FormatError
from blockwright.fs.fat import check, read
from blockwright.fs.fat.device import open_plan
from blockwright.fs.fat.names import fold
from blockwright.fs.fat.plan import FatOptions, plan
from blockwright.tree import Directory, File
from blockwright.units import GiB, MiB
from tests.support.disks import save
from tests.support.fatvolumes import damage, fat_trees, fields, planned, sample, with_mtools
from tests.support.tools import run, tool
from tests.support.trees import PatternContent, content_bytes

ENV = {"MTOOLS_SKIP_CHECK": "1", "TZ": "UTC"}

SHAPES = [
    {"bits": 12},
    {"bits": 12, "label": "TWELVE", "size": 3 * MiB},
    {"bits": 12, "sector_size": 4096},
    *({"size": size * 1024, "label": "FLOPPY"} for size in (360, 720, 1200, 1440, 2880)),
    {"bits": 16},
    {"bits": 16, "label": "SIXTEEN"},
    {"bits": 32},
    {"bits": 32, "sector_size": 4096},
    {"bits": 32, "sector_size": 1024, "label": "ESP"},
    {"bits": 16, "sector_size": 2048},
    {"sector_size": 4096},
    {"size": 64 * MiB, "label": "A B C"},
    {"size": 300 * MiB},
    {"size": 1 * GiB, "bits": 16},
    {"size": 200 * GiB},
    {"free": 0.4},
]


def complaints(path):
    """What fsck.fat -n says that is not praise; empty for a clean volume."""
    done = run([tool("fsck.fat"), "-n", path], ok=range(-32, 17))
    text = done.stdout + done.stderr
    lines = [line for line in text.splitlines()[1:] if line.strip()]
    lines = [line for line in lines if not re.search(r" files, [0-9]+/[0-9]+ clusters$|uninitialized", line)]
    return text if done.returncode or lines else ""


def to_host(path, folder):
    """Copy a volume's tree to an empty directory with mcopy; return it as {path: bytes or None} and times."""
    folder.mkdir()
    run([tool("mcopy"), "-s", "-n", "-m", "-i", path, "::", folder], env=ENV)
    found, times = {}, {}
    for where, folders, files in os.walk(os.fsencode(folder)):
        relative = os.path.relpath(where, os.fsencode(folder))
        for name in folders:
            found[os.path.normpath(os.path.join(relative, name))] = None
        for name in files:
            whole = os.path.join(where, name)
            inner = os.path.normpath(os.path.join(relative, name))
            with open(whole, "rb") as handle:
                found[inner] = handle.read()
            times[inner] = os.stat(whole).st_mtime_ns
    return found, times


def shown_by_mtools(found):
    """The paths as mtools writes them to the host: two underscores for what UTF-16 needs two units for."""
    return {re.sub("[^\0-\uffff]", "__", path.decode()).encode(): data for path, data in found.items()}


def folded(found):
    """The paths in upper case: mtools 4.0.32 does not lower letters beyond ASCII that have the case bit."""
    return {fold(path.decode()): data for path, data in found.items()}


def flat(tree, prefix=b""):
    """A tree as {path: bytes or None}."""
    found = {}
    for name, node in tree.entries.items():
        if isinstance(node, Directory):
            found[prefix + name] = None
            found.update(flat(node, prefix + name + b"/"))
        else:
            found[prefix + name] = content_bytes(node.content)
    return found


@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_fsck_and_mtools_are_content(tmp_path, options):
    tree = sample()
    path = tmp_path / "volume.img"
    save(open_plan(plan(tree, FatOptions(seed=b"x", **options))), path)
    assert complaints(path) == ""
    found, times = to_host(path, tmp_path / "host")
    assert found == shown_by_mtools(flat(tree))
    assert set(times.values()) == {1_600_000_000 * 10**9}
    shown = run([tool("mdir"), "-i", path, "::"], env=ENV).stdout
    assert f"Volume in drive : is {options['label']}" in shown if "label" in options else "has no label" in shown


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fat_trees())
def test_fsck_and_mtools_are_content_with_any_tree(tmp_path_factory, tree):
    folder = tmp_path_factory.mktemp("volume")
    path = folder / "volume.img"
    save(open_plan(plan(tree, FatOptions(seed=b"x"))), path)
    assert complaints(path) == ""
    assert to_host(path, folder / "host")[0] == shown_by_mtools(flat(tree))
    path.unlink()


def test_a_directory_of_many_long_names(tmp_path):
    names = Directory(entries={f"the same beginning {number}".encode(): File() for number in range(20000)})
    path = tmp_path / "volume.img"
    save(open_plan(plan(Directory(entries={b"full": names}), FatOptions())), path)
    assert complaints(path) == ""


def test_a_file_of_almost_4_gib(tmp_path):
    # Past this fsck.fat counts the bytes of a chain in 32 bits and comes to 0; readers have no such limit.
    size = (1 << 32) - 4097
    content = PatternContent(size, runs=[(0, 4096), (size - 4095, 4095)])
    path = tmp_path / "volume.img"
    save(open_plan(plan(Directory(entries={b"large": File(content=content)}), FatOptions())), path)
    assert complaints(path) == ""
    assert path.stat().st_blocks * 512 < 64 * MiB


# -- theirs --------------------------------------------------------------------------------------------------------

MADE = [
    (12, 2 * MiB, ()),
    (12, 1440 * 1024, ()),
    (16, 20 * MiB, ()),
    (16, 20 * MiB, ("-s", "1")),
    (16, 300 * MiB, ("-f", "1")),
    (32, 40 * MiB, ()),
    (32, 40 * MiB, ("-s", "1", "-R", "100", "-b", "50")),
    (32, 300 * MiB, ("-S", "4096")),
    (32, 36 * MiB, ("-a",)),
]


@pytest.mark.parametrize(("bits", "size", "options"), MADE, ids=str)
def test_we_read_what_mtools_wrote(tmp_path, bits, size, options):
    device = with_mtools(tmp_path / "volume.img", bits, size, *options)
    assert check.check(device) == []
    found, _ = to_host(tmp_path / "volume.img", tmp_path / "host")
    with read.open(device) as fs:
        assert (fs.kind, fs.label, fs.uuid) == (f"fat{bits}", "MTOOLS", "1234-ABCD")
        assert folded(flat(fs.tree())) == folded(found)
        assert fs.stat("/A DIRECTORY/SUB/HÉLLO.TXT".encode()).size == 3000
        shown = run([tool("mdir"), "-i", tmp_path / "volume.img", "::"], env=ENV).stdout
        free = re.search(r"^ *([0-9 ]+) bytes free", shown, re.MULTILINE)
        assert int(free[1].replace(" ", "")) == fs.usage().free


def test_our_volume_can_be_changed_by_mtools(tmp_path):
    path = tmp_path / "volume.img"
    save(planned(bits=32, label="OURS"), path)
    run([tool("mmd"), "-i", path, "::/new directory"], env=ENV)
    run([tool("mcopy"), "-i", path, "::/README", tmp_path / "README"], env=ENV)
    run([tool("mcopy"), "-i", path, tmp_path / "README", "::/new directory/copy"], env=ENV)
    run([tool("mdeltree"), "-i", path, "::/EFI"], env=ENV)
    assert complaints(path) == ""
    device = MemoryDevice(content=path.read_bytes())
    assert check.check(device) == []
    with read.open(device) as fs:
        assert fs.open(b"/new directory/copy").read(0, 512) == fs.open(b"/README").read(0, 512)
        assert fs.find(fs.root_inode, b"EFI") is None


# -- damage --------------------------------------------------------------------------------------------------------

STRICTER = {
    "bs_jmp_boot": "fatgen103 allows two forms of jump; fsck.fat does not look",
    "signature": "a boot sector without 55 AA is none; fsck.fat does not look",
    "bpb_media": "fatgen103 allows F0 and F8 to FF; fsck.fat does not look",
    "dir_attr": "Linux does not show a file with the volume bit, so its content is lost; fsck.fat sees a file",
    "ldir_ord": "Linux drops a long name whose order has bits 5 or 7; fsck.fat masks them",
    "bpb_tot_sec16": "a size that ends behind the device; fsck.fat looks for the last cluster only",
    "bpb_tot_sec32": "the same",
}
"""Fields where we see damage and fsck.fat -n may not. There is none the other way round."""

BASES = {
    "ours-16": lambda folder: planned(bits=16, label="X"),
    "ours-32": lambda folder: planned(bits=32, label="LABEL"),
    "ours-32-4k": lambda folder: planned(bits=32, sector_size=4096),
    "theirs-12": lambda folder: with_mtools(folder / "base.img", 12, 2 * MiB),
    "theirs-16": lambda folder: with_mtools(folder / "base.img", 16, 20 * MiB),
    "theirs-32": lambda folder: with_mtools(folder / "base.img", 32, 34 * MiB, "-s", "1"),
}


def verdict(device):
    try:
        return [str(finding) for finding in check.check(device)]
    except FormatError as error:
        return [str(error)]


def compare(base, seed, count, folder):
    """Damage one field `count` times; return how many of the volumes fsck.fat found broken."""
    device = BASES[base](folder)
    path = folder / "volume.img"
    save(device, path)
    places = fields(device)
    broken = 0
    with path.open("r+b", buffering=0) as file:
        for number in range(count):
            name, position, before, after = damage(device, places, random.Random(f"{seed}.{base}.{number}"))
            os.pwrite(file.fileno(), after, position)
            ours, theirs = verdict(device), complaints(path)
            where = f"mutation {seed}.{base}.{number}: {name} at {position}, {before.hex()} to {after.hex()}: {ours}"
            assert ours or not theirs, f"{where}\n{theirs}"
            assert theirs or not ours or name in STRICTER, where
            broken += bool(theirs)
            device.write(position, before)
            os.pwrite(file.fileno(), before, position)
    return broken


@pytest.mark.parametrize("base", BASES)
@pytest.mark.slow
def test_verdicts_on_damage_are_fscks(tmp_path, base):
    assert compare(base, 1, 60, tmp_path) > 20


@pytest.mark.soak
@pytest.mark.parametrize("base", BASES)
def test_verdicts_on_a_thousand_damages_are_fscks(tmp_path, base):
    assert compare(base, 2, 1000, tmp_path) > 400
