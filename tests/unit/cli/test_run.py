"""The command's frame: exit codes, errors in one line, JSON errors, quick starts."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from blockwright import __version__
from blockwright.cli import run as run_module
from blockwright.cli import signals
from blockwright.cli.output import show_name, table
from blockwright.cli.params import Seconds
from tests.support.command import COMMAND, blockwright, interrupt
from tests.support.commands import every_command

pytestmark = pytest.mark.unprivileged

AS_USERS_DO = [sys.executable, "-m", "blockwright"]
"""Without -W error: a stream that stays open to the end, or a signal behind an open, warns of itself."""


def test_version_and_help() -> None:
    assert blockwright("--version").stdout.decode() == f"blockwright {__version__}\n"
    told = blockwright("--help").stdout.decode()
    for name in ("build", "check", "convert", "fs", "inspect"):
        assert name in told
        own = blockwright(name, "--help").stdout.decode()
        assert "Usage" in own
        assert "\\b" not in own
    assert "\n    blockwright build rootfs/ -o disk.img\n" in blockwright("build", "--help").stdout.decode()


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


def test_no_arguments_show_the_help_as_it_is() -> None:
    done = subprocess.run(COMMAND, capture_output=True, check=False, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: blockwright")
    assert "\n  convert" in done.stderr


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e300", "0", "-1", "soon"])
@pytest.mark.parametrize("command", [["nbd", "copy", "a", "b"], ["nbd", "check", "nbd://x"], ["nbd", "detach", "0"]])
def test_what_is_no_time_is_refused(command: list[str], seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_module.run([*command, "--timeout", seconds]) == 2
    assert "'--timeout'" in capsys.readouterr().err


def test_what_is_not_printable_in_an_error_is_escaped() -> None:
    done = blockwright("inspect", "/nonexistent/\x1b[31m\nname", code=5)
    assert b"/nonexistent/\\x1b[31m\\nname: no such file" in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_closed_stream_is_no_error_of_ours(tmp_path: Path, closed: str) -> None:
    script = f"{' '.join(AS_USERS_DO)} inspect null:1M {closed}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    script = f"{' '.join(AS_USERS_DO)} inspect {tmp_path}/nothing {closed}"
    assert subprocess.run(["sh", "-c", script], capture_output=True, check=False).returncode == 5


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the host has no /dev/full")
def test_output_that_cannot_be_written_is_one_error() -> None:
    done = subprocess.run(["sh", "-c", f"{' '.join(COMMAND)} inspect null:1M > /dev/full"], capture_output=True)  # noqa: PLW1510
    assert done.returncode == 1
    assert done.stderr == b"blockwright: no space left on device\n"


def test_a_bug_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(**_options: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setitem(run_module._COMMANDS, "inspect", ("", lambda: click.command(broken)))
    monkeypatch.setattr(signals, "obey", lambda: None)
    monkeypatch.setattr(signals, "ignore", lambda: None)
    assert run_module.run(["inspect"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("blockwright: internal error: RuntimeError: two\\nlines")
    assert told.count("\n") == 1
    with pytest.raises(RuntimeError):
        run_module.run(["--debug", "inspect"])


def test_text_that_the_terminal_cannot_show_is_escaped(tmp_path: Path) -> None:
    name = tmp_path / "disk \u65e5\u672c.img"
    name.write_bytes(bytes(4096))
    done = blockwright("inspect", name, env={"PYTHONIOENCODING": "ascii"})
    assert b"\\u65e5\\u672c.img: 4 KiB" in done.stdout
    done = blockwright("inspect", os.fsencode(tmp_path / "disk") + b"\xff", code=5, env={"PYTHONIOENCODING": "utf-8"})
    assert b"disk\\xff: no such file" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_says_so_in_one_line_and_exits_with_130(tmp_path: Path, number: signal.Signals) -> None:
    os.mkfifo(tmp_path / "fifo")
    arguments = [*AS_USERS_DO, "build", str(tmp_path / "fifo"), "-o", str(tmp_path / "out" / "disk.img"), "--json"]
    (tmp_path / "out").mkdir()
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with open(tmp_path / "fifo", "wb"):  # opened when the command has opened it too
        told = interrupt(process, number)
    assert process.returncode == 130
    assert json.loads(told)["error"]["code"] == 130
    assert told.count(b"\n") == 1
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize(("arguments", "code"), [(["inspect", "null:1M"], 0), (["inspect", "/nonexistent"], 5)])
def test_a_signal_behind_the_work_comes_too_late(arguments: list[str], code: int) -> None:
    """What was made is there by then, so the exit code must not say that it was interrupted."""
    script = (
        "import os, signal, sys; from blockwright.cli.run import run\n"
        f"code = run({arguments!r}, last=True)\n"
        "os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGINT); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, b"Traceback" in done.stderr) == (code, False)


def test_an_interrupt_before_the_command_is_there_is_told_the_same() -> None:
    code = (
        "import sys, types; module = types.ModuleType('blockwright.cli.run')\n"
        "def early(name): raise KeyboardInterrupt\n"
        "module.__getattr__ = early; sys.modules['blockwright.cli.run'] = module\n"
        "from blockwright.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"blockwright: interrupted\n")


def test_every_number_of_seconds_is_one_that_a_clock_can_count() -> None:
    found = [
        (path, each)
        for path, command, _ in every_command()
        for each in command.params
        if isinstance(each, click.Option)
    ]
    times = [(path, each.name) for path, each in found if isinstance(each.type, Seconds)]
    assert len(times) > 5
    others = (click.types.FloatParamType, click.FloatRange)
    assert [
        (path, each.name)
        for path, each in found
        if isinstance(each.type, others) and not isinstance(each.type, Seconds)
    ] == []


@pytest.mark.parametrize("seconds", ["nan", "inf", "-inf", "1e300", "-1", "0", "soon", ""])
def test_a_time_within_another_value_is_refused_as_one(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    for option, name, wanted in (("--scanner-option", "timeout", "seconds above 0"), ("--limit", "time", "a number")):
        assert run_module.run(["fetch-and-create", "/nowhere.tar", option, f"{name}={seconds}"]) == 2
        told = capsys.readouterr().err
        assert told == f"blockwright: {option} {name}: expected {wanted}, found {seconds!r}\n"


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "soon"])
@pytest.mark.parametrize("command", [["image", "cancel", "x", "--wait"], ["pool", "watch", "x", "--interval"]])
def test_a_time_to_wait_is_refused_as_one(
    command: list[str], seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_module.run([*command, seconds]) == 2
    told = capsys.readouterr().err
    assert f"'{command[-1]}'" in told
    assert told.count("\n") == 1


def test_there_is_one_way_to_ask_for_json() -> None:
    folder = Path(run_module.__file__).parent
    spelt = [each.name for each in folder.glob("*.py") if 'option("--json"' in each.read_text("utf-8")]
    assert spelt == ["params.py"]
