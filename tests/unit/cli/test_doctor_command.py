"""`blockwright doctor`: exit codes, texts, and the document."""

import subprocess
from pathlib import Path

import pytest

from blockwright.doctor import JOBS
from tests.support.command import COMMAND, blockwright, document

pytestmark = pytest.mark.unprivileged


def test_what_is_found_is_told_line_by_line() -> None:
    told = blockwright("doctor").stdout.decode()
    for topic in ("privileges", "kernel", "loaders", "python", "programs", "state", "jobs"):
        assert f"{topic}\n" in told
    assert "\x1b" not in told
    assert "  yes      build  " in told


def test_the_document_has_lines_and_jobs() -> None:
    found = document("doctor")
    assert found["schema"] == "blockwright.doctor/1"
    assert {job["name"] for job in found["jobs"]} == set(JOBS)
    assert {line["state"] for line in found["lines"]} <= {"ready", "missing", "unknown", "absent"}


def test_a_job_that_cannot_be_done_is_exit_4(tmp_path: Path) -> None:
    asked = ["doctor", "bios", "--loader-dir", str(tmp_path)]
    done = subprocess.run([*COMMAND, *asked], capture_output=True, check=False, text=True)
    assert (done.returncode, done.stderr) == (4, "")
    told = done.stdout
    assert "do: " in told
    assert "no       bios" in told
    assert "loop" not in told
    blockwright("doctor", "--loader-dir", tmp_path)


def test_jobs_that_need_nothing() -> None:
    assert blockwright("doctor", "build", "serve", "--quiet").stdout == b""


def test_wrong_use(tmp_path: Path) -> None:
    assert b"'nonsense' is not one of" in blockwright("doctor", "nonsense", code=2).stderr
    blockwright("doctor", "--loader-dir", tmp_path / "none", code=5)
