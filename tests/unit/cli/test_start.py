"""What starting costs, counted in modules: no clock decides."""

import os
import subprocess
import sys

import pytest

from tests.support.command import UNMEASURED

BARE = 40
"""Modules that an interpreter has at its start, and a few more that differ from version to version."""


def imported(*arguments: str) -> set[str]:
    """Modules that a run imports, the interpreter's own among them."""
    command = [sys.executable, "-I", "-X", "importtime", *arguments]
    done = subprocess.run(command, env={**os.environ, **UNMEASURED}, capture_output=True, text=True, check=True)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


PATH = f"import sys; sys.path[:0] = {sys.path!r}\n"


@pytest.mark.parametrize(
    ("statement", "more"),
    [
        ("import blockwright", 3),
        ("import sys; sys.argv = ['blockwright', '--version']; from blockwright.cli import main; main()", 20),
    ],
)
def test_what_is_imported_is_little(statement: str, more: int) -> None:
    before = imported("-c", f"{PATH}pass")
    found = imported("-c", f"{PATH}{statement}") - before
    assert len(before) <= BARE + 20
    assert len(found) <= more, sorted(found)


@pytest.mark.parametrize(
    ("line", "never"),
    [
        (
            "blockwright con",
            {"asyncio", "ssl", "sqlite3", "google_crc32c", "blockwright.build"},
        ),
        ("blockwright fs ", {"asyncio", "ssl", "sqlite3", "blockwright.build", "blockwright.nbd.server"}),
        ("blockwright build --b", {"asyncio", "ssl", "sqlite3", "blockwright.nbd.server"}),
        ("blockwright inspect ", {"asyncio", "ssl", "sqlite3", "blockwright.nbd.server"}),
    ],
)
def test_completion_imports_nothing_heavy(line: str, never: set[str]) -> None:
    code = (
        f"{PATH}import os\nos.environ |= {{'COMP_LINE': {line!r}, '_BLOCKWRIGHT_COMPLETE': 'bash_complete'}}\n"
        "sys.argv = ['blockwright']\nfrom blockwright.cli import main\nmain()"
    )
    assert not imported("-c", code) & never
