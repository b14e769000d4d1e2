"""`blockwright dm` without device-mapper: what is refused, and how what a kernel told is shown."""

import os
import sys
import threading
import time

import pytest

from blockwright.cli.dm_change import _read_table
from blockwright.errors import NotFound, Unavailable
from blockwright.system.linux import dm
from blockwright.system.linux.dm.layout import Line
from blockwright.units import MiB
from tests.support.inprocess import blockwright, document

KEY = "c0ffee" * 10 + "c0de"
TABLE = [
    Line(0, 2048, "linear", "7:0 8"),
    Line(2048, 2048, "crypt", f"aes-xts-plain64 {KEY} 0 7:0 0"),
    Line(4096, 8, "flakey", "7:0 0 1 2"),
]


class Kernel:
    """In the place of a Mapper: one device, whose tables are kept."""

    made: list[object]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def table_lines(self, name, *, inactive):
        if name != "here":
            raise NotFound(f"{name}: no such device-mapper device")
        return TABLE[:1] if inactive else TABLE

    def status_lines(self, name, *, flush):
        return [Line(0, 2048, "snapshot", "16/2048 16"), Line(2048, 8, "linear", "")]

    def info(self, name):
        return dm.Info(name, "", 253, 1, 0, 7, False, False, True, False, False)

    def wait(self, name, event_nr, *, timeout_s):
        return self.info(name)

    def create(self, name, table, *, uuid, read_only):
        Kernel.made = [name, table, uuid, read_only]
        return f"/dev/mapper/{name}"


@pytest.fixture
def kernel(monkeypatch):
    from blockwright.cli import dm_change

    monkeypatch.setattr(dm, "Mapper", Kernel)
    monkeypatch.setattr(dm_change, "Mapper", Kernel)


def shown(*arguments, table=b"", code=0):
    return blockwright("dm", *arguments, input=table, code=code).stdout.decode()


@pytest.mark.parametrize(
    "command",
    [["list"], ["info", "x"], ["create", "x"], ["load", "x"], ["remove", "x"], ["wait", "x"], ["targets"]],
    ids=" ".join,
)
def test_without_the_driver_or_privilege_one_line_and_4(command):
    try:
        dm.Mapper().close()
    except Unavailable:
        pass
    else:
        pytest.skip("this kernel has device-mapper, and we may use it")
    told = blockwright("dm", *command, input=b"0 8 zero\n", code=4).stderr.decode()
    assert told.startswith("blockwright: /dev/mapper/control: ")


def test_a_table_as_text_has_no_key(kernel):
    assert shown("table", "/dev/mapper/here").splitlines() == [
        "0 2048 linear 7:0 8",
        f"2048 2048 crypt aes-xts-plain64 {'0' * 64} 0 7:0 0",
        "4096 8 flakey 7:0 0 1 2",
    ]
    assert KEY not in shown("table", "here", "--json")
    assert KEY in shown("table", "here", "--show-keys")
    assert shown("table", "here", "--inactive") == "0 2048 linear 7:0 8\n"
    assert shown("table", "elsewhere", code=5) == ""


def test_documents_have_bytes_and_typed_fields(kernel):
    found = document("dm", "table", "here")
    assert (found["schema"], found["name"]) == ("blockwright.dm.table/1", "here")
    linear, crypt, flakey = found["targets"]
    assert linear == {
        "start": 0,
        "size": MiB,
        "type": "linear",
        "text": "7:0 8",
        "parameters": {"device": "7:0", "offset": 4096},
    }
    assert (crypt["start"], crypt["parameters"]["key"]) == (MiB, "0" * 64)
    assert flakey["parameters"] is None
    snapshot, linear = document("dm", "status", "here")["targets"]
    assert snapshot["status"] == {"used": 8192, "total": MiB, "metadata": 8192, "problem": ""}
    assert linear == {"start": MiB, "size": 4096, "type": "linear", "text": "", "status": None}
    assert shown("status", "here") == "0 2048 snapshot 16/2048 16\n2048 8 linear\n"


def test_a_table_is_read_from_a_file_or_standard_input(kernel, tmp_path):
    (tmp_path / "table").write_text("0 2048 zero\n")
    assert shown("create", "x", str(tmp_path / "table"), "--uuid", "u", "-r") == "/dev/mapper/x\n"
    assert Kernel.made == ["x", [dm.Zero(MiB)], "u", True]
    shown("create", "x", table=b"0 8 linear /dev/\xff 0")
    assert Kernel.made == ["x", [dm.Linear(4096, "/dev/\udcff", 0)], "", False]


def test_tables_that_are_none(kernel, monkeypatch, tmp_path):
    from blockwright.cli import dm_change

    table = tmp_path / "table"
    shown("create", "x", str(table), code=5)
    table.write_text("0 8 zero\n0 8 zero\n")
    told = blockwright("dm", "create", "x", table, code=2).stderr.decode()
    assert told.startswith(f"blockwright: {table}: line 2: expected it to start at sector 8")
    monkeypatch.setattr(dm_change, "MAX_TABLE", 8)
    assert (
        b"expected a table of at most 8 bytes, found more" in blockwright("dm", "create", "x", table, code=1).stderr
    )


def test_a_wait_tells_the_event_or_that_there_was_none(kernel):
    assert shown("wait", "here", "6") == "7\n"
    assert shown("wait", "here", "7", "--timeout", "0", code=1) == ""
    assert document("dm", "wait", "here", "6")["event_nr"] == 7


def test_a_table_that_comes_slowly_is_waited_for(kernel, monkeypatch):
    """Standard input does not block, and is empty at first and between two lines."""
    out, into = os.pipe()
    os.set_blocking(out, False)

    def come():
        with os.fdopen(into, "wb", buffering=0) as pipe:
            for line in (b"0 2048 zero\n", b"2048 2048 error\n"):
                time.sleep(0.05)
                pipe.write(line)

    writer = threading.Thread(target=come)
    with os.fdopen(out, "r") as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        writer.start()
        table = _read_table("-")
    writer.join()
    assert [(each.kind, each.length) for each in table] == [("zero", MiB), ("error", MiB)]
