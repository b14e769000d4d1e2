"""Editing in place against a tree value: sequences that hypothesis makes smaller, and turns with the kernel."""

import os
import random
import shutil
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockwright.device.file import FileDevice
from blockwright.fs.ext4 import read
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.tree.node import Directory
from blockwright.units import MiB
from tests.support.e2fs import mke2fs
from tests.support.ext4 import write_plan
from tests.support.ext4_edit import judge, open_editor
from tests.support.fsedits import RandomEdits, loaded
from tests.support.mounting import mounted

CHANGES = ("put", "tree", "remove", "move", "link", "rewrite", "patch", "truncate", "attributes", "xattr")
CHANGE = st.tuples(st.sampled_from(CHANGES), st.integers(0, 1 << 16))
SETS = {
    "ext2": ("8M", "-t", "ext2", "-b", "1024"),
    "ext3": ("16M", "-t", "ext3", "-b", "1024", "-J", "size=1"),
    "ext4": ("8M", "-t", "ext4", "-b", "1024", "-J", "size=1"),
    "inline": ("8M", "-t", "ext4", "-b", "1024", "-J", "size=1", "-O", "inline_data,ea_inode"),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    made = {name: mke2fs(folder / name, *arguments) for name, arguments in SETS.items()}
    made["ours"] = write_plan(plan(Directory(), Ext4Options(size=16 * MiB)), folder / "ours")
    return made


@pytest.mark.parametrize("name", [*SETS, "ours"])
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(0, 1 << 16)), max_size=12), min_size=1, max_size=3
    )
)
def test_any_sequence(images, name, tmp_path, commits):
    image = tmp_path / "image"
    shutil.copyfile(images[name], image)
    edits = RandomEdits(0, Directory())
    for changes in commits:
        with open_editor(image) as editor:
            for change, seed in changes:
                edits.rng = random.Random(seed)
                edits.step(editor, change)
        judge(image, edits.root, edits.log)


def kernel_edits(at: Path, rng: random.Random) -> None:
    """Make changes through a mount."""
    for turn in range(12):
        folders = [Path(place) for place, _, _ in os.walk(at) if "lost+found" not in place]
        files = [Path(place, name) for place, _, names in os.walk(at) for name in names]
        files = [file for file in files if stat.S_ISREG(file.lstat().st_mode)]
        folder = rng.choice(folders)
        name = f"k{rng.randrange(1 << 30)}"
        choice = rng.randrange(6)
        if choice == 0:
            for index in range(30):
                (folder / f"{name}-{index}").write_bytes(rng.randbytes(rng.randrange(3000)))
        elif choice == 1:
            (folder / name).mkdir()
        elif choice == 2 and files:
            rng.choice(files).unlink()
        elif choice == 3 and files:
            file = rng.choice(files)
            os.truncate(file, rng.randrange(50_000))
        elif choice == 4 and files:
            with rng.choice(files).open("r+b") as opened:
                opened.seek(rng.randrange(100_000))
                opened.write(rng.randbytes(5000))
        elif files:
            os.setxattr(rng.choice(files), f"user.k{turn}", rng.randbytes(rng.randrange(300)))


@pytest.mark.parametrize("name", [*SETS, "ours"])
def test_turns_with_the_kernel(images, name, tmp_path):
    image = tmp_path / "image"
    shutil.copyfile(images[name], image)
    rng = random.Random(5)
    edits = RandomEdits(3, Directory())
    for _ in range(4):
        with mounted(image, tmp_path / "mnt", "rw") as at:
            kernel_edits(at, rng)
        with read.open(FileDevice(image)) as files:
            edits.root = loaded(files.tree())
        with open_editor(image) as editor:
            for _ in range(25):
                edits.step(editor)
        judge(image, edits.root, edits.log)
        with mounted(image, tmp_path / "mnt") as at:
            assert sorted(os.listdir(at)) == sorted(os.fsdecode(each) for each in edits.root.entries)
