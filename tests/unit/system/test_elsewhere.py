"""On another system than Linux each command for loop devices, partitions, device-mapper and verity exits with 4."""

import sys

import pytest

from blockwright.cli.run import run

COMMANDS = [
    ["loop", "attach", "disk.img"],
    ["loop", "detach", "loop0"],
    ["loop", "refresh", "loop0"],
    ["loop", "list"],
    ["loop", "find", "disk.img"],
    ["loop", "gc"],
    ["map", "add", "disk.img"],
    ["map", "rm", "disk.img"],
    ["map", "list"],
    ["dm", "list"],
    ["dm", "info", "name"],
    ["dm", "table", "name"],
    ["dm", "status", "name"],
    ["dm", "deps", "name"],
    ["dm", "targets"],
    ["dm", "create", "name", "no-table"],
    ["dm", "load", "name", "no-table"],
    ["dm", "clear", "name"],
    ["dm", "resume", "name"],
    ["dm", "suspend", "name"],
    ["dm", "remove", "name"],
    ["dm", "rename", "name", "to"],
    ["dm", "message", "name", "0", "text"],
    ["dm", "wait", "name"],
    ["verity", "open", "disk.img", "hashes.img", "00" * 32, "name"],
    ["verity", "close", "name"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_one_line_and_4(command, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for name in ("disk.img", "hashes.img"):
        (tmp_path / name).write_bytes(bytes(1 << 20))
    assert run([*command[:2], "--help"]) == 0  # what it stands on is imported
    capsys.readouterr()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert run(command) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("needs Linux, this is darwin\n")
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "home").exists()
