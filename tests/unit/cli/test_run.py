"""The command's frame: exit codes, errors in one line, JSON errors, quick starts."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from blockwright import __version__
from blockwright.cli.output import show_name, table
from tests.support.command import COMMAND, blockwright

pytestmark = pytest.mark.unprivileged


def test_version_and_help() -> None:
    assert blockwright("--version").stdout.decode() == f"blockwright {__version__}\n"
    told = blockwright("--help").stdout.decode()
    for name in ("build", "check", "convert", "fs", "inspect"):
        assert name in told
        assert b"Usage" in blockwright(name, "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nonsense"], 2),
        (["build"], 2),
        (["inspect"], 2),
        (["inspect", "/nonexistent/disk.img"], 5),
        (["inspect", "/"], 2),
        (["fs", "ls", "null:1M"], 1),
        (["check", "null:1M"], 1),
        (["fs", "nonsense"], 2),
        (["inspect", "null:1M", "--partition", "1"], 1),
        (["inspect", "null:1M", "--partition", "-1"], 2),
    ],
    ids=str,
)
def test_errors_are_one_line_with_their_code(arguments: list[str], code: int) -> None:
    blockwright(*arguments, code=code)


def test_json_errors_are_objects(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(4096))
    done = blockwright("check", tmp_path / "raw", "--json", code=1)
    told = json.loads(done.stderr)["error"]
    assert told["class"] == "NotThisFormat"
    assert told["code"] == 1
    assert told["source"] == str(tmp_path / "raw")
    assert done.stdout == b""


def test_debug_shows_the_traceback() -> None:
    done = subprocess.run([*COMMAND, "--debug", "inspect", "/nonexistent"], capture_output=True, check=False)
    assert b"Traceback" in done.stderr


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    script = f"{' '.join(COMMAND)} --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=False)
    assert b"Traceback" not in done.stderr
    assert b"BrokenPipe" not in done.stderr


def test_names_are_safe_on_a_terminal() -> None:
    assert show_name(b"plain \xc3\xa9") == "plain \u00e9"
    assert show_name(b"\x1b[31m\xff\n") == "\\x1b[31m\\xff\\n"


def test_columns_line_up() -> None:
    assert table([("a", "1"), ("bbb", "22")], "<>") == ["a     1", "bbb  22"]
    assert table([], "<>") == []


def test_sighup_that_was_ignored_stays_ignored() -> None:
    """nohup must hold for us as for everybody."""
    code = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from blockwright.cli.run import run; run(['--version'])\n"
        "assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN\n"
        "assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ), capture_output=True)
    assert hasattr(signal, "SIGHUP")
