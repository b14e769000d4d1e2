import random
import threading
from contextlib import suppress

import pytest

from blockwright.device.base import ResizableDevice, Traits
from blockwright.device.checkpoint import CHANGED
from blockwright.device.copy import copy
from blockwright.device.dirty import MAX_CHECKPOINTS, track
from blockwright.device.file import FileDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.device.window import Window
from blockwright.errors import NotFound, NotSupported, UsageError
from blockwright.testing import FaultDevice
from blockwright.units import KiB

BLOCK = 4 * KiB
SIZE = 200 * KiB + 77


def changed(checkpoint, device):
    """The changed blocks, by number."""
    blocks = set()
    for extent in checkpoint.extents(0, device.size):
        if extent.flags & CHANGED:
            blocks |= set(range(extent.offset // BLOCK, -(-extent.end // BLOCK)))
    return blocks


def touched(offset, length):
    return set(range(offset // BLOCK, -(-(offset + length) // BLOCK))) if length else set()


@pytest.mark.parametrize("seed", range(8))
def test_every_change_is_told_since_each_checkpoint(seed):
    """The model: a copy of the content, and the blocks touched, for each checkpoint."""
    chance = random.Random(seed)
    device = track(MemoryDevice(content=chance.randbytes(SIZE)))
    since: dict[str, tuple[bytes, set[int]]] = {}
    for step in range(300):
        roll = chance.random()
        if roll < 0.02 and len(since) < 4:
            device.checkpoint(f"c{step}", block=BLOCK)
            since[f"c{step}"] = (device.read(0, device.size), set())
        elif roll < 0.03 and since:
            name = chance.choice(list(since))
            device.forget(name)
            del since[name]
        elif roll < 0.06:
            before, after = device.size, chance.randrange(SIZE // 2, SIZE * 2)
            device.resize(after)
            for _, blocks in since.values():
                blocks.update(touched(before, max(0, after - before)))
        elif roll < 0.4:
            offset = chance.randrange(device.size)
            device.read(offset, min(5000, device.size - offset))
        else:
            offset = chance.randrange(device.size)
            length = min(chance.choice((0, 1, 100, BLOCK, 20_000)), device.size - offset)
            if roll < 0.7:
                device.write(offset, chance.randbytes(length))
            elif roll < 0.85:
                device.zero(offset, length)
            else:
                device.discard(offset, length)
            for _, blocks in since.values():
                blocks.update(touched(offset, length))
        for each in device.checkpoints:
            blocks = since[each.name][1]
            last = -(-device.size // BLOCK)
            assert changed(each, device) == {block for block in blocks if block < last}, f"seed {seed}, step {step}"
    for each in device.checkpoints:
        check_increment(device, each, since[each.name][0])


def check_increment(device, checkpoint, old):
    """What was, with what changed put over it, is what is."""
    target = MemoryDevice(content=old)
    target.resize(device.size)
    for extent in checkpoint.extents(0, device.size):
        if extent.flags:
            target.write(extent.offset, device.read(extent.offset, extent.length))
    assert target.read(0, target.size) == device.read(0, device.size)


class Full(MemoryDevice):
    def _resize(self, size):
        raise OSError(28, "no space")


@pytest.mark.parametrize(
    ("change", "blocks"),
    [
        (lambda device: device.write(BLOCK, b"x" * 5), {1}),
        (lambda device: device.zero(BLOCK, 5), {1}),
        (lambda device: device.discard(BLOCK, 5), {1}),
    ],
)
def test_a_change_that_fails_is_told(change, blocks):
    device = track(FaultDevice(MemoryDevice(SIZE), 0))
    checkpoint = device.checkpoint("c", block=BLOCK)
    with pytest.raises(OSError, match=r"."):
        change(device)
    assert changed(checkpoint, device) == blocks


def test_growth_that_fails_is_told():
    device = track(Full(SIZE))
    checkpoint = device.checkpoint("c", block=BLOCK)
    with pytest.raises(OSError, match="no space"):
        device.resize(SIZE + BLOCK)
    assert changed(checkpoint, device) == {SIZE // BLOCK}


class Gate(ForwardingDevice):
    """Says what was marked when a change reaches it, and can hold it there."""

    def __init__(self, inner):
        super().__init__(inner)
        self.seen = []
        self.look = lambda: None
        self.arrived, self.go = threading.Event(), threading.Event()
        self.go.set()

    def _write(self, offset, buffers, *, durable):
        self.seen.append(self.look())
        self.arrived.set()
        assert self.go.wait(30)
        super()._write(offset, buffers, durable=durable)


def test_a_range_is_marked_before_it_changes():
    gate = Gate(MemoryDevice(SIZE))
    device = track(gate)
    checkpoint = device.checkpoint("c", block=BLOCK)
    gate.look = lambda: changed(checkpoint, device)
    device.write(3 * BLOCK - 1, b"ab")
    assert gate.seen == [{2, 3}]


def test_a_checkpoint_made_while_a_write_is_under_way_tells_of_it():
    gate = Gate(MemoryDevice(SIZE))
    device = track(gate)
    device.checkpoint("before", block=BLOCK)
    gate.go.clear()
    thread = threading.Thread(target=device.write, args=(BLOCK, b"late"))
    thread.start()
    assert gate.arrived.wait(30)
    checkpoint = device.checkpoint("during", block=BLOCK)
    old = device.read(0, SIZE)
    gate.go.set()
    thread.join()
    assert changed(checkpoint, device) == {1}
    check_increment(device, checkpoint, old)


def test_threads_that_write_while_checkpoints_come_lose_nothing():
    device = track(MemoryDevice(1 << 20))
    stop = threading.Event()

    def write(seed):
        chance = random.Random(seed)
        while not stop.is_set():
            # Each thread has blocks of its own, as the contract wants.
            device.write(chance.randrange(seed, 256, 4) * BLOCK + chance.randrange(4000), chance.randbytes(20))

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    kept = [(device.checkpoint(f"{turn}", block=BLOCK), device.read(0, device.size)) for turn in range(8)]
    stop.set()
    for thread in threads:
        thread.join()
    for checkpoint, old in kept:
        check_increment(device, checkpoint, old)


def test_a_refused_change_changes_nothing():
    device = track(Window(MemoryDevice(SIZE), 0, SIZE, read_only=True))
    checkpoint = device.checkpoint("c")
    with suppress(UsageError):
        device.write(0, b"x")
    assert not any(each.flags for each in checkpoint.extents(0, SIZE))


def test_only_what_can_grow_is_resizable():
    assert isinstance(track(MemoryDevice(1)), ResizableDevice)
    assert not isinstance(track(Window(MemoryDevice(9), 0, 5)), ResizableDevice)


def test_backing_may_be_read_and_not_written(tmp_path):
    with FileDevice(tmp_path / "f", create=True) as made:
        made.resize(SIZE)
    inner = FileDevice(tmp_path / "f", writable=True)
    with track(inner) as device:
        with inner.backing(0, SIZE) as runs:
            assert [run.writable for run in runs] == [True]
        with device.backing(0, SIZE) as runs:
            assert [run.writable for run in runs] == [False]
            assert runs[0].length == SIZE
    with track(MemoryDevice(SIZE)) as device, device.backing(0, SIZE) as runs:
        assert runs is None


def test_checkpoints_are_few_and_have_names_of_their_own():
    device = track(MemoryDevice(SIZE))
    device.checkpoint("a")
    with pytest.raises(UsageError, match="there already"):
        device.checkpoint("a")
    for index in range(MAX_CHECKPOINTS - 1):
        device.checkpoint(f"{index}")
    with pytest.raises(UsageError, match="at most"):
        device.checkpoint("more")
    device.forget("3")
    device.checkpoint("more")
    with pytest.raises(NotFound):
        device.forget("3")


def test_a_copy_through_it_is_tracked():
    device = track(MemoryDevice(SIZE))
    checkpoint = device.checkpoint("c", block=BLOCK)
    content = bytes(BLOCK) + b"x" * BLOCK + bytes(SIZE - 2 * BLOCK)
    copy(MemoryDevice(content=content), device)
    assert 1 in changed(checkpoint, device)
    assert device.read(0, SIZE) == content


def test_fast_only_is_the_inner_devices():
    track(MemoryDevice(SIZE)).zero(0, 10, fast_only=True)
    with pytest.raises(NotSupported):
        track(ForwardingDevice(MemoryDevice(SIZE), traits=Traits(writable=True))).zero(0, 10, fast_only=True)


# -- kept in a file --------------------------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(bytes(SIZE))
    return path


def opened(image):
    return track(FileDevice(image, writable=True))


def test_a_kept_checkpoint_goes_on_after_close(image, tmp_path):
    kept = tmp_path / "kept"
    with opened(image) as device:
        assert changed(device.keep("c", kept, block=BLOCK), device) == set()
        device.write(BLOCK * 7, b"one")
    with opened(image) as device:
        checkpoint = device.keep("c", kept)
        assert changed(checkpoint, device) == {7}
        assert checkpoint.block == BLOCK
        device.write(BLOCK * 9, b"two")
    with opened(image) as device:
        assert changed(device.keep("c", kept), device) == {7, 9}
        device.forget("c")
        assert not kept.exists()


def test_without_a_clean_close_all_has_changed(image, tmp_path):
    kept = tmp_path / "kept"
    with opened(image) as device:
        device.keep("c", kept, block=BLOCK)
    inner = FileDevice(image, writable=True)
    device = track(inner, owns=False)
    device.keep("c", kept)
    device.write(0, b"x")  # and its process ends here
    inner.close()
    with opened(image) as device:
        assert changed(device.keep("c", kept), device) == touched(0, SIZE)


def test_an_image_that_somebody_else_wrote_has_changed(image, tmp_path):
    kept = tmp_path / "kept"
    with opened(image) as device:
        device.keep("c", kept, block=BLOCK)
    with open(image, "r+b") as file:
        file.write(b"behind our back")
    with opened(image) as device:
        assert changed(device.keep("c", kept), device) == touched(0, SIZE)


def test_a_device_of_another_size_has_changed(tmp_path):
    kept = tmp_path / "kept"
    with track(MemoryDevice(SIZE)) as device:
        device.keep("c", kept, block=BLOCK)
    with track(MemoryDevice(SIZE)) as device:
        assert changed(device.keep("c", kept), device) == set()
    with track(MemoryDevice(SIZE + 1)) as device:
        assert changed(device.keep("c", kept), device) == touched(0, SIZE + 1)


def test_growth_is_kept(image, tmp_path):
    kept = tmp_path / "kept"
    with opened(image) as device:
        device.keep("c", kept, block=BLOCK)
        device.resize(SIZE + 3 * BLOCK)
    with opened(image) as device:
        assert changed(device.keep("c", kept), device) == touched(SIZE, 3 * BLOCK)


def test_a_file_of_another_checkpoint_is_refused(image, tmp_path):
    kept = tmp_path / "kept"
    with opened(image) as device:
        device.keep("c", kept)
    before = kept.read_bytes()
    with opened(image) as device:
        with pytest.raises(UsageError, match="expected the checkpoint 'd', found 'c'"):
            device.keep("d", kept)
        assert device.checkpoints == ()
    assert kept.read_bytes() == before


def test_a_place_that_cannot_be_written_is_told_at_once(image, tmp_path):
    with opened(image) as device:
        with pytest.raises(OSError, match="No such file"):
            device.keep("c", tmp_path / "none" / "kept")
        assert device.checkpoints == ()


def test_a_file_that_cannot_be_saved_at_the_end_says_that_all_changed(image, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    device = opened(image)
    device.keep("c", folder / "kept", block=BLOCK)
    data = (folder / "kept").read_bytes()
    (folder / "kept").unlink()
    folder.rmdir()
    with pytest.raises(OSError, match="No such file"):
        device.close()
    assert device._inner.closed
    folder.mkdir()
    (folder / "kept").write_bytes(data)
    with opened(image) as device:
        assert changed(device.keep("c", folder / "kept"), device) == touched(0, SIZE)


def test_a_device_that_is_only_read_leaves_its_checkpoint_as_it_is(image, tmp_path):
    kept = tmp_path / "kept"
    with opened(image) as device:
        device.keep("c", kept, block=BLOCK)
        device.write(BLOCK, b"x")
    device = track(FileDevice(image))
    assert changed(device.keep("c", kept), device) == {1}
    device._inner.close()  # its process ends without closing it
    with opened(image) as device:
        assert changed(device.keep("c", kept), device) == {1}
