import os
import socket
import subprocess
import sys
import threading

import pytest

from blockwright.nbd.server.pipes import PipeStream


@pytest.fixture
def pair():
    """A stream, and the other ends of its two pipes as (write to it, read from it)."""
    incoming, feed = os.pipe()
    take, outgoing = os.pipe()
    stream = PipeStream(incoming, outgoing)
    ends = [feed, take]
    yield stream, ends
    stream.close()
    for fd in ends:
        if fd is not None:
            os.close(fd)


def test_bytes_go_both_ways(pair):
    stream, (feed, take) = pair
    buffer = memoryview(bytearray(100))
    assert stream.receive_now(buffer) is None
    os.write(feed, b"hello")
    assert stream.receive_into(buffer) == 5
    assert bytes(buffer[:5]) == b"hello"
    stream.send(b"answer")
    assert os.read(take, 100) == b"answer"


def test_more_than_a_pipe_holds_is_sent_whole(pair):
    stream, (_, take) = pair
    data = bytes(range(256)) * 4096
    sender = threading.Thread(target=stream.send, args=(data,), daemon=True)
    sender.start()
    got = bytearray()
    while len(got) < len(data):
        got += os.read(take, 65536)
    sender.join(30)
    assert got == data


def test_the_end_of_the_pipe_is_the_end(pair):
    stream, ends = pair
    os.close(ends[0])
    ends[0] = None
    assert stream.receive_into(memoryview(bytearray(1))) == 0
    os.close(ends[1])
    ends[1] = None
    with pytest.raises(BrokenPipeError):
        stream.send(b"x")


def test_times_are_kept(pair):
    stream, _ = pair
    stream.set_timeout(0.01, 0.01)
    with pytest.raises(TimeoutError, match="sent nothing"):
        stream.receive_into(memoryview(bytearray(1)))
    with pytest.raises(TimeoutError, match="took nothing"):
        stream.send(bytes(1 << 20))
    assert stream.send_now(memoryview(b"x")) == 0


def test_shutting_down_ends_a_receive_and_lets_replies_out(pair):
    stream, (_, take) = pair
    found = []

    def receive():
        found.append(stream.receive_into(memoryview(bytearray(1))))

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    stream.shut_down(reading_only=True)
    thread.join(30)
    assert found == [0]
    stream.send(b"late")
    assert os.read(take, 10) == b"late"
    stream.shut_down()
    with pytest.raises(BrokenPipeError):
        stream.send(b"later")
    stream.close()
    stream.close()
    stream.shut_down()


@pytest.mark.parametrize("already", [False, True], ids=["at once", "reading had ended before"])
@pytest.mark.parametrize("waits", [False, True], ids=["before it waits", "while it waits"])
def test_shutting_down_ends_a_send(pair, monkeypatch, already, waits):
    stream, _ = pair
    failed = []
    waiting, ended = threading.Event(), threading.Event()
    wait = stream._wait

    def noticed(*args):
        waiting.set()
        assert waits or ended.wait(30)
        wait(*args)

    def send():
        try:
            stream.send(bytes(1 << 20))
        except OSError as error:
            failed.append(error)

    monkeypatch.setattr(stream, "_wait", noticed)
    if already:
        stream.shut_down(reading_only=True)
    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    assert waiting.wait(30)
    stream.shut_down()
    ended.set()
    thread.join(30)
    assert [type(error) for error in failed] == [BrokenPipeError]


@pytest.mark.parametrize(
    ("stdin", "stdout", "said"),
    [
        ("closed", "pipe", "found one closed"),
        ("null", "pipe", "expected a socket on standard input, or pipes"),
        ("pipe", "null", "expected a socket on standard input, or pipes"),
        ("datagrams", "pipe", "expected a stream socket"),
        ("pipe", "pipe", "PipeStream pipe"),
        ("socket", "null", "SocketStream unix"),
    ],
)
def test_standard_input_and_output_are_told_apart(stdin, stdout, said):
    program = (
        "import os, sys\n"
        "from blockwright.nbd.server.pipes import open_stdio\n"
        "if sys.argv[1] == 'closed': os.close(0)\n"
        "try:\n    stream, peer = open_stdio()\n"
        "    sys.stderr.write(f'{type(stream).__name__} {peer.kind}')\n"
        "    print('nothing printed reaches the client')\n"
        "except ValueError as error:\n    sys.stderr.write(str(error))\n"
    )
    ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM if stdin == "datagrams" else socket.SOCK_STREAM)
    kinds = {
        "closed": None,
        "null": subprocess.DEVNULL,
        "pipe": subprocess.PIPE,
        "datagrams": theirs,
        "socket": theirs,
    }
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", program, stdin],
            stdin=kinds[stdin],
            stdout=kinds[stdout],
            stderr=subprocess.PIPE,
            text=True,
        )
        printed, errors = process.communicate(timeout=60)
    assert said in errors
    assert not printed
