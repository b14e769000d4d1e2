"""What holds of every command: help, examples that hold, --json, --quiet, a manual page, no colour."""

import json
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from blockwright.cli.examples import EXAMPLES
from blockwright.cli.habits import _BYTES
from blockwright.cli.manual import pages
from blockwright.cli.run import root
from tests.support.command import blockwright, document
from tests.support.commands import called, every_command, examples
from tests.support.tools import run, tool

COMMANDS = {path: command for path, command, _ in every_command() if not isinstance(command, click.Group)}
LINES = [(path, line) for path, command in COMMANDS.items() for line in examples(command)]


def options(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_help_and_an_example(path: str) -> None:
    command = COMMANDS[path]
    assert command.help
    assert any(f"blockwright {path}" in line for line in examples(command)), "cli.examples has them"
    untold = [
        each.name for each in command.params if isinstance(each, click.Option) and not (each.help or each.hidden)
    ]
    assert untold == []


@pytest.mark.parametrize(("path", "line"), LINES, ids=[line for _, line in LINES])
def test_examples_name_options_that_exist(path: str, line: str) -> None:
    command, words = called(line)
    known = options(command)
    for word in words:
        if word.startswith("-") and word != "-":
            assert word.partition("=")[0] in known, line


@pytest.mark.parametrize(("path", "line"), LINES, ids=[line for _, line in LINES])
def test_examples_are_lines_that_the_command_takes(
    path: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mbr.bin", "disk.toml"):  # files that are opened as options are read
        (tmp_path / name).touch()
    command, words = called(line)
    with command.make_context("blockwright", words):
        pass


def test_a_wrong_example_would_be_seen() -> None:
    command, words = called("blockwright fs ls disk.img --no-such-option")
    with pytest.raises(click.UsageError):
        command.make_context("blockwright", words)


def test_no_example_is_of_a_command_that_is_gone() -> None:
    assert set(EXAMPLES) <= set(COMMANDS)


def test_every_command_takes_json_and_quiet() -> None:
    for path, command in COMMANDS.items():
        assert "--quiet" in options(command), path
        assert ("--json" in options(command)) == (path not in _BYTES), path


def test_commands_without_json_are_documented() -> None:
    text = (Path(__file__).parents[3] / "docs/json.md").read_text()
    told = text.partition("Exceptions are")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([a-z ]+)`", told)) == _BYTES


def test_what_tells_nothing_tells_so_as_a_document(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    found = document("disk", "create", image, "4M", "--table", "gpt")
    assert found == {"schema": "blockwright.done/1", "command": "disk create", "lines": [str(image)]}
    assert document("disk", "add", image, "--size", "1M")["schema"] == "blockwright.disk.add/1"
    assert document("disk", "rm", f"{image}:1") == {"schema": "blockwright.done/1", "command": "disk rm", "lines": []}
    failed = blockwright("disk", "rm", f"{image}:1", "--json", code=5)
    assert json.loads(failed.stderr)["error"]["code"] == 5
    assert failed.stdout == b""


def test_quiet_is_taken_everywhere(tmp_path: Path) -> None:
    blockwright("disk", "create", tmp_path / "disk.img", "4M", "--quiet")
    blockwright("inspect", tmp_path / "disk.img", "-q")


def test_no_color_is_obeyed() -> None:
    script = "import pty, sys; pty.spawn([sys.executable, '-m', 'blockwright', 'doctor', 'build'])"
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    for extra, coloured in (
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({"NO_COLOR": ""}, True),
    ):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment | extra,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=True,
        )
        assert (b"\x1b[32m" in done.stdout) == coloured, extra


def test_manual_pages_hold(tmp_path: Path) -> None:
    made = dict(pages(root))
    assert {name.removesuffix(".1") for name in made} == {
        f"blockwright {path}".strip().replace(" ", "-") for path, _, _ in every_command()
    }
    for name, text in made.items():
        (tmp_path / name).write_text(text)
    told = run([tool("mandoc"), "-Tlint", "-Wwarning", *sorted(map(str, tmp_path.iterdir()))])
    assert told.stdout == ""
    for name in ("blockwright.1", "blockwright-build.1", "blockwright-serve.1"):
        told = run([tool("man", package="man-db"), "--warnings", "-E", "UTF-8", "-l", "-Tutf8", str(tmp_path / name)])
        assert told.stderr == ""
    shown = run([tool("mandoc"), "-Tutf8", str(tmp_path / "blockwright-fs-ls.1")]).stdout
    for text in ("NAME", "blockwright fs ls -l disk.img:1 /etc", "--recursive", "blockwright-fs(1)"):
        assert text in _plain(shown)


def _plain(shown: str) -> str:
    """Text as it looks: what is printed over is bold or underlined."""
    out: list[str] = []
    for each in shown:
        if each == "\b":
            out.pop()
        else:
            out.append(each)
    return "".join(out)


def test_a_page_that_is_none_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "page.1").write_text(".TH PAGE 1 2026-01-01 x y\n.SH NAME\n.nosuch\n")
    done = subprocess.run(
        [tool("mandoc"), "-Tlint", "-Wwarning", tmp_path / "page.1"], capture_output=True, check=False
    )
    assert done.returncode != 0
    assert done.stdout


def test_words_of_examples_can_be_split() -> None:
    for _, line in LINES:
        shlex.split(line)


@pytest.mark.parametrize("path", COMMANDS)
def test_help_has_its_examples_in_one_place(path: str) -> None:
    command = COMMANDS[path]
    with click.Context(command, info_name=path) as context:
        assert command.get_help(context).count("Examples:") <= 1


MAP = (Path(__file__).parents[3] / "docs/commands-map.md").read_text()


@pytest.mark.parametrize("line", re.findall(r"`(blockwright [^`]+)`", MAP))
def test_commands_that_stand_for_others_are_lines_that_ours_take(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "repart.d").mkdir()
    (tmp_path / "repart.d/root.conf").write_text("[Partition]\nType=root\n")
    (tmp_path / "disk.cfg").write_text("image disk.img {\n hdimage {}\n partition root { size = 1M }\n}\n")
    command, words = called(line)
    with command.make_context("blockwright", words):
        pass


@pytest.mark.parametrize("name", re.findall(r"`(blockwright\.[a-z_.]+)(?:\.[A-Z]\w+|\(.*\))?`", MAP))
def test_python_names_that_stand_for_others_are_there(name: str) -> None:
    assert pkgutil.resolve_name(name)
