"""``blockwright nbd check``: what it prints, and its exit codes."""

import json
import os
import socket
import threading

import pytest

from blockwright.cli.run import run
from blockwright.nbd.conformance import CHECKS
from tests.support.nbdfaults import TABLE
from tests.support.nbdscripted import Config, Connection, Server


class Listening(Server):
    """The scripted server behind a Unix socket."""

    def __init__(self, path, config, fault=None):
        super().__init__(config, fault)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(os.fspath(path))
        self.listener.listen(16)
        self.thread = threading.Thread(target=self.accept)
        self.thread.start()

    def accept(self):
        while True:
            try:
                own, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=Connection(self, own).serve)
            thread.start()
            self._threads.append((thread, own))

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(30)
        self.listener.close()
        super().close()


@pytest.fixture
def serving(tmp_path):
    servers = []

    def start(fault=None, **config):
        server = Listening(tmp_path / "sock", Config(**config), fault)
        servers.append(server)
        return f"nbd+unix:///disk?socket={tmp_path}/sock"

    yield start
    for server in servers:
        server.close()


def test_a_server_that_keeps_the_rules(serving, capsys):
    assert run(["nbd", "check", serving(), "--write", "--timeout", "60"]) == 0
    out = capsys.readouterr().out
    assert " passed, 0 failed, " in out
    assert out.count("\n") == 1


def test_without_write_it_says_what_it_left_out(serving, capsys):
    assert run(["nbd", "check", serving(), "--timeout", "60"]) == 0
    out = capsys.readouterr().out
    left_out = sum(each.writes for each in CHECKS) - 4  # those that a writable export is not asked
    assert f"({left_out} would write: --write)" in out


def test_a_broken_must_is_3(serving, capsys):
    assert run(["nbd", "check", serving(TABLE["H04"].fault), "--timeout", "60"]) == 3
    first, summary = capsys.readouterr().out.splitlines()
    assert first.startswith("H04 MUST: an unknown client flag ends the connection: expected ")
    assert first.endswith("[Client flags]")
    assert " passed, 1 failed, " in summary


def test_a_broken_should_is_0_and_told(serving, capsys):
    assert run(["nbd", "check", serving(TABLE["T08"].fault), "--only", "T08", "--timeout", "60"]) == 0
    assert capsys.readouterr().out.startswith("T08 SHOULD: ")


def test_json(serving, capsys):
    wanted = ["--only", "T08", "--only", "W01", "--json", "--timeout", "60"]
    assert run(["nbd", "check", serving(TABLE["T08"].fault), *wanted]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "blockwright.nbd.check/1"
    assert document["summary"] == {"passed": 0, "failed": 1, "not_applicable": 1, "error": 0}
    failed, left_out = document["checks"]
    assert failed["id"] == "T08"
    assert failed["outcome"] == "failed"
    assert failed["level"] == "SHOULD"
    assert failed["section"] == "Error values"
    assert failed["message"] == "expected EINVAL, found ENOTSUP"
    assert left_out["outcome"] == "not applicable"
    assert left_out["message"] == "would write, which was not allowed"


def test_the_list(capsys):
    assert run(["nbd", "check", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CHECKS)
    assert lines[0].split()[:2] == ["H01", "MUST"]
    assert run(["nbd", "check", "--list", "--json"]) == 0
    assert [each["id"] for each in json.loads(capsys.readouterr().out)["checks"]] == [each.id for each in CHECKS]


def test_an_export_that_is_not_there_is_not_green(serving, capsys):
    uri = serving().replace("disk", "other")
    assert run(["nbd", "check", uri, "--timeout", "60"]) == 1
    told, summary = capsys.readouterr().out.splitlines()
    assert told.startswith(f"{uri}: the export itself was not verified: needs an export that can be entered: ")
    assert " passed, 0 failed, " in summary
    assert run(["nbd", "check", uri, "--only", "H01", "--timeout", "60"]) == 0  # which needs none
    capsys.readouterr()
    assert run(["nbd", "check", uri, "--only", "T08", "--json", "--timeout", "60"]) == 1
    assert "needs an export" in json.loads(capsys.readouterr().out)["unused"]


def test_nobody_there(tmp_path, capsys):
    assert run(["nbd", "check", f"nbd+unix:///?socket={tmp_path}/none"]) == 5
    assert "nobody listens there" in capsys.readouterr().err


def test_usage(serving, capsys):
    assert run(["nbd", "check"]) == 2
    assert "expected the address of a server" in capsys.readouterr().err
    assert run(["nbd", "check", serving(), "--only", "X1"]) == 2
    assert "X1" in capsys.readouterr().err


def test_help_shows_its_examples_in_lines(capsys):
    assert run(["nbd", "check", "--help"]) == 0
    assert "\n    blockwright nbd check nbd://localhost/disk\n" in capsys.readouterr().out
