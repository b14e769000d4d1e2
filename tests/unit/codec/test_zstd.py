"""What needs zstd says so where Python has none, and nothing else does."""

import subprocess
import sys
from pathlib import Path

import pytest

from blockwright.codec import zstd
from blockwright.errors import NotSupported

MODULES = ("backports.zstd", "compression.zstd")
WITHOUT = f"import sys; sys.modules.update(dict.fromkeys({MODULES!r})); from blockwright.cli import main; main()"


def test_frames_go_there_and_back() -> None:
    library = zstd.library()
    assert library.decompress(library.compress(b"frame" * 100)) == b"frame" * 100


def test_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, None)
        package, _, attribute = name.partition(".")
        if package in sys.modules:
            monkeypatch.delattr(sys.modules[package], attribute, raising=False)
    with pytest.raises(NotSupported, match=r"^zstd: this Python has no library: "):
        zstd.library()


def test_all_but_zstd_works_without(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()

    def told(*words: str) -> str:
        command = [sys.executable, "-c", WITHOUT, *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stderr

    assert told("build", "files", "-o", "d.img") == ""
    assert told("convert", "d.img", "d.qcow2", "--compress") == ""
    assert told("convert", "d.img", "d.img.gz") == ""
    assert told("check", "d.qcow2") == ""
    missing = "blockwright: zstd: this Python has no library: expected backports.zstd, or Python 3.14"
    assert told("convert", "d.img", "d.img.zst").startswith(missing)
    assert told("convert", "d.img", "z.qcow2", "--compress", "--compression", "zstd").startswith(missing)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.img", "d.img.gz", "d.qcow2", "files"]
