"""What every scanner answers to, and what it is given.

Knows: the questions. Refuses to know: any scanner.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from blockwright.scan.inventory import Inventory
from blockwright.scan.sbom import Sbom, SbomFormat
from blockwright.scan.verdict import NOTHING, Finding, LeftOut

TIMEOUT_S: Final = 1800.0
"""How long a scanner may take."""


@dataclass(frozen=True, slots=True)
class ScannerOptions:
    """Where a scanner and what it needs are, and how long it may take in seconds.

    ``program`` is its path, empty to look on PATH; ``database`` what it looks things up in, a path (Trivy's cache
    directory, ClamAV's directory of signatures, debsecan's data) or for debsecan an address; ``suite`` the Debian
    release for debsecan, empty for what the tree says; ``server`` the address of a Trivy server. ``update`` lets
    Trivy fetch its database first. ``sbom_program`` is the path of syft.
    """

    program: str = ""
    database: str = ""
    suite: str = ""
    server: str = ""
    update: bool = False
    sbom_program: str = ""
    timeout_s: float = TIMEOUT_S


DEFAULT_OPTIONS: Final = ScannerOptions()
"""What scanners are told where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class Database:
    """What a scanner knows: which version of it, and from when; None where it does not say."""

    version: str
    date: datetime | None


@dataclass(frozen=True, slots=True)
class Report:
    """What a scanner said, read and checked.

    ``system`` is the operating system it found, as in ``debian 12.5``, empty for none; ``packages`` how many
    of that system's packages it looked at, None where it does not say. ``unseen`` are files it did not look at whole.
    """

    scanner_version: str
    database: Database
    findings: tuple[Finding, ...]
    system: str = ""
    packages: int | None = None
    remarks: tuple[str, ...] = ()
    unseen: LeftOut = NOTHING


@dataclass(frozen=True, slots=True)
class Workplace:
    """A private directory: its absolute ``path``, and it, open, as ``fd``."""

    path: str
    fd: int

    def folder(self, name: str) -> str:
        """Return the path of a directory of this name within it, made where it is missing."""
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self.fd)
        return os.path.join(self.path, name)


@dataclass(frozen=True, slots=True)
class Projected:
    """A tree's regular files in a directory: its ``path``, how many ``files`` of how many bytes, what was left out.

    ``names`` is what numbered files are in the tree, by their names.
    """

    path: str
    files: int
    size: int
    left_out: LeftOut
    names: Mapping[str, bytes]


class Projecting(Protocol):
    """Writes a tree's regular files to a directory."""

    def __call__(self, *, numbered: bool) -> Projected:
        """Return the directory; ``numbered`` gives each content one file, with a number for its name."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is scanned: a tree, and how it is put before a program.

    ``projected(numbered=…)`` writes the tree's regular files to a directory of ``place``. ``image`` is a container
    image in a file or directory that the tree was made from, empty for none.
    """

    inventory: Inventory
    projected: Projecting
    place: Workplace
    image: str = ""


class Scanner(Protocol):
    """A program that finds vulnerabilities or malware."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def looks_for(self) -> str:
        """``vulnerabilities`` or ``malware``."""

    def examine(self, subject: Subject) -> Report:
        """Return what it says of a tree. Raises ScanFailed with one line where it says nothing to rely on."""

    def examine_sbom(self, sbom: Sbom, place: Workplace) -> Report:
        """Return what it says of the packages that an SBOM lists. Raises ScanFailed."""


class SbomMaker(Protocol):
    """A program that lists what a tree holds."""

    def write_sbom(self, subject: Subject, form: SbomFormat) -> bytes:
        """Return the list. Raises ScanFailed."""
