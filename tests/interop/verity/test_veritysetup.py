"""Hash trees beside veritysetup: it verifies ours and we verify its, for every algorithm and pair of block sizes."""

import itertools
import re

import pytest

from blockwright.device.file import FileDevice, open_path
from blockwright.verity.check import check
from blockwright.verity.format import read_area, write_area
from blockwright.verity.layout import DIGEST_SIZES, Parameters, identity
from blockwright.verity.plan import area_end
from tests.support.tools import run, tool

SIZES = [512 << power for power in range(8)]
BYTES = bytes(number * number >> 7 & 255 for number in range(1 << 18)) * 3
SALT, UUID_ = identity(b"interop")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(BYTES)
    return path


def ours(data, hashes, parameters, *, hash_offset=0, uuid=UUID_):
    """Make a hash file (or area behind the data) of ours; return the root hash as text."""
    with FileDevice(hashes, writable=True, create=not hashes.exists()) as area:
        area.resize(max(area.size, area_end(parameters, hash_offset, superblock=uuid is not None)))
        with open_path(data) as device:
            source = area if data == hashes else device
            return write_area(source, area, parameters, hash_offset=hash_offset, uuid=uuid).hex()


def checked(data, hashes, root, *, hash_offset=0):
    with open_path(data) as device, open_path(hashes) as area:
        found = read_area(area, hash_offset)
        return check(device, area, found.parameters, bytes.fromhex(root), start=found.tree_start)


def formatted(data, hashes, *options):
    """Have veritysetup make one; return the root hash as text."""
    done = run([tool("veritysetup"), "format", *options, data, hashes])
    return re.search(r"Root hash:\s+([0-9a-f]+)", done.stdout)[1]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", DIGEST_SIZES)
def test_every_pair_of_block_sizes(data, tmp_path, algorithm):
    for number, (data_block, hash_block) in enumerate(itertools.product(SIZES, SIZES)):
        what = f"{algorithm} {data_block} {hash_block}"
        theirs, mine = tmp_path / f"theirs{number}", tmp_path / f"mine{number}"
        sizes = ["--data-block-size", str(data_block), "--hash-block-size", str(hash_block)]
        identity = ["--hash", algorithm, "--salt", SALT.hex(), "--uuid", str(UUID_)]
        root = formatted(data, theirs, *sizes, *identity)
        parameters = Parameters(len(BYTES) // data_block, algorithm, SALT, data_block, hash_block)
        assert ours(data, mine, parameters) == root, what
        assert mine.read_bytes() == theirs.read_bytes(), what
        assert checked(data, theirs, root).clean, what
        if number % 9 == 0:  # theirs verified what has the same bytes; this is that it says so
            run([tool("veritysetup"), "verify", data, mine, root])
        theirs.unlink()
        mine.unlink()


def test_dump_reads_our_superblock(data, tmp_path):
    ours(data, tmp_path / "hashes", Parameters(96, "sha512", SALT, 8192, 1024))
    shown = run([tool("veritysetup"), "dump", tmp_path / "hashes"]).stdout
    told = dict(re.findall(r"^([A-Za-z ]+):\s+(.*?)(?: \[bytes\])?$", shown, re.MULTILINE))
    assert told["UUID"] == str(UUID_)
    assert told["Hash type"] == "1"
    assert (told["Data blocks"], told["Data block size"], told["Hash block size"]) == ("96", "8192", "1024")
    assert (told["Hash algorithm"], told["Salt"]) == ("sha512", SALT.hex())


def test_hashes_behind_the_data(data):
    parameters = Parameters(192, salt=SALT)
    root = ours(data, data, parameters, hash_offset=len(BYTES))
    run([tool("veritysetup"), "verify", "--hash-offset", str(len(BYTES)), data, data, root])
    assert checked(data, data, root, hash_offset=len(BYTES)).clean


def test_without_a_superblock(data, tmp_path):
    root = ours(data, tmp_path / "hashes", Parameters(192, salt=b""), uuid=None)
    bare = ["--no-superblock", "--salt", "-", "--data-blocks", "192"]
    run([tool("veritysetup"), "verify", *bare, data, tmp_path / "hashes", root])
    assert formatted(data, tmp_path / "theirs", *bare) == root
    assert (tmp_path / "theirs").read_bytes() == (tmp_path / "hashes").read_bytes()


@pytest.mark.parametrize(("where", "rule"), [("data", "verity.data"), ("hashes", "verity.tree")])
def test_damage_that_veritysetup_sees_we_name(data, tmp_path, where, rule):
    hashes = tmp_path / "hashes"
    root = formatted(data, hashes)
    path = data if where == "data" else hashes
    content = bytearray(path.read_bytes())
    content[4096 + 100] ^= 1
    path.write_bytes(content)
    run([tool("veritysetup"), "verify", data, hashes, root], ok=(1, 2))
    assert [(each.rule, each.offset) for each in checked(data, hashes, root).findings] == [(rule, 4096)]


@pytest.mark.parametrize("blocks", [1, 2, 127, 128, 129])
def test_few_blocks(tmp_path, blocks):
    path = tmp_path / "data"
    path.write_bytes(BYTES[: blocks * 4096])
    root = formatted(path, tmp_path / "theirs", "--salt", SALT.hex(), "--uuid", str(UUID_))
    assert ours(path, tmp_path / "mine", Parameters(blocks, salt=SALT)) == root
    assert (tmp_path / "mine").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert checked(path, tmp_path / "theirs", root).clean
