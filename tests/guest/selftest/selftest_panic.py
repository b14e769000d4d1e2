"""A guest that dies: one result is in by then, two are not."""

from pathlib import Path


def test_before():
    assert Path("/proc/sysrq-trigger").exists()


def test_panics():
    Path("/proc/sysrq-trigger").write_text("c")


def test_after():
    assert Path("/proc/version").exists()
