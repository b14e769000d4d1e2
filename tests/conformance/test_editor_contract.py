"""Every editor of file systems does what a tree of dictionaries does, whatever the order of operations.

After each operation `Editor.files` shows the model; after each commit so does a reader of the device, and the file
system's own checker finds nothing. What was not committed is not there.
"""

import os
import random
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from blockwright.device.memory import MemoryDevice
from blockwright.device.window import Window
from blockwright.errors import NoSpace
from blockwright.fs.editor import Attributes, CommitPolicy
from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.fs.fat.names import fold
from blockwright.resolve import open_editor, open_file_system
from blockwright.tree import BytesContent, Directory, Symlink
from blockwright.units import KiB, MiB
from tests.support.disks import memory, save
from tests.support.e2fs import debugfs, mke2fs
from tests.support.editors import Model, ModelDirectory, ModelFile, ModelLink, flat, node_of, refusal_of
from tests.support.fatvolumes import planned, small32
from tests.support.tools import run, tool

pytestmark = pytest.mark.unprivileged


@dataclass(frozen=True)
class Kind:
    """A file system to be edited: how one is made, what checks it, and what it can do."""

    make: object
    check: tuple[str, ...]
    links: bool
    dump: object


def mkfs_fat(bits, size, *options):
    def make(path):
        with path.open("wb") as handle:
            handle.truncate(size)
        run([tool("mkfs.fat"), "-F", str(bits), "-i", "1234abcd", *options, path])
        return MemoryDevice(content=path.read_bytes())

    return make


def emptied(make):
    """A volume of ours, without the sample's files."""

    def emptied_volume(_path):
        device = make()
        with open_editor(Window(device, 0, device.size, owns=False), source="test") as editor:
            for entry in list(editor.files.entries(editor.files.root_inode)):
                editor.rm(entry.name, recursive=True)
        return device

    return emptied_volume


def with_mtools(path, folder):
    """What mcopy finds in a volume: contents, None for a directory, by path in upper case."""
    out = Path(tempfile.mkdtemp(dir=folder))
    run([tool("mcopy"), "-s", "-n", "-Q", "-i", path, "::", out], env={"MTOOLS_SKIP_CHECK": "1"})
    found = {}
    for each in sorted(out.rglob("*")):
        name = fold(os.fsencode(each.relative_to(out)).decode())
        found[name] = each.read_bytes() if each.is_file() else None
    shutil.rmtree(out)
    return found


def mke2fs_of(size, *options):
    def make(path):
        path.unlink(missing_ok=True)
        mke2fs(path, size, *options)
        return MemoryDevice(content=path.read_bytes())

    return make


def planned_ext4(_path):
    return memory(open_plan(plan(Directory(), Ext4Options(size=8 * MiB, seed=b"test"))))


def with_debugfs(path, folder):
    """What debugfs finds in a file system, as `with_mtools` has it; links are left out."""
    out = Path(tempfile.mkdtemp(dir=folder))
    debugfs(path, f"rdump / {out}")
    found = {}
    for each in sorted(out.rglob("*")):
        if not each.is_symlink() and each.name != "lost+found":
            found[str(each.relative_to(out))] = each.read_bytes() if each.is_file() else None
    shutil.rmtree(out)
    return found


E2FSCK = ("e2fsck", "-fn")
FSCK_FAT = ("fsck.fat", "-n")
KINDS = {
    "fat12 of mkfs.fat": Kind(mkfs_fat(12, 400 * KiB, "-s", "1"), FSCK_FAT, False, with_mtools),
    "fat12 with one FAT and a root of 32": Kind(
        mkfs_fat(12, MiB, "-f", "1", "-s", "2", "-r", "32"), FSCK_FAT, False, with_mtools
    ),
    "fat16 of mkfs.fat": Kind(mkfs_fat(16, 3 * MiB, "-s", "1"), FSCK_FAT, False, with_mtools),
    "fat16 of ours, sectors of 1024": Kind(
        emptied(lambda: planned(bits=16, sector_size=1024)), FSCK_FAT, False, with_mtools
    ),
    "fat32 of mkfs.fat": Kind(mkfs_fat(32, 34 * MiB, "-s", "1"), FSCK_FAT, False, with_mtools),
    # mtools takes FAT32 of so few clusters for FAT12.
    "small fat32 of mkfs.fat": Kind(mkfs_fat(32, MiB, "-s", "1"), FSCK_FAT, False, None),
    "small fat32 of ours": Kind(emptied(small32), FSCK_FAT, False, None),
    "ext4 of mke2fs": Kind(mke2fs_of("8M", "-t", "ext4", "-b", "1024"), E2FSCK, True, with_debugfs),
    "ext4 without a journal": Kind(
        mke2fs_of("4M", "-t", "ext4", "-b", "1024", "-O", "^has_journal"), E2FSCK, True, with_debugfs
    ),
    "ext4 with inline data": Kind(
        mke2fs_of("8M", "-t", "ext4", "-b", "4096", "-O", "inline_data"), E2FSCK, True, with_debugfs
    ),
    "ext2": Kind(mke2fs_of("4M", "-t", "ext2", "-b", "1024", "-I", "128"), E2FSCK, True, with_debugfs),
    "ext4 of ours": Kind(planned_ext4, E2FSCK, True, with_debugfs),
}

