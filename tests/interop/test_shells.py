"""Completion in the real bash, zsh and fish."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import blockwright
from tests.support.shells import Terminal, command_in, shell
from tests.support.tools import tool

pytestmark = pytest.mark.slow

CASES = [
    ("blockwright conv", "blockwright convert"),
    ("blockwright nbd att", "blockwright nbd attach"),
    ("blockwright convert --qcow2-v", "blockwright convert --qcow2-version"),
    ("blockwright convert --format vhd", "blockwright convert --format vhd"),
    ("blockwright inspect dis", "blockwright inspect disk.img"),
    ("blockwright inspect disk.img:", "blockwright inspect disk.img:1"),
    ("blockwright volume show ma", "blockwright volume show main/root"),
    ("blockwright inspect volume:m", "blockwright inspect volume:main/root"),
    ("blockwright disk table disk.img g", "blockwright disk table disk.img gpt"),
    ("blockwright extract disk.img:1 fil", "blockwright extract disk.img:1 files/"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a disk and a directory, and a pool with one volume."""
    made = tmp_path_factory.mktemp("shells")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BLOCKWRIGHT_HOME", str(made / "home"))
        patch.chdir(made)
        (made / "files").mkdir()
        blockwright("build", "files", "-o", "disk.img")
        blockwright("pool", "create", "main", "--directory", made / "volumes")
        blockwright("volume", "create", "root", "--size", "1M")
        yield made


def loaded(name: str, *arguments: str, folder: Path) -> Iterator[Terminal]:
    tool(name)
    with shell(name, *arguments, folder=folder) as terminal:
        if name == "zsh":
            terminal.run("PS1='$ '; autoload -Uz compinit && compinit -u -D")
        terminal.run(f"source <(blockwright completion {name})")
        yield terminal


@pytest.fixture(scope="module")
def bash(folder: Path) -> Iterator[Terminal]:
    yield from loaded("bash", "--norc", "--noprofile", "-i", folder=folder)


@pytest.fixture(scope="module")
def zsh(folder: Path) -> Iterator[Terminal]:
    yield from loaded("zsh", "-f", "-i", folder=folder)


@pytest.mark.parametrize(("line", "completed"), CASES, ids=[line for line, _ in CASES])
def test_bash(bash: Terminal, line: str, completed: str) -> None:
    assert bash.completed(line) == completed


@pytest.mark.parametrize(("line", "completed"), CASES, ids=[line for line, _ in CASES])
def test_zsh(zsh: Terminal, line: str, completed: str) -> None:
    assert zsh.completed(line) == completed.rstrip("/")  # zsh takes the slash back where a space follows


@pytest.mark.parametrize(("line", "completed"), CASES, ids=[line for line, _ in CASES])
def test_fish(folder: Path, line: str, completed: str) -> None:
    tool("fish")
    command_in(folder / "bin")
    script = f"blockwright completion fish | source; complete -C {line!r}"
    environment = {**os.environ, "HOME": str(folder), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(["fish", "--no-config", "-c", script], env=environment, capture_output=True, check=True)
    answers = [each.partition("\t")[0] for each in done.stdout.decode().splitlines()]
    assert completed.rpartition(" ")[2] in answers, done.stderr
    assert all(each.startswith(line.rpartition(" ")[2]) for each in answers)
