"""thin_check and thin_repair, where they are installed: a second opinion, and repair of damage we do not repair.

Knows: how they are called. Refuses to know: what is done with what they say.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from blockwright.errors import Corrupt, Unavailable
from blockwright.system.linux import loop

PACKAGE: Final = "thin-provisioning-tools"
_MORE: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where they are, besides PATH, of which services have a short one."""
_TOLD: Final = 300
"""Characters of what they say that are told."""


def find_tool(name: str) -> str | None:
    """Return the path of a program; None where it is not installed."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *_MORE]))


def peer_check(path: str) -> str | None:
    """Return what thin_check finds wrong with the metadata at a path, empty for nothing, None where there is none."""
    program = find_tool("thin_check")
    if program is None:
        return None
    with _as_device(path, read_only=True) as device:
        code, said = _run([program, device])
    return "" if code == 0 else said or f"ended with {code}"


def peer_repair(old: str, new: str) -> None:
    """Have thin_repair write what it can read at ``old`` to ``new``. Raises Corrupt, Unavailable where it is not."""
    program = find_tool("thin_repair")
    if program is None:
        text = f"thin_repair is not installed (package {PACKAGE}), and this damage needs it"
        raise Unavailable("repair", old, 0, text)
    with _as_device(old, read_only=True) as source, _as_device(new, read_only=False) as target:
        code, said = _run([program, "-i", source, "-o", target])
    if code:
        raise Corrupt(f"thin_repair: {said or f'ended with {code}'}", source=old)


@contextmanager
def _as_device(path: str, *, read_only: bool) -> Iterator[str]:
    """Have a block device: they read past the cache, which not every file system lets them do with a file."""
    if stat.S_ISBLK(os.stat(path).st_mode):
        yield path
        return
    with loop.attach(path, read_only=read_only) as device:
        yield device.path


def _run(words: list[str]) -> tuple[int, str]:
    done = subprocess.run(  # noqa: S603 - found by its name, with paths of our own
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    return done.returncode, " ".join((done.stderr or done.stdout).split())[:_TOLD]
