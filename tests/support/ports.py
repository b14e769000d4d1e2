"""TCP ports for servers of others that cannot be asked which one they took: nobody else's, until this process ends.

A port that is free, and bound later by another process, can be taken in between: by a test session beside this one,
or by the kernel for whoever connects somewhere. So it comes from below those that the kernel gives out, and a socket
of an abstract name, which goes with this process, keeps other sessions from it.
"""

import random
import socket
from pathlib import Path

_FIRST = 15_000
_GIVEN = Path("/proc/sys/net/ipv4/ip_local_port_range")
_NAME = "\0blockwright-test-port-{}"


def free_port() -> int:
    """A port of this machine that neither this nor another session is given again meanwhile."""
    end = int(_GIVEN.read_text().split()[0])
    numbers = list(range(_FIRST, end)) or list(range(_FIRST, 65_536))  # some hosts give out nearly all
    random.SystemRandom().shuffle(numbers)
    for number in numbers:
        mark = socket.socket(socket.AF_UNIX)
        try:
            mark.bind(_NAME.format(number))
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", number))
        except OSError:
            mark.close()
            continue
        mark.detach()  # it is closed when the process ends
        return number
    raise AssertionError(f"no port from {_FIRST} to {end} is free")
