"""Every test of the kernel's devices keeps records of its own, and leaves no device behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.loops import sparse, swept


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """BLOCKWRIGHT_HOME of the test alone; what stands on files of its folder is detached at the end."""
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    with swept(tmp_path):
        yield tmp_path / "home"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file of 8 MiB, zeros."""
    return sparse(tmp_path / "disk.img", 8 << 20)
