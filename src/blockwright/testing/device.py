"""The conformance check of devices: does one keep the contract of ``BlockDevice``?

    check_device(lambda: MyDevice(content), content)

Knows: the contract, and a bytearray as the model of a device. Refuses to know: any implementation.
"""

from __future__ import annotations

import os
import random
import secrets
import sys
from collections.abc import Callable
from functools import partial

from blockwright.device.base import BlockDevice, ResizableDevice, Waits
from blockwright.errors import Misaligned, NotSupported, OutOfRange, ReadOnly
from blockwright.testing.model import Model, Stuck, Trial, Violation, check_extents
from blockwright.testing.threads import check_close, check_threads
from blockwright.units import KiB, align_down

MAX_LENGTH = 256 * KiB
"""Bytes of the longest random range."""

Make = Callable[[], BlockDevice]


def check_device(make: Make, content: bytes, *, seed: int | None = None, operations: int = 200) -> None:
    """Return if each device from ``make``, a new one for each call that holds ``content``, keeps the contract.

    Capabilities are taken from ``traits``: a read-only device is checked for refusing, one whose ``parallelism``
    is over 1 from several threads. ``operations`` random ones are done; ``seed`` replays those of an earlier run,
    and is named in every message. Devices are closed. Raises Violation, or what the device raised.
    """
    seed = secrets.randbits(32) if seed is None else seed
    for check in (
        _check_reading,
        _check_refusals,
        _check_random,
        _check_fast_zero,
        _check_backing,
        _check_resizing,
        check_threads,
        check_close,
    ):
        # A device of its own and a seed of its own, so that one check does not depend on what another did.
        chance = random.Random(f"{seed} {check.__name__}")  # noqa: S311 - replayable, not secret
        device = make()
        try:
            check(Trial(device, Model(content), chance, operations))
        except BaseException as error:
            error.add_note(f"check_device: {check.__name__.lstrip('_')} with seed={seed}")
            if not isinstance(error, Stuck):  # closing would wait for the thread that is stuck
                device.close()
            raise
        device.close()


