"""Metadata of thin pools beside thin-provisioning-tools: what they make is whole, and what they find is found."""

import random

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.system.linux.thin import check_metadata
from blockwright.system.linux.thin.layout import BLOCK, NODE_SALT, SUPERBLOCK_SALT, checksum
from blockwright.system.linux.thin.spaces import BITMAP_SALT, INDEX_SALT
from blockwright.units import MiB
from tests.support.thinpools import sealed
from tests.support.tools import run, tool

SALTS = (SUPERBLOCK_SALT, NODE_SALT, BITMAP_SALT, INDEX_SALT)
ROUNDS = 30


def restored(folder, devices, *, blocks):
    """Metadata that thin_restore makes of {identity: [(block of the device, block of data), ...]}."""
    head = 'uuid="" time="3" transaction="4" flags="0" version="2" data_block_size="128"'
    lines = [f'<superblock {head} nr_data_blocks="{blocks}">']
    for identity, mapped in devices.items():
        times = 'transaction="1" creation_time="0" snap_time="2"'
        lines.append(f'<device dev_id="{identity}" mapped_blocks="{len(mapped)}" {times}>')
        lines += [f'<single_mapping origin_block="{at}" data_block="{data}" time="1"/>' for at, data in mapped]
        lines.append("</device>")
    (folder / "m.xml").write_text("\n".join([*lines, "</superblock>"]))
    path = folder / "metadata"
    path.write_bytes(bytes(4 * MiB))
    run([tool("thin_restore"), "-q", "-i", folder / "m.xml", "-o", path])
    return path.read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Metadata with trees of several levels, data blocks that up to five devices share, and gaps."""
    devices = {3 * each: [(2 * at, (at * 7) % 2000) for at in range(600)] for each in range(5)}
    devices |= {1000 + each: [(each, each)] for each in range(300)}
    return restored(tmp_path_factory.mktemp("thin"), devices, blocks=40000)


def rules(data):
    return {each.rule for each in check_metadata(MemoryDevice(content=data))}


def test_what_thin_restore_makes_is_whole(whole):
    assert rules(whole) == set()


def salt_of(block):
    told = int.from_bytes(block[:4], "little")
    return next((salt for salt in SALTS if checksum(block, salt) == told), None)


def damaged(whole, number):
    """The metadata with a few bytes of one used block changed, the checksum made right again in most rounds."""
    source = random.Random(f"damage.{number}")
    salt = SALTS[number % len(SALTS)]
    blocks = [at for at in range(0, len(whole), BLOCK) if salt_of(whole[at : at + BLOCK]) == salt]
    data, at = bytearray(whole), source.choice(blocks)
    used = [each for each in range(4, BLOCK, 4) if any(whole[at + each : at + each + 4])]
    for _ in range(source.choice([1, 1, 1, 3])):
        place = at + source.choice([source.choice(used), source.choice(used), source.randrange(4, BLOCK)])
        data[place] = source.choice([data[place] ^ 1 << source.randrange(8), source.randrange(256)])
    if source.random() < 0.8:
        data[at : at + BLOCK] = sealed(data[at : at + BLOCK], salt)
    return bytes(data)


@pytest.mark.slow
def test_what_thin_check_finds_is_found(whole, tmp_path):
    path, both = tmp_path / "metadata", 0
    for number in range(ROUNDS):
        data = damaged(whole, number)
        path.write_bytes(data)
        peer = run([tool("thin_check"), "-q", path], ok=(0, 1)).returncode
        ours = rules(data)
        assert ours or peer == 0, f"number {number}: thin_check finds damage"
        both += bool(peer)
    assert both > ROUNDS // 3
