"""Editors of ext4 images, and the judges of what they leave.

Knows: e2fsck, our own check and our reader. Refuses to know: what was edited.
"""

from pathlib import Path

from blockwright.device.file import FileDevice
from blockwright.fs.editor import DEFAULT_POLICY, CommitPolicy
from blockwright.fs.ext4 import edit, read
from blockwright.fs.ext4.check import check
from blockwright.fs.ext4.edit.editor import Ext4Editor
from blockwright.tree.node import Directory
from tests.support.e2fs import e2fsck_complains
from tests.support.fsedits import differences
from tests.support.tools import run, tool


def open_editor(image: Path, policy: CommitPolicy = DEFAULT_POLICY) -> Ext4Editor:
    return edit.open(FileDevice(image, writable=True), policy=policy)


def judge(image: Path, expected: Directory | None = None, log: list[str] | None = None) -> None:
    """Fail unless e2fsck and our check find nothing, and the tree is what is expected."""
    told = "\n".join(line.replace("y" * 240, "y*") for line in (log or [])[-40:])
    if e2fsck_complains(image):
        run([tool("e2fsck"), "-fn", image], ok=range(256))
        raise AssertionError(f"{run([tool('e2fsck'), '-fn', image], ok=range(256)).stdout}\n{told}")
    with FileDevice(image) as device:
        assert [str(each) for each in check(device)] == [], told
    if expected is not None:
        with read.open(FileDevice(image)) as files:
            assert differences(expected, files.tree()) == [], told
