"""What fuzzing needs is installed while tests run in the same environment: nothing of theirs may go meanwhile."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = """#!/bin/sh
case "$*" in
    "-c import atheris") exit 1 ;;
    "-m pip "*) echo "$*" >"$0.log" ;;
    *) exec {python} "$@" ;;
esac
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's script")
def test_it_comes_alone(tmp_path):
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    environment = {"BLOCKWRIGHT_VENV": str(tmp_path / "venv"), "BLOCKWRIGHT_TEST_CACHE": str(tmp_path / "cache")}
    script = ["bash", "-c", ". scripts/lib.sh; ensure_fuzz"]
    done = subprocess.run(script, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    words = Path(f"{python}.log").read_text().split()
    assert words[-2] == "-r"
    assert [line.partition(">")[0] for line in Path(words[-1]).read_text().splitlines()] == ["atheris"]
    assert str(ROOT) not in words
    assert "-e" not in words