EXAMPLES = int(os.environ.get("BLOCKWRIGHT_EDITOR_EXAMPLES", "12"))
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
NAMES = st.sampled_from(
    [
        b"a",
        b"B",
        b"A",
        b"c.txt",
        b"C.TXT",
        b"a long name.txt",
        b"A Long Name.TXT",
        "\u00fcn\u00ef".encode(),
        b"Dir",
        b"x" * 60,
    ]
)
SIZES = st.sampled_from([0, 1, 100, 511, 512, 513, 1024, 1500, 5000])
PICK = st.integers(0, 1000)


def data_of(size, seed):
    return random.Random(seed).randbytes(size)


class EditorMachine(RuleBasedStateMachine):
    """The kind, and where files may be made, are set by the test that runs it."""

    kind: Kind
    folder = None
    split: tuple[str, ...] | list[str] = ()

    @initialize()
    def begin(self):
        self.path = self.folder / "volume"
        self.device = self.kind.make(self.path)
        fat = self.kind.check[0] == "fsck.fat"
        self.model = Model(ignores_case=fat, links=self.kind.links)
        self.committed = self.model.copy()
        self.editor = self.open()

    def open(self):
        self.split = []  # reasons why something was committed already
        policy = CommitPolicy(on_split=self.split.append)
        return open_editor(Window(self.device, 0, self.device.size, owns=False), source="test", policy=policy)

    def pick(self, index, *, directory=False):
        """A path that is there, or one that is not where nothing is."""
        paths = self.model.directories() if directory else self.model.paths()
        return paths[index % len(paths)] if paths else b"/none"

    def change(self, change, expected, what):
        """Make a change, expected on a copy of the model to be legal or not; a full file system changes nothing."""
        model = self.model.copy()
        legal = expected(model)
        error = refusal_of(change)
        if isinstance(error, NoSpace):
            return
        assert (error is None) == legal, f"{what}: {error or 'expected a refusal'}"
        if legal:
            self.model = model

    @rule(where=PICK, name=NAMES, size=SIZES, seed=PICK)
    def put_file(self, where, name, size, seed):
        path = self.pick(where, directory=True) + b"/" + name
        node = ModelFile(data_of(size, seed))
        self.change(lambda: self.editor.put(path, node_of(node)), lambda model: model.put(path, node), f"put {path}")

    @rule(where=PICK, name=NAMES, names=st.lists(NAMES, max_size=3), size=SIZES)
    def put_tree(self, where, name, names, size):
        path = self.pick(where, directory=True) + b"/" + name
        node = ModelDirectory()
        for number, child in enumerate(names):
            node.entries[self.model.key(child)] = (child, ModelFile(data_of(size, number)))
        node.entries[self.model.key(b"sub")] = (b"sub", ModelDirectory())
        there = self.model.find(path)[3]
        if isinstance(there, ModelDirectory):
            return  # half of it may be legal
        self.change(lambda: self.editor.put(path, node_of(node)), lambda model: model.put(path, node), f"put {path}")

    @rule(where=PICK, size=SIZES, seed=PICK, offset=st.none() | st.integers(0, 6000))
    def write(self, where, size, seed, offset):
        path, data = self.pick(where), data_of(size, seed)
        self.change(
            lambda: self.editor.write(path, BytesContent(data), offset=offset),
            lambda model: model.write(path, data, offset),
            f"write {path} at {offset}",
        )

    @rule(where=PICK, size=st.integers(0, 6000))
    def truncate(self, where, size):
        path = self.pick(where)
        self.change(
            lambda: self.editor.truncate(path, size), lambda model: model.truncate(path, size), f"truncate {path}"
        )

    @rule(where=PICK, names=st.lists(NAMES, min_size=1, max_size=3), parents=st.booleans())
    def mkdir(self, where, names, parents):
        path = b"/".join([self.pick(where, directory=True), *names])
        self.change(
            lambda: self.editor.mkdir(path, Directory(), parents=parents),
            lambda model: model.mkdir(path, parents=parents),
            f"mkdir {path}",
        )

    @rule(where=PICK, recursive=st.booleans())
    def rm(self, where, recursive):
        path = self.pick(where)
        self.change(
            lambda: self.editor.rm(path, recursive=recursive),
            lambda model: model.rm(path, recursive=recursive),
            f"rm {path}",
        )

    @rule(where=PICK, to=PICK, name=NAMES)
    def mv(self, where, to, name):
        path, target = self.pick(where), self.pick(to, directory=True) + b"/" + name
        self.change(lambda: self.editor.mv(path, target), lambda model: model.mv(path, target), f"mv {path} {target}")

    @rule(where=PICK, to=PICK)
    def mv_onto(self, where, to):
        path, target = self.pick(where), self.pick(to)
        self.change(lambda: self.editor.mv(path, target), lambda model: model.mv(path, target), f"mv {path} {target}")

    @rule(where=PICK, to=PICK, name=NAMES)
    def ln(self, where, to, name):
        path, target = self.pick(where), self.pick(to, directory=True) + b"/" + name
        self.change(lambda: self.editor.ln(path, target), lambda model: model.ln(path, target), f"ln {path} {target}")

    @precondition(lambda self: self.kind.links)
    @rule(to=PICK, name=NAMES)
    def symlink(self, to, name):
        target = self.pick(to, directory=True) + b"/" + name
        if self.model.find(target)[3] is not None:
            return
        self.change(
            lambda: self.editor.ln(b"", target, symbolic=Symlink(b"some/where")),
            lambda model: model.put(target, ModelLink(b"some/where")),
            f"ln -s {target}",
        )

    @rule(
        where=PICK,
        permissions=st.sampled_from([0o644, 0o444, 0o755]),
        seconds=st.integers(400_000_000, 2_000_000_000),
    )
    def metadata(self, where, permissions, seconds):
        path = self.pick(where)
        if not isinstance(self.model.find(path)[3], ModelFile):
            return
        time_ns = seconds // 2 * 2 * 10**9
        self.editor.set_attributes(path, Attributes(permissions=permissions, mtime_ns=time_ns))
        found = self.editor.files.stat(path)
        assert found.mtime_ns == time_ns
        assert bool(found.mode & 0o200) == bool(permissions & 0o200)

    @rule(label=st.sampled_from(["", "LABEL", "TWO"]))
    def label(self, label):
        self.editor.set_label(label)
        assert self.editor.files.label == label

    @rule()
    def commit(self):
        self.editor.commit()
        self.committed = self.model.copy()
        self.check_device()
        self.editor.close()
        self.editor = self.open()

    @precondition(lambda self: not self.split)
    @rule()
    def forget(self):
        """Close without a commit: nothing since the last one is there."""
        self.editor.close()
        self.editor = self.open()
        self.model = self.committed.copy()

    @invariant()
    def shows_the_model(self):
        if hasattr(self, "editor"):
            assert flat(self.editor.files) == self.model.flat()

    def check_device(self):
        save(self.device, self.path)
        done = run([tool(self.kind.check[0]), *self.kind.check[1:], self.path], ok=range(16))
        assert done.returncode == 0, done.stdout + done.stderr
        with open_file_system(Window(self.device, 0, self.device.size, owns=False), source="test") as files:
            assert flat(files) == self.model.flat()

    def teardown(self):
        if not hasattr(self, "editor"):
            return
        self.editor.commit()
        free = self.editor.files.usage().free
        self.editor.close()
        self.check_device()
        with open_file_system(Window(self.device, 0, self.device.size, owns=False), source="test") as files:
            assert files.usage().free == free
        if self.kind.dump is not None:
            assert self.kind.dump(self.path, self.folder) == {
                self.model.key(path[1:]): data
                for path, data in self.model.flat().items()
                if not (data or b"").startswith(b"-> ")
            }


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.slow
def test_editor_does_what_dictionaries_do(name, tmp_path):
    class Machine(EditorMachine):
        kind = KINDS[name]
        folder = tmp_path

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=25,
            phases=PHASES,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
