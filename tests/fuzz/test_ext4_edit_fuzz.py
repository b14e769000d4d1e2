"""A bounded run of the fuzz target: images with a field changed, mostly with right checksums, and then edited."""

import stat
import time

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.errors import Corrupt
from blockwright.fs.ext4 import edit, read
from tests.fuzz.ext4_edit_target import fuzz_one, seeds
from tests.fuzz.test_ext4_fuzz import CORPUS
from tests.support.ext4_mutations import Inventory, mutate

ROUNDS = 5
MAX_SECONDS = 10


def starts() -> list[tuple[str, bytes]]:
    return [(f"ours-{at}", data) for at, data in enumerate(seeds())] + [(p.name, p.read_bytes()) for p in CORPUS]


def test_kind_that_there_is_not():
    """A mode's type bits that no file has: the inode cannot get a name."""
    clean = next(data for name, data in starts() if name == "ext2")
    with read.open(MemoryDevice(content=clean)) as files:
        number = next(each.inode for each in files.entries(2) if each.kind == stat.S_IFREG)
        name = next(each.name for each in files.entries(2) if each.inode == number)
        position = files.volume.inode_position(number)
    data = bytearray(clean)
    data[position + 1] = data[position + 1] & 0xF | 0x30
    with edit.open(MemoryDevice(content=bytes(data))) as editor, pytest.raises(Corrupt, match="file type"):
        editor.mv(b"/" + name, b"/" + name + b"2")


@pytest.mark.parametrize(("name", "clean"), starts(), ids=lambda value: value if isinstance(value, str) else "")
def test_editing_damaged_file_systems_raises_our_errors_only(name, clean):
    inventory = Inventory(clean)
    fuzz_one(clean)
    for number in range(ROUNDS):
        data = bytearray(clean)
        mutation = mutate(inventory, f"edit.{name}.{number}")
        for offset, _old, new in mutation.patches:
            data[offset : offset + len(new)] = new
        started = time.process_time()
        try:
            fuzz_one(bytes(data))
        except Exception as error:
            raise AssertionError(f"replay: edit.{name}.{number}, {mutation}") from error
        assert time.process_time() - started < MAX_SECONDS, f"replay: edit.{name}.{number}, {mutation}"
