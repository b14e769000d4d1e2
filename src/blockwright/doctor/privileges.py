"""What this process may do: root's capabilities, user namespaces, FUSE.

Knows: /proc/self/status and the switches of user namespaces. Refuses to know: who else is on the host.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from blockwright.doctor.host import Host
from blockwright.doctor.line import Line, State

_TOPIC: Final = "privileges"
_CHOWN, _MKNOD, _SYS_ADMIN = 0, 27, 21
"""linux/capability.h"""
_ROOT: Final = "root"
_DEVICES: Final = "loop, map, dm, nbd attach, verity open, thin pools, volume mount"
_OWNERS: Final = "extract with owners and device nodes as they are in SOURCE; without it --owner me"


def lines(host: Host) -> Iterator[Line]:
    """Yield what the process may do. Root is no line of kernels but Linux: nothing of ours asks it there."""
    if not host.is_linux:
        found = "nothing here needs it"
        yield Line(_TOPIC, _ROOT, State.ABSENT, found, _DEVICES)
        yield _owners(owner=host.user == 0, device=host.user == 0)
        return
    mask = _capabilities(host)
    who = "root" if host.user == 0 else f"user {host.user}"
    if mask >> _SYS_ADMIN & 1:
        yield Line(_TOPIC, _ROOT, State.READY, f"{who} with CAP_SYS_ADMIN", _DEVICES)
    else:
        yield Line(_TOPIC, _ROOT, State.MISSING, f"{who} without CAP_SYS_ADMIN", _DEVICES, _remedy(host))
    yield _owners(owner=bool(mask >> _CHOWN & 1), device=bool(mask >> _MKNOD & 1))
    yield _namespaces(host)
    yield _fuse(host)


def _capabilities(host: Host) -> int:
    for line in host.text("/proc/self/status").splitlines():
        if line.startswith("CapEff:"):
            try:
                return int(line.split()[1], 16)
            except (IndexError, ValueError):
                break
    return ~0 if host.user == 0 else 0


def _remedy(host: Host) -> str:
    if host.user == 0:
        return "start the container with --privileged, or work outside of it"
    return "run the command by sudo; nothing else here needs root"


def _owners(*, owner: bool, device: bool) -> Line:
    if owner and device:
        return Line(_TOPIC, "owners", State.READY, "CAP_CHOWN and CAP_MKNOD", _OWNERS)
    lacking = " and ".join(name for name, has in (("CAP_CHOWN", owner), ("CAP_MKNOD", device)) if not has)
    return Line(_TOPIC, "owners", State.MISSING, f"without {lacking}", _OWNERS, "run extract by sudo")


def _namespaces(host: Host) -> Line:
    gives = "nothing of ours; other programs as a root of their own (unshare -r), such as mount in a user namespace"
    name = "user namespaces"
    if host.text("/proc/sys/user/max_user_namespaces").strip() in ("", "0"):
        return Line(_TOPIC, name, State.ABSENT, "turned off, and not needed", gives)
    for switch, off in (("unprivileged_userns_clone", "0"), ("apparmor_restrict_unprivileged_userns", "1")):
        if host.text(f"/proc/sys/kernel/{switch}").strip() == off:
            return Line(_TOPIC, name, State.ABSENT, f"restricted by kernel.{switch}, and not needed", gives)
    return Line(_TOPIC, name, State.READY, "for every user", gives)


def _fuse(host: Host) -> Line:
    gives = "nothing of ours; what serve exports as a file (nbdfuse), images mounted without root (fuse2fs)"
    if host.exists("/dev/fuse") and os.access(host.path("/dev/fuse"), os.R_OK | os.W_OK):
        return Line(_TOPIC, "fuse", State.READY, "/dev/fuse", gives)
    return Line(_TOPIC, "fuse", State.ABSENT, "no /dev/fuse that we may open, and none is needed", gives)
