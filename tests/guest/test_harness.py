"""The guest harness can fail: every way a guest test goes wrong is reported as wrong."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.guest import harness
from tests.support.tools import tool

ROOT = Path(__file__).parents[2]
SELFTEST = Path(__file__).parent / "selftest"


@pytest.fixture
def outcomes(tmp_path):
    """`outcomes(name)` runs one file of self-tests as a session of its own: {test: (outcome, text)}."""
    tool("linux.uml")

    def session(name: str, **environment: str) -> dict[str, tuple[str, str]]:
        report = tmp_path / "report.xml"
        argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}"]
        done = subprocess.run(
            [*argv, f"--basetemp={tmp_path / 'inner'}", str(SELFTEST / name)],
            env={**os.environ, harness.FILES: "selftest_*.py", **environment},
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
        assert done.returncode in (0, 1), done.stdout + done.stderr
        return {str(case.get("name")): _outcome(case) for case in ET.parse(report).iter("testcase")}

    return session


def _outcome(case: ET.Element) -> tuple[str, str]:
    for child in case:
        if child.tag in {"failure", "error", "skipped"}:
            return child.tag, f"{child.get('message')}\n{child.text}"
    return "passed", ""


def test_each_outcome_is_reported_as_itself(outcomes):
    found = outcomes("selftest_outcomes.py")
    assert {name: outcome for name, (outcome, _) in found.items()} == {
        "test_passes": "passed",
        "test_fails": "failure",
        "test_skips": "skipped",
        "test_error_before": "error",
        "test_expected_failure": "skipped",
        "test_parameters[1]": "passed",
        "test_parameters[2]": "failure",
        "test_without_input": "failure",
        "test_with_skipped_input": "skipped",
    }
    assert "'the left side' == 'the right side'" in found["test_fails"][1]
    assert "skipped on purpose" in found["test_skips"][1]
    assert "broken on purpose before the test" in found["test_error_before"][1]
    assert "RuntimeError: this input cannot be made" in found["test_without_input"][1]
    assert "needs a program that is missing" in found["test_with_skipped_input"][1]


def test_a_panic_fails_what_was_not_reported_yet(outcomes):
    found = outcomes("selftest_panic.py")
    assert found["test_before"] == ("passed", "")
    for name in ("test_panics", "test_after"):
        outcome, text = found[name]
        assert outcome == "failure"
        assert "kernel panicked" in text
        assert "sysrq" in text


def test_a_guest_that_hangs_is_stopped(outcomes):
    outcome, text = outcomes("selftest_hang.py", **{harness.TIMEOUT: "6"})["test_hangs"]
    assert outcome == "failure"
    assert "had not ended after 6 s" in text


def test_a_test_the_guest_does_not_run_fails(outcomes):
    outcome, text = outcomes("selftest_nothing.py")["test_only_on_the_host"]
    assert outcome == "failure"
    assert "not found: " in text


def test_there_are_guest_tests(request):
    inner = Path(__file__).parent / "inner"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", str(inner)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "guest_kernel.py::test_loop_mount_from_the_host" in done.stdout, done.stdout + done.stderr


def test_a_missing_kernel_fails_under_ci_and_skips_elsewhere(tmp_path):
    environment = {"PATH": str(tmp_path), "BLOCKWRIGHT_TEST_CACHE": str(tmp_path), "HOME": str(tmp_path)}
    code = (
        "import pytest\n"
        "from tests.support.tools import tool\n"
        "try: tool('linux.uml')\n"
        "except pytest.skip.Exception as skipped: print('skip', skipped)\n"
        "except pytest.fail.Exception as failed: print('fail', failed)\n"
    )
    for ci, outcome in (("", "skip"), ("true", "fail")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**environment, "CI": ci, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
            capture_output=True,
            text=True,
            check=False,
        )
        expected = f"{outcome} linux.uml is missing: install the package user-mode-linux"
        assert done.stdout.startswith(expected), done.stdout + done.stderr
