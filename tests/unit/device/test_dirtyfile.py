import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.device.blockmap import PAGE
from blockwright.device.checkpoint import MAX_BLOCKS, Checkpoint
from blockwright.device.dirtyfile import MAX_FILE, WITNESS, Header, _checksum, decode, encode
from blockwright.errors import Corrupt, FormatError, LimitExceeded, NotThisFormat, Unsupported

BLOCK = 512
SIZE = BLOCK * PAGE * 3 + 5
blocks = st.tuples(st.integers(0, SIZE - 1), st.sampled_from([1, 512, 100_000, BLOCK * PAGE]))


def marked(*ranges):
    checkpoint = Checkpoint("daily", SIZE, block=BLOCK)
    for offset, length in ranges:
        checkpoint.mark(offset, min(length, SIZE - offset))
    return checkpoint


@given(st.lists(blocks, max_size=8))
def test_comes_back_as_it_was(ranges):
    checkpoint = marked(*ranges)
    saved = decode(encode(checkpoint, SIZE, b"w" * WITNESS, clean=True), "f")
    assert (saved.name, saved.size, saved.witness, saved.clean) == ("daily", SIZE, b"w" * WITNESS, True)
    copy = Checkpoint(saved.name, saved.size, block=1 << saved.block_shift)
    for index, states in saved.pages:
        copy.put_page(index, states)
    assert list(copy.extents(0, SIZE)) == list(checkpoint.extents(0, SIZE))


def test_the_bytes_are_those_of_the_description():
    data = encode(marked((0, 1), (BLOCK * 9, 1), (BLOCK * PAGE, BLOCK * PAGE)), SIZE, b"w" * WITNESS, clean=True)
    assert data[:16] == b"BWCHANGE" + b"\x01\x00" + b"\x01\x00" + b"\x09\0\0\0"
    assert data[72:77] == b"daily"
    assert data[77:89] == bytes(8) + b"\x02\0\0\0"
    assert data[89:91] == b"\x01\x02"
    assert data[89 + 2048 :] == b"\x01" + bytes(7) + b"\x01\0\0\0"


def test_an_open_one_tells_no_blocks():
    data = encode(marked((0, SIZE)), SIZE, bytes(WITNESS), clean=False)
    assert decode(data, "f").pages == ()
    assert not decode(data, "f").clean


def test_the_largest_fits():
    checkpoint = Checkpoint("c", MAX_BLOCKS, block=1)
    for index in range(MAX_BLOCKS // PAGE):
        checkpoint.put_page(index, b"\x01\x00" * (PAGE // 2))
    data = encode(checkpoint, MAX_BLOCKS, bytes(WITNESS), clean=True)
    assert len(data) <= MAX_FILE
    assert decode(data, "f").pages[-1][1] == b"\x01\x00" * (PAGE // 2)


GOOD = encode(marked((5, 1), (BLOCK * PAGE, BLOCK * PAGE)), SIZE, bytes(WITNESS), clean=True)


def signed(data):
    """The bytes with their checksum put right: what only the other rules can refuse."""
    header = Header.parse(data)
    return header.replace(checksum=_checksum(header.pack(), data[Header.SIZE :])).pack() + data[Header.SIZE :]


def changed(**fields):
    return signed(Header.parse(GOOD).replace(**fields).pack() + GOOD[Header.SIZE :])


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", NotThisFormat),
        (b"QFI\xfb" + bytes(100), NotThisFormat),
        (b"BWCHANGE", Corrupt),
        (GOOD[:-1], Corrupt),
        (GOOD + b"\0", Corrupt),
        (signed(GOOD[:-1]), Corrupt),
        (signed(GOOD + b"\0"), Corrupt),
        (changed(version=2), Unsupported),
        (changed(name_length=0), Corrupt),
        (changed(name_length=201), Corrupt),
        (changed(name_length=0xFFFFFFFF), Corrupt),
        (changed(pages=0xFFFFFFFF), Corrupt),
        (changed(pages=1), Corrupt),
        (changed(block_shift=0xFFFFFFFF), LimitExceeded),
        (changed(block_shift=0, size=MAX_BLOCKS + 1), LimitExceeded),
        (changed(size=(1 << 64) - 1), LimitExceeded),
        (signed(GOOD[:72] + b"\xff" * 5 + GOOD[77:]), Corrupt),
        (signed(GOOD[:77] + b"\xff" * 8 + GOOD[85:]), Corrupt),
        (signed(GOOD[:85] + b"\x03" + GOOD[86:]), Corrupt),
        (GOOD + bytes(MAX_FILE), LimitExceeded),
    ],
)
def test_what_is_none_is_refused(data, kind):
    with pytest.raises(kind):
        decode(data, "f")


@pytest.mark.parametrize("seed", range(300))
def test_any_bytes_are_a_value_or_a_format_error(seed):
    chance = random.Random(seed)
    data = bytearray(GOOD)
    for _ in range(chance.randrange(1, 5)):
        data[chance.randrange(len(data) if seed % 3 else 120)] = chance.randrange(256)
    data = bytes(data) if seed % 5 else signed(bytes(data)[: chance.randrange(72, len(data))])
    data = signed(data) if seed % 2 else data
    try:
        saved = decode(data, "f")
    except FormatError:
        return
    assert saved.name
    assert all(index < MAX_BLOCKS // PAGE for index, _ in saved.pages)


def test_every_single_changed_bit_is_noticed():
    for position in range(0, len(GOOD) * 8, 7):
        data = bytearray(GOOD)
        data[position // 8] ^= 1 << position % 8
        if 64 * 8 <= position < 72 * 8 and position >= 68 * 8:
            continue  # four bytes that nobody reads
        with pytest.raises(FormatError):
            decode(bytes(data), "f")
