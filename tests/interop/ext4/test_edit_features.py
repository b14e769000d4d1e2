"""Random edits on file systems that mke2fs made with each feature: e2fsck, our check and our reader agree."""

import pytest

from blockwright.device.file import FileDevice
from blockwright.errors import NoSpace, Unsupported, UsageError
from blockwright.fs.ext4 import edit
from blockwright.tree.node import Directory
from tests.support.e2fs import mke2fs
from tests.support.ext4_edit import judge, open_editor
from tests.support.ext4_features import SETS
from tests.support.fsedits import RandomEdits

REFUSED = {
    "ext4-bigalloc": "bigalloc",
    "ext4-bigalloc-1k": "bigalloc",
    "ext4-bigalloc-inline-data": "bigalloc",
    "ext4-quota": "quota",
    "ext4-quota-project": "quota",
    "ext4-everything": "quota",
}
EDITS = 45


@pytest.mark.parametrize("name", [name for name in SETS if name not in REFUSED])
def test_random_edits(name, tmp_path):
    image = mke2fs(tmp_path / "image", *SETS[name])
    edits = RandomEdits(1, Directory())
    if name == "ext2-revision-0":
        edits.refusals = (NoSpace, UsageError)  # attributes are a feature, of which it has none
    for _ in range(3):
        with open_editor(image) as editor:
            for _ in range(EDITS // 3):
                edits.step(editor)
        judge(image, edits.root, edits.log)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name, tmp_path):
    image = mke2fs(tmp_path / "image", *SETS[name])
    before = image.read_bytes()
    with FileDevice(image, writable=True) as device, pytest.raises(Unsupported, match=REFUSED[name]):
        edit.open(device)
    assert image.read_bytes() == before
