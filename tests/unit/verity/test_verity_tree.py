"""Trees: known ones, one written plainly, any mixture of holes and data, and one in a device with its data."""

import hashlib
import random
import threading
from uuid import UUID

import pytest

from blockwright.device.concat import Concat
from blockwright.device.memory import MemoryDevice, ZeroDevice
from blockwright.errors import Misaligned, NoSpace, NotThisFormat, UsageError
from blockwright.testing.fault import FaultDevice
from blockwright.units import MiB
from blockwright.verity.format import blocks_of, parse_salt, protected, read_area, write_area
from blockwright.verity.layout import Parameters, identity
from blockwright.verity.plan import area_end, plan_tree
from blockwright.verity.tree import write_tree

DATA = bytes(number * number >> 8 & 255 for number in range(300 * 4096))
UUID_ = UUID(int=7)

# veritysetup 2.6.1: format --hash A --data-block-size B --hash-block-size C --salt D of DATA; the root hash, and the
# SHA-256 of the hash device behind the superblock's block.
KNOWN = [
    (
        ("sha256", b"", 4096, 4096),
        "c38913f55063dcab45b15d23ce50ce37468f62d5c1e985b4fd22655a67d464ca",
        "bde444c60d4c07e0969105a52979cd791dfe9da855e012cf20a75796f46e8ef3",
    ),
    (
        ("sha1", b"\x00\xff", 512, 512),
        "d9abfc54a40da5e5df4517576a8fa24492872577",
        "fe8cf8268498de7a962ebf744c9aa0b65b581aa27f4cd29f17dcde42b2559f33",
    ),
    (
        ("sha512", b"\xab" * 256, 1024, 4096),
        (
            "7d6e8d864e1953306937400aa56c2a2cd7999124a9282d2c58004029989eb77c"
            "ed8b441576ecc27f15a5afcfbcec34e5010af331ccf8d8e116ff5c5e200f2a0e"
        ),
        "c6ecff650c90fa6904532059595651bba9d8bd84572d190687038defbc10b228",
    ),
    (
        ("sha256", b"\x01", 4096, 512),
        "6160199bb51eb0fd3a4e16c58b63baabee3ff8afe0498070cbbcad2121558f78",
        "531420b8f0f3e6fc27055d4ee75852966cc82ab5cc4a97ac260c1372878e1471",
    ),
    (
        ("sha384", b"", 2048, 1024),
        "864decba3e87484b3a420a79c4a765947fd39c5306c10c07f0f91fd44f2b0ac583acbf39297815be1ab781223959dd0a",
        "418dc23c65c186b4e14c18c4e2f186bc63d95dcda2e6ed6d70d5f77c691f9af7",
    ),
    (
        ("sha224", b"\x02", 8192, 8192),
        "bbb1201f2e326931994d1271d65d5393474f8ffb0ed8e644fc9c81cc",
        "ba8370137a81a2fc2fbd0185d77081b34aa0dc151a0468844dd80eade3fc56de",
    ),
]


def tree_of(device, parameters, **options):
    """The root hash and the tree's bytes."""
    tree = MemoryDevice(plan_tree(parameters).size)
    root = write_tree(device, parameters, tree.write, **options)
    return root, tree.read(0, tree.size)


def plainly(data, parameters):
    """The same by the rule of the kernel's documentation, level by level."""

    def digest(block):
        return hashlib.new(parameters.algorithm, parameters.salt + block).digest()

    blocks = [data[at : at + parameters.data_block] for at in range(0, parameters.data_size, parameters.data_block)]
    levels = b""
    while len(blocks) > 1:
        slots = b"".join(digest(block).ljust(parameters.slot_size, b"\0") for block in blocks)
        slots += bytes(-len(slots) % parameters.hash_block)
        levels = slots + levels
        blocks = [slots[at : at + parameters.hash_block] for at in range(0, len(slots), parameters.hash_block)]
    return digest(blocks[0]), levels


