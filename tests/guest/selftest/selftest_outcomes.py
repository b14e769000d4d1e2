"""One test of each outcome, run by test_harness.py to see each reported as what it is."""

from pathlib import Path

import pytest


def no_input(directory: Path) -> None:
    raise RuntimeError("this input cannot be made")


def skipped_input(directory: Path) -> None:
    pytest.skip("this input needs a program that is missing")


@pytest.fixture
def broken():
    raise RuntimeError("broken on purpose before the test")


def test_passes():
    assert Path("/proc/version").read_text().startswith("Linux")


def test_fails():
    left = "the left side"
    assert left == "the right side"


def test_skips():
    pytest.skip("skipped on purpose")


def test_error_before(broken):
    raise AssertionError("never reached")


@pytest.mark.xfail(reason="known on purpose")
def test_expected_failure():
    raise AssertionError("expected")


@pytest.mark.parametrize("number", [1, 2])
def test_parameters(number):
    assert number == 1


@pytest.mark.prepare(by=no_input)
def test_without_input():
    raise AssertionError("never reached")


@pytest.mark.prepare(by=skipped_input)
def test_with_skipped_input():
    raise AssertionError("never reached")
