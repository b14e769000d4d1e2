"""The part of the conformance check that takes several threads.

Knows: what may run at once, and what must be true afterwards. Refuses to know: the order in which it ran.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.errors import Closed
from blockwright.testing.model import Model, Stuck, Trial, Violation
from blockwright.units import align_down

THREADS: Final = 4
PATIENCE_S: Final = 60.0
"""How long threads may take before they count as stuck."""


def check_threads(trial: Trial) -> None:
    """Threads that write next to each other, often in one block, do not disturb each other's bytes.

    Each has every fourth stripe to itself, with stripes as narrow as the device's blocks allow.
    """
    device, model, chance = trial.device, trial.model, trial.chance
    if device.traits.parallelism < 2 or not len(model):
        return
    block = device.traits.minimum_block
    stripe = max(block, align_down(chance.choice((block, 300, 1000, device.traits.preferred_block)), block))
    seeds = [chance.randrange(1 << 32) for _ in range(THREADS)]

    def work(number: int) -> None:
        own = random.Random(seeds[number])  # noqa: S311 - replayable, not secret
        stripes = range(number * stripe, device.size, THREADS * stripe)
        for _ in range(trial.operations // 2 if stripes else 0):
            offset = own.choice(stripes)
            length = align_down(own.randint(0, min(stripe, device.size - offset)), block)
            _one_step(device, model, own, offset, length)

    run_threads([partial(work, number) for number in range(THREADS)])
    model.check_device(device, f"after {THREADS} threads with stripes of {stripe} bytes")


def _one_step(device: BlockDevice, model: Model, chance: random.Random, offset: int, length: int) -> None:
    """Do one operation on a range that is the calling thread's alone."""
    kind = chance.choice(("write", "zero", "discard", "read", "flush", "extents"))
    doing = f"thread: {kind} of {length} bytes at {offset}"
    if kind == "extents":
        list(device.extents(offset, length))
    elif kind == "flush":
        device.flush()
    elif device.traits.writable and kind == "write":
        data = chance.randbytes(length)
        device.write(offset, data)
        model.write(offset, data)
    elif device.traits.writable and kind == "zero":
        device.zero(offset, length)
        model.zero(offset, length)
    elif device.traits.writable and kind == "discard":
        device.discard(offset, length)
        model.discard(offset, length)
    model.check(offset, device.read(offset, length), doing)


def check_close(trial: Trial) -> None:
    """Closing waits for calls in flight; every call behind it is refused; closing again does nothing."""
    device, model = trial.device, trial.model
    begun = threading.Event()
    length = align_down(min(len(model), 4096), device.traits.minimum_block)

    def read_until_closed() -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                model.check(0, device.read(0, length), "read while another thread closes")
            except Closed:
                return
            finally:
                begun.set()
        raise Violation("read behind close: expected Closed, found none")

    def close() -> None:
        begun.wait(PATIENCE_S)
        device.close()

    run_threads([read_until_closed, close])
    device.close()
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: device.read(0, 0),
        "read_into": lambda: device.read_into(0, bytearray()),
        "flush": device.flush,
        "prefetch": lambda: device.prefetch(0, 0),
        "extents": lambda: list(device.extents(0, length)),
        "backing": lambda: device.backing(0, 0).__enter__(),
    }
    if device.traits.writable:
        calls["write"] = lambda: device.write(0, b"")
        calls["zero"] = lambda: device.zero(0, 0)
        calls["discard"] = lambda: device.discard(0, 0)
    for name, call in calls.items():
        if name == "extents" and not length:
            continue
        try:
            call()
        except Closed:
            continue
        raise Violation(f"{name} behind close: expected Closed, found no error")


def run_threads(works: list[Callable[[], None]]) -> None:
    """Run all at once, and raise the first error of any when all have ended; Stuck where one does not end."""
    errors: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised below, by the thread that waits
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if errors:
        raise errors[0]
    if any(thread.is_alive() for thread in threads):
        raise Stuck(f"threads: expected an end within {PATIENCE_S:g} s, found some stuck")