@pytest.mark.parametrize(("given", "root", "tree"), KNOWN, ids=lambda each: str(each)[:24])
def test_known_trees(given, root, tree):
    algorithm, salt, data_block, hash_block = given
    parameters = Parameters(len(DATA) // data_block, algorithm, salt, data_block, hash_block)
    found, stored = tree_of(MemoryDevice(content=DATA), parameters)
    assert found.hex() == root
    assert hashlib.sha256(stored).hexdigest() == tree
    assert plainly(DATA, parameters) == (found, stored)


@pytest.mark.parametrize("number", range(40))
def test_any_mixture_of_holes_and_data(number):
    source = random.Random(f"verity.{number}")
    data_block, hash_block = source.choice([512, 4096, 65536, 262144]), source.choice([512, 1024, 4096])
    device = MemoryDevice(source.randrange(4, 60) * 65536)  # whose holes are multiples of 65536 bytes
    for _ in range(source.randrange(5)):
        offset = source.randrange(device.size)
        device.write(offset, source.randbytes(min(source.randrange(200_000), device.size - offset)))
    blocks = source.randrange(1, device.size // data_block + 1)
    parameters = Parameters(blocks, "sha1", source.randbytes(3), data_block, hash_block)
    found = tree_of(device, parameters, threads=source.choice([1, 3]))
    assert found == plainly(device.read(0, device.size), parameters), f"replay: number {number}"


def test_zeros_are_read_never_and_hashed_once():
    class Unread(ZeroDevice):
        def _read_into(self, offset, buffers):
            raise AssertionError("zeros were read")

    parameters = Parameters((1 << 40) // 4096)
    emitted = []
    root = write_tree(Unread(1 << 40), parameters, lambda offset, blocks: emitted.append((offset, len(blocks))))
    assert sum(length for _, length in emitted) == plan_tree(parameters).size
    slot = hashlib.sha256(bytes(4096)).digest()
    for level in plan_tree(parameters).levels:
        assert level.digests in (128**4, 128**3, 128**2, 128)
        slot = hashlib.sha256(slot * 128).digest()
    assert root == slot


def test_the_last_blocks_tree_is_the_only_one():
    assert tree_of(MemoryDevice(content=b"a" * 4096), Parameters(1)) == (hashlib.sha256(b"a" * 4096).digest(), b"")
    assert tree_of(ZeroDevice(4096), Parameters(1)) == (hashlib.sha256(bytes(4096)).digest(), b"")


def test_a_read_that_fails_is_raised_and_no_thread_stays():
    device = FaultDevice(MemoryDevice(content=b"x" * 8 * MiB), fail_at=3)
    with pytest.raises(OSError):
        tree_of(device, Parameters(2048), threads=3)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("verity")]


def test_progress_ends_at_the_data_s_size():
    seen = []
    tree_of(MemoryDevice(content=DATA), Parameters(300), progress=lambda *each: seen.append(each))
    assert seen[-1] == (300 * 4096, 300 * 4096)
    assert seen == sorted(seen)


# -- hash areas --------------------------------------------------------------------------------------------------


def test_one_device_of_data_and_tree():
    parameters = Parameters(300, salt=b"s")
    whole, root = protected(MemoryDevice(content=DATA), parameters, UUID_)
    assert isinstance(whole, Concat)
    assert whole.read(0, len(DATA)) == DATA
    area = read_area(whole, len(DATA))
    assert (area.parameters, area.uuid, area.tree_start) == (parameters, UUID_, len(DATA) + 4096)
    assert (root, whole.read(area.tree_start, whole.size - area.tree_start)) == plainly(DATA, parameters)
    bare, same = protected(MemoryDevice(content=DATA), parameters, None)
    assert same == root
    assert bare.size == whole.size - 4096


def test_an_area_behind_the_data_in_one_device_and_in_one_of_its_own():
    parameters = Parameters(300, hash_block=1024)
    data, hashes = MemoryDevice(area_end(parameters, len(DATA), superblock=True), DATA), MemoryDevice(MiB)
    root = write_area(data, data, parameters, hash_offset=len(DATA), uuid=UUID_)
    assert write_area(data, hashes, parameters, hash_offset=512, uuid=UUID_) == root
    assert read_area(hashes, 512).tree_start == 1024
    size = plan_tree(parameters).size
    assert hashes.read(1024, size) == data.read(len(DATA) + 1024, size) == plainly(DATA, parameters)[1]
    assert hashes.read(0, 512) == bytes(512)


def test_where_an_area_cannot_be():
    data = MemoryDevice(content=DATA)
    with pytest.raises(NoSpace, match="expected a hash device of at least"):
        write_area(data, MemoryDevice(8192), Parameters(300), uuid=UUID_)
    with pytest.raises(UsageError, match="behind the"):
        write_area(data, data, Parameters(200), hash_offset=4096)
    with pytest.raises(Misaligned):
        write_area(data, MemoryDevice(MiB), Parameters(300), hash_offset=512)
    with pytest.raises(Misaligned):
        protected(MemoryDevice(100 * 512, DATA[: 100 * 512]), Parameters(100, data_block=512), None)
    for offset in (-512, MiB, MiB - 100):
        with pytest.raises(NotThisFormat):
            read_area(MemoryDevice(MiB), offset)


def test_how_many_blocks():
    assert blocks_of(8192, 4096) == 2
    assert blocks_of(8193, 4096, 2) == 2
    with pytest.raises(UsageError, match="whole blocks of 4096"):
        blocks_of(8193, 4096)
    with pytest.raises(NoSpace):
        blocks_of(8193, 4096, 3)


def test_salts():
    assert identity(b"seed") == identity(b"seed") != identity(b"another")
    assert parse_salt("-") == b""
    assert parse_salt("00FF") == b"\x00\xff"
    for text in ("", "0", "xx", "00" * 257):
        with pytest.raises(UsageError):
            parse_salt(text)
