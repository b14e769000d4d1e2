"""File systems to resize, made by mke2fs with many features, and the judges of what becomes of them.

Knows: e2fsck, resize2fs, our own check and our reader. Refuses to know: how resizing works.
"""

import os
import random
from pathlib import Path

from blockwright.device.base import BlockDevice
from blockwright.device.file import FileDevice
from blockwright.fs.ext4 import edit, read
from blockwright.fs.ext4.resize import resize
from blockwright.fs.resize import ResizeReport
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File, Symlink, walk
from blockwright.units import MiB
from tests.support.e2fs import mke2fs
from tests.support.ext4 import dumpe2fs
from tests.support.ext4_edit import judge
from tests.support.tools import run, tool
from tests.support.trees import PatternContent, content_bytes

SETS = {
    "ext4": ("-t", "ext4"),
    "ext2": ("-t", "ext2"),
    "ext3": ("-t", "ext3"),
    "no-resize-inode": ("-t", "ext4", "-O", "^resize_inode"),
    "little-kept": ("-t", "ext4", "-E", "resize=262144"),
    "no-flex": ("-t", "ext4", "-O", "^flex_bg"),
    "large-flex": ("-t", "ext4", "-G", "256"),
    "packed": ("-t", "ext4", "-E", "packed_meta_blocks=1"),
    "meta": ("-t", "ext4", "-O", "meta_bg,^resize_inode"),
    "uninit": ("-t", "ext4", "-O", "^metadata_csum,uninit_bg"),
    "no-checksums": ("-t", "ext4", "-O", "^metadata_csum,^uninit_bg"),
    "no-64bit": ("-t", "ext4", "-O", "^64bit"),
    "sparse2": ("-t", "ext4", "-O", "sparse_super2"),
    "sparse2-meta": ("-t", "ext4", "-O", "sparse_super2,meta_bg,^resize_inode"),
    "all-backups": ("-t", "ext4", "-O", "^sparse_super,^resize_inode"),
    "no-journal": ("-t", "ext4", "-O", "^has_journal"),
    "small-groups": ("-t", "ext4", "-g", "2048"),
    "modern": ("-t", "ext4", "-O", "orphan_file,inline_data,metadata_csum_seed,casefold,ea_inode"),
}


def make_image(path: Path, name: str, size: int, block_size: int = 1024) -> tuple[Path, Directory]:
    """A file system with files in it, and the tree of them."""
    source = path.with_name(path.name + ".tree")
    (source / "home").mkdir(parents=True)
    chance = random.Random(5)
    for index in range(12):
        (source / f"file{index}").write_bytes(chance.randbytes(chance.randrange(40_000)))
    for place in source.iterdir():
        os.utime(place, (1_600_000_000, 1_600_000_000))
    image = mke2fs(path, f"{size // 1024}K", *SETS[name], "-b", str(block_size), source=source)
    return image, tree_of(image)


def spread(image: Path) -> Directory:
    """Put files of every kind at the end, behind what is free again afterwards; return the tree of all files."""
    chance = random.Random(6)
    pieces = [BytesContent(chance.randbytes(3000)) for _ in range(40)]
    with edit.open(FileDevice(image, writable=True)) as editor:
        room = editor.files.usage().free - 2 * MiB
        for part in range(8):
            editor.put(b"/hole%d" % part, File(content=PatternContent(room // 8, seed=part)))
        editor.commit()
        for index, content in enumerate(pieces):
            editor.put(b"/home/dir%d/file" % (index % 3), File(content=content), parents=True)
            editor.write(b"/home/dir%d/file" % (index % 3), content, offset=index * 5000)
            editor.put(b"/home/many/name%d%s" % (index, b"x" * 200), Symlink(b"t" * 200), parents=True)
        shared = {b"user.long": b"v" * 500}
        editor.put(
            b"/home/attributes",
            Directory(xattrs=shared, entries={b"a": File(xattrs=shared), b"b": File(xattrs=shared)}),
        )
        editor.commit()
        for part in range(8):
            editor.rm(b"/hole%d" % part)
    return tree_of(image)


def tree_of(image: Path) -> Directory:
    """All files of an image, their bytes in memory."""
    with read.open(FileDevice(image)) as files:
        root = files.tree()
        for _path, node in walk(root):
            if isinstance(node, File):
                node.content = BytesContent(content_bytes(node.content))
    return root


def resize_file(image: Path, size: int | None) -> ResizeReport:
    with FileDevice(image, writable=True) as device:
        return resize(device, size)


def judge_resized(image: Path, tree: Directory, report: ResizeReport, told: str) -> None:
    """Fail unless the file system is whole, has the size that is told, and resize2fs finds it done."""
    judge(image, tree, [told])
    values, groups = dumpe2fs(image)
    assert (int(values["Block count"]), len(groups)) == (report.blocks, report.groups), told
    done = run([tool("resize2fs"), image, f"{report.size // 1024}K"])
    assert "Nothing to do" in done.stderr, f"{told}\n{done.stdout}{done.stderr}"


def image_of(disk: BlockDevice, path: Path) -> Path:
    """A disk as a sparse file."""
    from tests.support.disks import save

    save(disk, path)
    return path