def random_range(device: BlockDevice, chance: random.Random) -> tuple[int, int]:
    """Return an allowed (offset, length), often near a boundary, often short, and empty now and then."""
    block = device.traits.minimum_block
    size = device.size
    borders = (0, size, device.traits.preferred_block, 64 * KiB, size // 2, chance.randrange(size + 1))
    near = chance.choice(borders) * chance.choice((1, 1, 2, 3)) + chance.randint(-9, 9) * chance.choice((1, block))
    offset = align_down(max(0, min(size, near)), block)
    limit = min(MAX_LENGTH, size - offset)
    wanted = chance.choice((0, 1, block, 511, 4 * KiB, device.traits.preferred_block, MAX_LENGTH))
    length = min(limit, chance.randint(0, wanted) + chance.choice((0, 0, block)))
    return offset, align_down(length, block)


def _check_reading(trial: Trial) -> None:
    """Reading gives the content, in one piece, in many buffers, and at every border."""
    device, model, chance = trial.device, trial.model, trial.chance
    model.check_device(device, "the content")
    for _ in range(trial.operations // 2):
        offset, length = random_range(device, chance)
        model.check(offset, device.read(offset, length), f"read of {length} bytes at {offset}")
        buffers = [bytearray(b"\xaa" * part) for part in _parts(length, chance)]
        device.read_into(offset, *buffers)
        model.check(offset, b"".join(buffers), f"read of {length} bytes at {offset} into {len(buffers)} buffers")
        if device.read_ready(offset, *buffers):
            model.check(offset, b"".join(buffers), f"read_ready of {length} bytes at {offset}")
        elif device.traits.waits is Waits.NEVER:
            raise Violation(f"read_ready of {length} bytes at {offset}: waits, and the traits say that nothing does")
        check_extents(device, offset, length, f"{length} bytes at {offset}")
        device.prefetch(offset, length)
    if device.read(device.size, 0) != b"":
        raise Violation("read of 0 bytes at the end: expected none")


def _check_refusals(trial: Trial) -> None:
    """What is out of range, misaligned or not allowed is refused, and changes nothing."""
    device, model = trial.device, trial.model
    block, size = device.traits.minimum_block, device.size
    for offset, length in ((-block, block), (size, block), (size + block, 0), (0, size + block)):
        _expect(OutOfRange, partial(device.read, offset, length), "read out of range")
        _expect(OutOfRange, partial(device.extents, offset, length), "extents out of range")
        _expect(OutOfRange, partial(device.backing, offset, length), "backing out of range")
        _expect(OutOfRange, partial(device.prefetch, offset, length), "prefetch out of range")
    _expect(OutOfRange, lambda: device.read(0, -block), "read of a length below 0")
    whole = block > 1 and size >= 2 * block
    if whole:
        _expect(Misaligned, lambda: device.read(1, block), "misaligned read")
        _expect(Misaligned, lambda: device.read(0, block - 1), "read of a part of a block")
    refusal = OutOfRange if device.traits.writable else ReadOnly
    start = size if device.traits.writable else 0
    data = b"\xa5" * block
    _expect(refusal, lambda: device.write(start, data), "write")
    _expect(refusal, lambda: device.zero(start, block), "zero")
    _expect(refusal, lambda: device.discard(start, block), "discard")
    if device.traits.writable and whole:
        _expect(Misaligned, lambda: device.write(1, data), "misaligned write")
        _expect(Misaligned, lambda: device.zero(0, block + 1), "misaligned zero")
    device.flush()
    model.check_device(device, "after what was refused")


def _check_random(trial: Trial) -> None:
    """Random operations leave what they leave in a bytearray."""
    device, model, chance = trial.device, trial.model, trial.chance
    if not device.traits.writable:
        return
    for number in range(trial.operations):
        offset, length = random_range(device, chance)
        kind = chance.choice(("write", "write", "zero", "discard", "read", "flush", "extents"))
        doing = f"operation {number}: {kind} of {length} bytes at {offset}"
        durable = chance.random() < 0.1
        if kind == "write":
            data = chance.choice((chance.randbytes, bytes))(length)
            view = memoryview(data)
            pieces, position = [], 0
            for part in _parts(length, chance):
                pieces.append(view[position : position + part])
                position += part
            device.write(offset, *pieces, durable=durable)
            model.write(offset, data)
        elif kind == "zero":
            device.zero(offset, length, may_unmap=chance.random() < 0.7, durable=durable)
            model.zero(offset, length)
        elif kind == "discard":
            device.discard(offset, length, durable=durable)
            model.discard(offset, length)
        elif kind == "flush":
            device.flush()
        elif kind == "extents":
            check_extents(device, offset, length, doing)
        model.check(offset, device.read(offset, length), doing)
        if number % 16 == 15:
            model.check_device(device, f"the whole after {doing}")
    model.check_device(device, "the whole after all operations")


def _check_fast_zero(trial: Trial) -> None:
    """``fast_only`` zeroes, or is refused with nothing changed; a device that is not fast always refuses."""
    device, model, chance = trial.device, trial.model, trial.chance
    if not device.traits.writable:
        return
    for _ in range(max(4, trial.operations // 8)):
        offset, length = random_range(device, chance)
        may_unmap = chance.random() < 0.5
        doing = f"fast zero of {length} bytes at {offset} (may_unmap={may_unmap})"
        try:
            device.zero(offset, length, fast_only=True, may_unmap=may_unmap)
        except NotSupported:
            pass
        else:
            if not device.traits.fast_zero:
                raise Violation(f"{doing}: expected NotSupported from a device whose traits say so, found none")
            model.zero(offset, length)
        model.check_device(device, doing)


def _check_backing(trial: Trial) -> None:
    """The files' bytes are the device's, and those that may be written to are its bytes for reading too."""
    device, model, chance = trial.device, trial.model, trial.chance
    if sys.platform == "win32":
        return
    for _ in range(max(4, trial.operations // 8)):
        offset, length = random_range(device, chance)
        if device.traits.writable and chance.random() < 0.5:
            data = chance.randbytes(length)
            device.write(offset, data)
            model.write(offset, data)
        with device.backing(offset, length) as runs:
            position = offset
            for fd, start, count, writable in runs or ():
                doing = f"backing of {length} bytes at {offset}: {count} bytes at {start} of file {fd}"
                if count <= 0 or position + count > offset + length:
                    raise Violation(f"{doing}: expected runs of over 0 and at most {length} bytes in all")
                if writable and not device.traits.writable:
                    raise Violation(f"{doing}: expected none to write to from a device that is read-only")
                if writable and chance.random() < 0.5:
                    data = chance.randbytes(count)
                    os.pwrite(fd, data, start)
                    model.write(position, data)
                    model.check(position, device.read(position, count), doing)
                model.check(position, os.pread(fd, count, start), doing)
                position += count
    model.check_device(device, "after what was written to files behind it")


def _check_resizing(trial: Trial) -> None:
    """What a resizable device gains reads as zeros, also where it lost other bytes before."""
    device, model, chance = trial.device, trial.model, trial.chance
    if not isinstance(device, ResizableDevice) or not device.traits.writable:
        return
    block = device.traits.minimum_block
    for _ in range(max(4, trial.operations // 16)):
        size = align_down(chance.randrange(2 * len(model) + 64 * KiB), block)
        device.resize(size)
        kept = min(size, len(model))
        added = bytes(size - kept)
        model.content[kept:] = added
        model.unspecified[kept:] = added
        model.check_device(device, f"resized to {size} bytes")
        if size:
            offset, length = random_range(device, chance)
            data = chance.randbytes(length)
            device.write(offset, data)
            model.write(offset, data)
    _expect(OutOfRange, lambda: device.resize(-1), "resize below 0")
    model.check_device(device, "after resizing")


def _parts(length: int, chance: random.Random) -> list[int]:
    """Return lengths that add up to ``length``, some of them 0."""
    cuts = sorted(chance.randint(0, length) for _ in range(chance.choice((0, 0, 1, 3, 40))))
    return [high - low for low, high in zip([0, *cuts], [*cuts, length], strict=True)]


def _expect(kind: type[Exception], call: Callable[[], object], doing: str) -> None:
    try:
        call()
    except kind:
        return
    except Exception as error:
        raise Violation(f"{doing}: expected {kind.__name__}, found {error!r}") from error
    raise Violation(f"{doing}: expected {kind.__name__}, found no error")
