"""The README's picture is what its script draws now."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_the_picture_is_what_its_script_draws(tmp_path):
    script = ROOT / "scripts" / "example_picture.py"
    subprocess.run([sys.executable, script, tmp_path / "disk.svg"], check=True, capture_output=True)
    assert (tmp_path / "disk.svg").read_bytes() == (ROOT / "docs" / "disk.svg").read_bytes()
