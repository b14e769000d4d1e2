"""QEMU reads the layers of volumes, and finds nothing wrong with them, after any change of them."""

import json
import os
import subprocess

import pytest

from blockwright.volume import open_pool
from tests.support.tools import tool
from tests.support.volumes import SIZE, content, contents, fill_with, make_pool, pattern, write


def _hold(pool, folder):
    for name, expected in contents(pool).items():
        path = pool.activate(name).path
        try:
            raw = folder / "read-by-qemu"
            form = path.rpartition(".")[2]
            subprocess.run([tool("qemu-img"), "convert", "-f", form, "-O", "raw", path, raw], check=True)
            assert raw.read_bytes() == expected, name
            if form == "qcow2":
                told = subprocess.run(
                    [tool("qemu-img"), "check", "--output=json", path], capture_output=True, check=False
                )
                document = json.loads(told.stdout)
                assert (document["check-errors"], document.get("leaks", 0), document.get("corruptions", 0)) == (
                    0,
                    0,
                    0,
                )
        finally:
            pool.deactivate(name)


@pytest.fixture
def pool(tmp_path, monkeypatch):
    make_pool("overlay", tmp_path, monkeypatch)
    with open_pool("p") as found:
        yield found


def test_qemu_reads_what_we_read(pool, tmp_path):
    pool.create("a", SIZE, fill=fill_with(pattern(1)))
    for number in range(3):
        pool.snapshot("a", f"s{number}")
        write(pool, "a", number * 70000, bytes([number + 1]) * 70000)
    pool.grow("a", 2 * SIZE)
    _hold(pool, tmp_path)
    for name in ("s1", "s0", "s2"):
        pool.remove(name)
        _hold(pool, tmp_path)
    assert {each.rpartition(".")[2] for each in os.listdir(tmp_path / "p-volumes")} == {"raw"}


def test_what_qemu_writes_to_an_active_volume_is_read(pool, tmp_path):
    pool.create("a", SIZE)
    pool.snapshot("a", "b")
    write(pool, "a", 0, b"ours")
    path = pool.activate("a").path
    subprocess.run(
        [tool("qemu-io"), "-f", "qcow2", "-c", "write -P 0x5a 65536 4096", path], check=True, capture_output=True
    )
    pool.deactivate("a")
    expected = bytearray(SIZE)
    expected[:4] = b"ours"
    expected[65536 : 65536 + 4096] = b"\x5a" * 4096
    assert content(pool, "a") == bytes(expected)
    assert content(pool, "b") == bytes(SIZE)
