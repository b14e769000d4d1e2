"""Every device and every stack of wrappers keeps the one contract."""

import random

import pytest

from blockwright.device.memory import ZeroDevice
from blockwright.testing import check_device
from tests.support.devices import BLOCKED, READ_ONLY, STORED, WRITABLE

pytestmark = pytest.mark.unprivileged


def content(size: int) -> bytes:
    """Data, then zeros, then data, so that holes, pages and blocks begin and end within it."""
    data = bytearray(random.Random(size).randbytes(size))
    data[size // 3 : 2 * size // 3] = bytes(2 * size // 3 - size // 3)
    return bytes(data)


@pytest.mark.parametrize("size", [1, 511, 4096, 300_003])
@pytest.mark.parametrize("name", WRITABLE)
def test_writable(name, size, tmp_path):
    check_device(lambda: WRITABLE[name](content(size), tmp_path), content(size), operations=min(120, 20 + size))


@pytest.mark.parametrize("size", [1, 65536, 300_003])
@pytest.mark.parametrize("name", STORED)
def test_stored(name, size, tmp_path):
    check_device(lambda: STORED[name](content(size), tmp_path), content(size), operations=120)


@pytest.mark.parametrize("size", [512, 4096, 200_192])
@pytest.mark.parametrize("name", BLOCKED)
def test_blocked(name, size, tmp_path):
    check_device(lambda: BLOCKED[name](content(size), tmp_path), content(size), operations=80)


@pytest.mark.parametrize("size", [1, 4095, 300_003])
@pytest.mark.parametrize("name", READ_ONLY)
def test_read_only(name, size, tmp_path):
    check_device(lambda: READ_ONLY[name](content(size), tmp_path), content(size), operations=60)


@pytest.mark.parametrize("name", WRITABLE)
def test_empty(name, tmp_path):
    check_device(lambda: WRITABLE[name](b"", tmp_path), b"", operations=8)


def test_zeros():
    check_device(lambda: ZeroDevice(100_000), bytes(100_000))
