"""What a container image runs on: ``os/architecture[/variant]``.

Knows: the spelling, and which of two means the same. Refuses to know: images.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from blockwright.errors import UsageError

_TEXT: Final = re.compile(r"([a-z0-9]+)/([a-z0-9_]+)(?:/([a-z0-9.]+))?").fullmatch
_MACHINES: Final = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "aarch64": "arm64",
    "arm64": "arm64",
    "i686": "386",
    "i386": "386",
    "armv7l": "arm",
    "riscv64": "riscv64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
}
_IMPLIED: Final = {"arm64": "v8", "arm": "v7"}
"""The variant that an architecture without one has."""


class Platform(NamedTuple):
    """An operating system and a processor, spelt as Go spells them; ``variant`` is empty where there is none."""

    os: str
    architecture: str
    variant: str = ""

    def matches(self, wanted: Platform) -> bool:
        """Whether what is for this platform is what is ``wanted``."""
        if (self.os, self.architecture) != (wanted.os, wanted.architecture):
            return False
        implied = _IMPLIED.get(self.architecture, "")
        return (self.variant or implied) == (wanted.variant or implied)

    def __str__(self) -> str:
        return "/".join(part for part in self if part)


def parse_platform(text: str) -> Platform:
    """Return the platform that ``text`` names. Raises UsageError."""
    match = _TEXT(text)
    if match is None:
        raise UsageError(f"platform: expected os/architecture such as linux/arm64, found {text[:64]!r}")
    return Platform(match[1], match[2], match[3] or "")


def host_platform() -> Platform:
    """Return what a virtual machine here would run: Linux on this processor."""
    import platform as host  # slow to import, and seldom asked

    machine = host.machine().lower()
    return Platform("linux", _MACHINES.get(machine, machine))
