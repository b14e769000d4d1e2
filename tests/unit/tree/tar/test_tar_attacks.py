"""Each class of attack on unpackers, by number and name: refused for its reason, or harmless as a tree."""

import io
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.errors import ArchiveRejected, Rejection
from blockwright.source import open_source
from blockwright.tree.node import Directory, File, Symlink, walk
from blockwright.tree.spool import Spool
from tests.support.attacks import UP, Attack, attacks
from tests.support.tarmaker import archive, header

ATTACKS = {attack.id: attack for attack in attacks()}


def read(attack: Attack) -> Directory:
    with open_source("-", stdin=io.BytesIO(attack.data), rules=attack.rules) as source:
        return source.read(Spool(MemoryDevice(0)).place)


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(name: str) -> None:
    attack = ATTACKS[name]
    if isinstance(attack.outcome, Rejection):
        with pytest.raises(ArchiveRejected) as caught:
            read(attack)
        assert caught.value.reason is attack.outcome, str(caught.value)
        assert caught.value.offset is not None
        assert caught.value.source == "standard input"
    else:
        assert {path for path, _ in walk(read(attack)) if path} == attack.outcome


def test_names_differ() -> None:
    assert len(ATTACKS) == len(attacks())


def test_a_target_is_kept_as_it_is() -> None:
    """A link out of the tree is legal in a root file system; only following it would be wrong."""
    link = read(ATTACKS["3-target-outside"]).entries[b"l"]
    assert isinstance(link, Symlink)
    assert link.target.startswith(UP)


def test_the_last_of_two_entries_stays() -> None:
    node = read(ATTACKS["11-twice"]).entries[b"f"]
    assert isinstance(node, File)
    data = bytearray(1)
    node.content.read_into(0, memoryview(data))
    assert data == b"2"


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("trusted.overlay.opaque", False),
        ("security.selinux", False),
        ("security.ima", False),
        ("system.nfs4_acl", False),
        ("user.ok", True),
    ],
)
def test_attributes_that_stay(name: str, kept: bool) -> None:
    assert bool(read(ATTACKS[f"21-{name}"]).entries[b"f"].xattrs) == kept


def test_a_capability_stays() -> None:
    assert list(read(ATTACKS["9-capability"]).entries[b"f"].xattrs) == [b"security.capability"]


def test_a_rejection_names_the_entry() -> None:
    data = archive(header(b"good"), header(b"bad", kind=b"1", link=b"nowhere"))
    with open_source("-", stdin=io.BytesIO(data)) as source, pytest.raises(ArchiveRejected) as caught:
        source.read(Spool(MemoryDevice(0)).place)
    error = caught.value
    assert (error.reason, error.entry, error.offset, error.layer) == (Rejection.LINK, b"bad", 512, None)


def bomb(size: int) -> bytes:
    """A tar.gz of one file of zeros, made as deflate makes most of it: the same compressed MiB again and again."""
    head = header(b"f", size=b"%011o\0" % size)
    encoder = zlib.compressobj(9, wbits=31)
    data = encoder.compress(head) + encoder.flush(zlib.Z_FULL_FLUSH)
    repeated = encoder.compress(bytes(1 << 20)) + encoder.flush(zlib.Z_FULL_FLUSH)
    return data + repeated * (size >> 20)


BOMB = """
import re, sys, time
from blockwright.errors import ArchiveRejected
from blockwright.source import open_source
from blockwright.tree.content import BytesContent
from blockwright.tree.rules import ArchiveRules
reached = None
def place(size, runs, fill):
    global reached
    buffer, done = memoryview(bytearray(1 << 20)), 0
    while done < size:
        fill(buffer)
        done += 1 << 20
        if done == (1 << 30) - (8 << 20):
            reached = time.monotonic()
with open_source(sys.argv[1]) as source:
    try:
        source.read(place)
    except ArchiveRejected as error:
        # Not getrusage, whose peak has what this process was before exec.
        peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())
        print(error.reason.name, time.monotonic() - reached, peak[1])
"""


def test_a_bomb_of_ten_gib_is_refused_at_its_budget(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(bomb(10 << 30))
    assert path.stat().st_size < 11 << 20
    done = subprocess.run([sys.executable, "-c", BOMB, path], capture_output=True, text=True, check=True)
    reason, seconds, kib = done.stdout.split()
    assert reason == "RATIO"
    assert float(seconds) < 60  # well under a second; a loaded machine decides nothing here
    assert int(kib) < 300 << 10
