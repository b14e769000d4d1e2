"""The pool that images go to: made on first use, of the driver that this machine can have.

Knows: which driver that is, and why it is no other. Refuses to know: what drivers do.
"""

from __future__ import annotations

import os
import sys
from typing import Final, NamedTuple

from blockwright.errors import BlockwrightError, NotFound, UsageError
from blockwright.volume import create_pool, load_spec

DEFAULT: Final = "images"
SIZE: Final = "20G"
"""Of a thin pool that is made here; its file is sparse."""
_MAPPER: Final = "/sys/class/misc/device-mapper"


class Pool(NamedTuple):
    """A pool that is there: its ``driver``, and ``why`` its volumes are files, empty where they are thin."""

    name: str
    driver: str
    why: str


def pool_for(name: str, *, thin: bool = False) -> Pool:
    """Return the pool of that name, which is made where it is not there: of thin volumes where these are asked for
    and can be had, else of files. Raises UsageError, and what making one does.
    """
    try:
        spec = load_spec(name)
    except NotFound:
        return _made(name, thin=thin)
    if spec.driver == "thin":
        return Pool(name, spec.driver, "")
    return Pool(name, spec.driver, _missing() or f"pool {name} is one of files")


def _made(name: str, *, thin: bool) -> Pool:
    missing = _missing()
    if thin and not missing:
        try:
            create_pool(name, "thin", {"size": SIZE})
        except UsageError:
            return pool_for(name)  # somebody else was faster
        except (BlockwrightError, OSError) as error:
            missing = str(error)
        else:
            return Pool(name, "thin", "")
    try:
        create_pool(name, "file", {"expose": "any"})  # what was made can be had on every machine
    except UsageError:
        load_spec(name)  # somebody else was faster; anything else is told again by whoever opens it
    return Pool(name, "file", missing or "no thin pool was asked for")


def _missing() -> str:
    """Return what device-mapper cannot be had for, empty where it can."""
    if sys.platform != "linux":
        return f"{sys.platform} has no device-mapper"
    if os.geteuid() != 0:
        return "device-mapper needs root"
    if not os.path.exists(_MAPPER):
        return "the kernel has no device-mapper: modprobe dm_mod"
    return ""
