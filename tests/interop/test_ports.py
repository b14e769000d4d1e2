"""Ports for servers of others are nobody else's for as long as the process lives that has them."""

import random
import subprocess
import sys

from tests.support import ports


def test_a_port_is_given_once_and_never_by_the_kernel(monkeypatch, tmp_path):
    """Of few, so that what is given twice is seen: of others each time, which no session beside this one has."""
    first = random.SystemRandom().randrange(15_000, 32_000)
    (tmp_path / "given").write_text(f"{first + 18}\t60999\n")
    monkeypatch.setattr(ports, "_FIRST", first)
    monkeypatch.setattr(ports, "_GIVEN", tmp_path / "given")
    code = (
        "import sys; from pathlib import Path; from tests.support import ports;"
        "ports._FIRST, ports._GIVEN = int(sys.argv[1]), Path(sys.argv[2]);"
        "print(*(ports.free_port() for _ in range(7)))"
    )
    ours = {ports.free_port() for _ in range(7)}
    asked = [sys.executable, "-c", code, str(first), tmp_path / "given"]
    theirs = subprocess.run(asked, capture_output=True, check=True, text=True).stdout.split()
    assert len(ours | set(map(int, theirs))) == 14
    assert max(ours) < first + 18
