"""A copy from or to a server that does not answer ends when it is told to, and leaves nothing."""

import signal
import subprocess
import sys
import time

import pytest

from blockwright.nbd.wire import Command
from tests.support.command import COMMAND, files_in
from tests.support.nbdcrash import CrashServer, Hang, Rules

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets and signals")

SIZE = 8 << 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("asked", [Command.READ, Command.WRITE])
def test_signals_end_a_copy_that_waits(tmp_path, number, asked):
    folder = tmp_path / "out"
    folder.mkdir()
    (tmp_path / "disk").write_bytes(b"x" * SIZE)

    def before(request):
        if request.command == asked and (asked == Command.WRITE or request.offset < SIZE - (1 << 20)):
            raise Hang

    with CrashServer(tmp_path, Rules(size=SIZE, before=before)) as server:
        pair = [server.uri, folder / "copy"] if asked == Command.READ else [tmp_path / "disk", server.uri]
        argv = [*COMMAND, "nbd", "copy", "--quiet", "--force", "--timeout", "600", *pair]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while not any(request.command == asked for request in server.requests):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (130, b"", b"blockwright: interrupted\n")
    assert files_in(folder) == []
