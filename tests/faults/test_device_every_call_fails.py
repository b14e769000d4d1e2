"""Each call of a device below fails in turn: what stands on it raises that error, and breaks nothing else."""

import contextlib
import random

import pytest

from blockwright.device.base import BlockDevice
from blockwright.device.cache import CachedDevice
from blockwright.device.concat import Concat
from blockwright.device.memory import MemoryDevice
from blockwright.device.overlay import Overlay
from blockwright.device.window import Window
from blockwright.testing import FaultDevice

SIZE = 40_000
CONTENT = random.Random(9).randbytes(SIZE)

STACKS = {
    "window": lambda inner: Window(inner, 0),
    "concatenation": lambda inner: Concat.of(inner, MemoryDevice(content=b"tail")),
    "cache": lambda inner: CachedDevice(inner, capacity=65_536, block=1024, read_ahead=4096),
    "overlay, base": lambda inner: Overlay(inner, block=1024),
    "overlay, top": lambda inner: Overlay(MemoryDevice(content=CONTENT), inner, block=1024),
    "cache over overlay": lambda inner: CachedDevice(Overlay(inner), capacity=65_536, block=1024),
}


def operations(seed):
    chance = random.Random(seed)
    for _ in range(12):
        offset = chance.randrange(SIZE)
        length = chance.randrange(min(SIZE - offset, 5000) + 1)
        yield chance.choice(("write", "zero", "read", "flush", "discard")), offset, length, chance.randbytes(length)


def run(device: BlockDevice, seed: int) -> list[int | None]:
    """Do the operations, and return what the device must hold; None for bytes that may be anything."""
    model: list[int | None] = list(CONTENT)
    for kind, offset, length, data in operations(seed):
        end = offset + length
        touched = kind in ("write", "zero", "discard")
        try:
            if kind == "write":
                device.write(offset, data)
                model[offset:end] = data
            elif kind == "zero":
                device.zero(offset, length)
                model[offset:end] = bytes(length)
            elif kind == "discard":
                device.discard(offset, length)
                model[offset:end] = [None] * length
            elif kind == "flush":
                device.flush()
            else:
                device.read(offset, length)
        except OSError:
            if touched:
                model[offset:end] = [None] * length
    return model


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("name", STACKS)
def test_bytes_outside_a_failed_range_are_untouched(name, lasting):
    content = bytes(SIZE) if name == "overlay, top" else CONTENT
    for seed in range(3):
        calls = FaultDevice(MemoryDevice(content=content))
        run(STACKS[name](calls), seed)
        assert calls.count
        for k in range(calls.count):
            inner = FaultDevice(MemoryDevice(content=content), k, lasting=lasting)
            device = STACKS[name](inner)
            model = run(device, seed)
            assert inner.failed
            inner.fail_at = None
            found = device.read(0, SIZE)
            wrong = [at for at, want in enumerate(model) if want is not None and want != found[at]]
            assert not wrong, f"seed {seed}, call {k}: byte {wrong[0]}"
            with contextlib.suppress(OSError):
                device.flush()
            device.close()
