"""What must be written again behind a reconnect, and when that is not known any more."""

from blockwright.nbd.client.unflushed import Unflushed
from blockwright.nbd.protocol.call import Call
from blockwright.nbd.wire import Command, CommandFlag


def write(data, offset=0, flags=0):
    return Call(Command.WRITE, offset, len(data), flags=flags, buffers=[memoryview(data)])


def note(log, *calls):
    with log.lock:
        log.note(calls)


def test_a_flush_covers_what_was_noted_before_it_and_nothing_else():
    log = Unflushed(1 << 20)
    note(log, write(b"a"))
    mark = log.mark()
    note(log, write(b"b"), Call(Command.WRITE_ZEROES, 8, 4, flags=CommandFlag.FAST_ZERO))
    log.flushed(mark)
    assert [(entry.offset, entry.length, entry.flags, entry.data) for entry in log.lost()] == [
        (0, 1, 0, b"b"),
        (8, 4, 0, None),
    ]
    log.flushed(log.mark())
    assert log.lost() == []
    assert not log.take_forgotten()


def test_buffers_are_copied():
    log, data = Unflushed(1 << 20), bytearray(b"before")
    note(log, write(data))
    data[:] = b"behind"
    assert log.lost()[0].data == b"before"


def test_durable_writes_count_only_behind_others():
    log = Unflushed(1 << 20)
    note(log, write(b"x", flags=CommandFlag.FUA))
    assert log.lost() == []
    note(log, write(b"y"), write(b"z", flags=CommandFlag.FUA))
    assert [entry.data for entry in log.lost()] == [b"y", b"z"]


def test_over_the_budget_nothing_is_kept_and_that_is_told_once():
    log = Unflushed(2000)
    note(log, write(bytes(1000)))
    note(log, write(bytes(1000)))
    note(log, write(b"small"))
    assert not log.take_forgotten(), "nothing was lost yet"
    assert log.lost() == []
    assert log.take_forgotten()
    assert not log.take_forgotten()
    note(log, write(b"new"))
    assert [entry.data for entry in log.lost()] == [b"new"]
    assert not log.take_forgotten()


def test_a_flush_makes_room_again():
    log = Unflushed(2000)
    note(log, write(bytes(3000)))
    mark = log.mark()
    note(log, write(b"behind the mark"))
    log.flushed(mark)
    log.lost()
    assert log.take_forgotten(), "what came behind the mark was not kept either"
    note(log, write(bytes(3000)))
    log.flushed(log.mark())
    log.lost()
    assert not log.take_forgotten()
