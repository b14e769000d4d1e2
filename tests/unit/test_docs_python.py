"""The Python of docs/python.md runs as it stands there, one block behind the other, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.inprocess import blockwright

PAGE = Path(__file__).parents[2] / "docs/python.md"


def test_the_page_s_python_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-W", "error", "-c", "\n".join(blocks)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert not done.stderr
    assert done.stdout.splitlines() == ["ext4 20", "welcome", "", str(["/etc/hostname", "/etc/issue", "/etc/motd"])]
    blockwright("check", tmp_path / "disk.img")
