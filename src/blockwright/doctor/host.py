"""The host that is looked at: its files below a top directory, its system, and whose packages it takes.

Knows: os-release and package tools by name. Refuses to know: what is looked for.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

MAX_FILE: Final = 4 << 20
"""Bytes of a file that are read: modules.dep of a full kernel has under one MiB."""
MAX_NAMES: Final = 1 << 16
"""Names of a directory that are looked at."""

_FAMILIES: Final = {
    "debian": "apt",
    "ubuntu": "apt",
    "fedora": "dnf",
    "rhel": "dnf",
    "centos": "dnf",
    "arch": "pacman",
    "alpine": "apk",
}
_INSTALL: Final = {
    "apt": "apt install",
    "dnf": "dnf install",
    "pacman": "pacman -S",
    "apk": "apk add",
    "brew": "brew install",
}


def _effective_user() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else -1


@dataclass(frozen=True, slots=True)
class Host:
    """A host: files below ``top``, ``system`` as ``sys.platform`` has it, ``release`` of its kernel."""

    top: str = "/"
    system: str = sys.platform
    machine: str = field(default_factory=platform.machine)
    release: str = field(default_factory=platform.release)
    user: int = field(default_factory=_effective_user)
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    @property
    def is_linux(self) -> bool:
        """Whether its kernel is Linux."""
        return self.system.startswith("linux")

    def path(self, name: str) -> str:
        """Return where the file of that absolute name lies."""
        return os.path.join(self.top, name.lstrip("/"))

    def exists(self, name: str) -> bool:
        """Whether there is such a file, or one that may not be looked at."""
        try:
            os.stat(self.path(name))
        except PermissionError:
            return True
        except OSError:
            return False
        return True

    def text(self, name: str) -> str:
        """Return what a file holds, its first 4 MiB; empty where it cannot be read."""
        try:
            with open(self.path(name), "rb") as file:
                return file.read(MAX_FILE).decode("utf-8", "replace")
        except OSError:
            return ""

    def names(self, directory: str) -> list[str]:
        """Return the names in a directory, ascending; none where it cannot be read."""
        try:
            return sorted(os.listdir(self.path(directory)))[:MAX_NAMES]
        except OSError:
            return []

    @property
    def os_release(self) -> dict[str, str]:
        """The fields of os-release(5); none where the host has no such file."""
        return dict(_fields(self.text("/etc/os-release") or self.text("/usr/lib/os-release")))

    @property
    def tool(self) -> str:
        """What installs packages here: apt, dnf, pacman, apk, brew, or nothing that we know."""
        if self.system == "darwin":
            return "brew"
        found = self.os_release
        for name in (found.get("ID", ""), *found.get("ID_LIKE", "").split()):
            if name in _FAMILIES:
                return _FAMILIES[name]
        return ""

    def install(self, packages: Mapping[str, str], otherwise: str = "") -> str:
        """Return how packages are installed, by the tool that each is for.

        Where this host's has none that is ``otherwise``; where the host is not known, Debian's names are told.
        """
        tool = self.tool
        if packages.get(tool):
            return f"{_INSTALL[tool]} {packages[tool]}"
        if not tool and packages.get("apt"):
            return f"install what Debian calls {packages['apt']}"
        return otherwise


def _fields(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            yield name, value.strip("\"'")
