"""Ports for servers of others are nobody else's for as long as the process lives that has them."""

import subprocess
import sys
from pathlib import Path

from tests.support import ports


def test_a_port_is_given_once_and_never_by_the_kernel(monkeypatch):
    end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    monkeypatch.setattr(ports, "_FIRST", end - 30)  # few, so that what is given twice is seen
    code = (
        f"from tests.support import ports; ports._FIRST = {end - 30}; print(*(ports.free_port() for _ in range(8)))"
    )
    ours = {ports.free_port() for _ in range(8)}
    theirs = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split()
    assert len(ours | set(map(int, theirs))) == 16
    assert max(ours) < end
