"""Where an address leads: to whoever listens there, or to one line that says why nobody does."""

import os
import socket
import sys
import threading
from contextlib import ExitStack, suppress

import pytest

from blockwright.errors import NotFound, UsageError
from blockwright.nbd.dial import dial
from blockwright.nbd.server.listeners import closing_all, listen_unix
from blockwright.nbd.uri import NbdUri, parse_uri


def test_a_socket_file_may_have_any_name(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/a+ \xff\n")
    with closing_all([listen_unix(path)]):
        uri = parse_uri(str(NbdUri("unix", path=path)))
        dial(uri).close()
    with pytest.raises(NotFound, match="nobody listens there"):
        dial(uri)


def test_a_path_that_no_socket_can_have_is_refused():
    with pytest.raises(UsageError, match="expected the path of a socket: af_unix path too long"):
        dial(NbdUri("unix", path="/" + "a" * 200))


def test_nobody_listens_there():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NotFound, match="nobody listens there"):
        dial(NbdUri("tcp", host="127.0.0.1", port=port))
    with pytest.raises(NotFound, match="no such host"):
        dial(NbdUri("tcp", host="host.invalid"))


def test_what_the_host_says_of_an_address_names_it(tmp_path):
    (tmp_path / "file").touch()
    uri = NbdUri("unix", path=f"{tmp_path}/file/socket")
    with pytest.raises(NotADirectoryError, match="Not a directory") as caught:
        dial(uri)
    assert caught.value.filename == str(uri)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such a socket refuses")
def test_where_many_wait_already_one_waits_for_room(tmp_path):
    path = f"{tmp_path}/socket"
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        with suppress(BlockingIOError):
            while True:
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect(path)
        with pytest.raises(TimeoutError, match="timed out") as caught:
            dial(NbdUri("unix", path=path), timeout_s=0.2)
        assert caught.value.filename == str(NbdUri("unix", path=path))
        accepting = threading.Timer(0.2, lambda: stack.enter_context(listener.accept()[0]))
        accepting.start()
        dial(NbdUri("unix", path=path), timeout_s=30).close()
        accepting.join(30)
