import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.device import HOLE, ZERO, Extent, Traits
from blockwright.device.concat import Concat
from blockwright.device.extent import clip, merge
from blockwright.device.file import FileDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import PAGE, MemoryDevice, ZeroDevice
from blockwright.errors import Misaligned, NotSupported, OutOfRange, ReadOnly
from blockwright.testing import RecordingDevice


@given(st.lists(st.tuples(st.integers(0, 9), st.binary(max_size=9)), max_size=8), st.integers(0, 9), st.data())
def test_gaps_read_as_zeros(pieces, tail, data):
    parts, content = [], b""
    for gap, body in pieces:
        content += bytes(gap)
        parts.append((len(content), MemoryDevice(content=body)))
        content += body
    content += bytes(tail)
    device = Concat(data.draw(st.permutations(parts)), len(content))
    offset = data.draw(st.integers(0, len(content)))
    length = data.draw(st.integers(0, len(content) - offset))
    assert device.read(offset, length) == content[offset : offset + length]
    assert device.traits.writable == (
        bool(parts) and any(body for _, body in pieces) and not bytes_between(pieces, tail)
    )


def bytes_between(pieces, tail):
    return tail + sum(gap for gap, _ in pieces)


def test_each_part_gets_its_share():
    parts = [RecordingDevice(MemoryDevice(10)) for _ in range(3)]
    device = Concat.of(*parts)
    device.write(5, b"x" * 20)
    device.zero(9, 2)
    device.discard(19, 11)
    device.flush()
    assert [[call[:3] for call in part.calls] for part in parts] == [
        [("write", 5, 5), ("zero", 9, 1), ("flush", 0, 0)],
        [("write", 0, 10), ("zero", 0, 1), ("discard", 9, 1), ("flush", 0, 0)],
        [("write", 0, 5), ("discard", 0, 10), ("flush", 0, 0)],
    ]


def test_a_fast_zero_over_two_parts_is_refused_with_nothing_changed():
    device = Concat.of(MemoryDevice(content=b"xx"), MemoryDevice(content=b"yy"))
    with pytest.raises(NotSupported):
        device.zero(1, 2, fast_only=True)
    assert device.read(0, 4) == b"xxyy"
    device.zero(1, 1, fast_only=True)
    assert device.read(0, 4) == b"x\0yy"


def test_capabilities_are_those_that_all_have():
    slow = ForwardingDevice(
        MemoryDevice(4096), traits=Traits(writable=True, minimum_block=512, parallelism=2, preferred_block=8192)
    )
    device = Concat.of(MemoryDevice(4096), slow)
    assert device.traits == Traits(
        writable=True, discard=True, parallelism=2, minimum_block=512, preferred_block=8192
    )
    assert not Concat.of(MemoryDevice(8), ZeroDevice(8)).traits.writable


def test_with_a_gap_nothing_can_be_written():
    device = Concat([(0, MemoryDevice(8)), (9, MemoryDevice(8))])
    with pytest.raises(ReadOnly):
        device.write(0, b"x")


def test_parts_that_cannot_be():
    with pytest.raises(OutOfRange, match="from byte 8 on, found one at 7"):
        Concat([(0, MemoryDevice(8)), (7, MemoryDevice(8))])
    with pytest.raises(OutOfRange, match="end by byte 7, found an end at 8"):
        Concat([(0, MemoryDevice(8))], 7)
    with pytest.raises(OutOfRange):
        Concat([(-1, MemoryDevice(8))])
    blocked = ForwardingDevice(MemoryDevice(1024), traits=Traits(minimum_block=512))
    with pytest.raises(Misaligned):
        Concat([(100, blocked)])


def test_extents_of_parts_are_shifted_and_joined():
    device = Concat([(0, ZeroDevice(100)), (200, ZeroDevice(100))], 400)
    assert list(device.extents()) == [Extent(0, 400, HOLE | ZERO)]


def test_backing_is_that_of_the_first_part(tmp_path):
    path = tmp_path / "part"
    path.write_bytes(b"abcdef")
    device = Concat.of(FileDevice(path), MemoryDevice(content=b"ghi"))
    with device.backing(2, 7) as runs:
        assert [(run.offset, run.length) for run in runs] == [(2, 4)]
    with device.backing(6, 3) as runs:
        assert runs is None
    device.close()


def test_ownership():
    part = MemoryDevice(8)
    Concat.of(part, owns=False).close()
    assert not part.closed
    Concat.of(part).close()
    assert part.closed


def test_extents_from_within_a_part():
    part = 3 * PAGE
    device = Concat.of(*(MemoryDevice(part) for _ in range(3)))
    for offset in (PAGE, part + PAGE, 2 * part):
        device.write(offset, b"x")
    whole = list(device.extents())
    for start in range(0, device.size, PAGE):
        assert list(device.extents(start)) == list(merge(clip(whole, start, device.size)))
