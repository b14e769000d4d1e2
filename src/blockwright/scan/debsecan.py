"""debsecan (Debian's package): vulnerabilities of a Debian system's packages, by Debian's own security tracker.

It reads a list of packages and the tracker's data, and believes both. So it is given copies that were read here
before: the packages as a list with nothing else in it, and behind them a package that does not exist, with a
vulnerability that does not exist either. If the report does not end with that one, debsecan did not look at all of
them. Its own configuration and the host's list of exceptions are not used.

Most of the tracker's vulnerabilities have no urgency; their severity is UNKNOWN, which the verdict's line counts.

Knows: debsecan's options. Refuses to know: its data and report (``debsecan_feed``, ``debsecan_report``).
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

# Before the imports, since what is imported here is not there either.
assert sys.platform != "win32", "scanners are not run there"

from blockwright.errors import FormatError, ScanFailed  # noqa: E402
from blockwright.scan.debsecan_feed import MAX_FEED, parse_feed  # noqa: E402
from blockwright.scan.debsecan_report import parse_detail  # noqa: E402
from blockwright.scan.fetch import fetch, is_address  # noqa: E402
from blockwright.scan.packages import Package  # noqa: E402
from blockwright.scan.process import environment, find_program, run  # noqa: E402
from blockwright.scan.sbom import Sbom  # noqa: E402
from blockwright.scan.scanner import Database, Report, ScannerOptions, Subject, Workplace  # noqa: E402
from blockwright.units import MiB  # noqa: E402

TRACKER: Final = "https://security-tracker.debian.org/tracker/debsecan/release/1/"
CANARY: Final = ("BLOCKWRIGHT-READ-TO-ITS-END", "blockwright-last-package")
_SUITES: Final = {"9": "stretch", "10": "buster", "11": "bullseye", "12": "bookworm", "13": "trixie", "14": "forky"}
_SUITE: Final = re.compile(r"[a-z][a-z0-9-]{0,31}|GENERIC")
_WORD: Final = re.compile(r"[A-Za-z0-9.+~:_-]{1,512}")
_VERSION: Final = re.compile(rb"^VERSION = \"([0-9.]{1,16})\"$", re.MULTILINE)


def find_debsecan(options: ScannerOptions) -> Debsecan | None:
    """Return debsecan, None where it is not installed. Raises NotFound for a given program that is not there."""
    program = find_program("debsecan", options.program)
    return None if program is None else Debsecan(program, options)


@dataclass(frozen=True, slots=True)
class Debsecan:
    """debsecan at ``program``. Its data is the options' ``database``: a file, or an address; else the tracker's."""

    program: str
    options: ScannerOptions

    @property
    def name(self) -> str:
        """What people call it."""
        return "debsecan"

    @property
    def looks_for(self) -> str:
        """What it finds."""
        return "vulnerabilities"

    def examine(self, subject: Subject) -> Report:
        """Return what it says of a Debian system's packages. Raises ScanFailed for any other system."""
        inventory = subject.inventory
        others = sorted({each.manager for each in inventory.databases} - {"dpkg"})
        system = inventory.system or "no operating system"
        if inventory.release.get("ID") != "debian" or others:
            found = f"{system} with packages of {', '.join(others)}" if others else system
            raise ScanFailed(f"debsecan: expected Debian, found {found}")
        suite = self.options.suite or inventory.release.get("VERSION_CODENAME", "")
        return self._scan(subject.place, inventory.dpkg, suite or _suite_of(system), system)

    def examine_sbom(self, sbom: Sbom, place: Workplace) -> Report:
        """Return what it says of the Debian packages of an SBOM. Raises ScanFailed for any other system."""
        packages = tuple(each for each in sbom.packages if each.kind == "deb")
        if not sbom.system.startswith("debian") or not packages:
            raise ScanFailed(f"debsecan: expected Debian's packages, found {sbom.system or 'no operating system'}")
        return self._scan(place, packages, self.options.suite or _suite_of(sbom.system), sbom.system)

    def _scan(self, place: Workplace, packages: Sequence[Package], suite: str, system: str) -> Report:
        if not _SUITE.fullmatch(suite):
            raise ScanFailed(
                f"debsecan: expected the name of a Debian release, found {suite[:32]!r} (--suite names it)"
            )
        status, source = os.path.join(place.path, "status"), place.folder("feed")
        with open(status, "w", encoding="ascii") as file:
            file.writelines(_stanza(each) for each in packages)
            file.write(_stanza(Package("deb", CANARY[1], "1")))
        database = self._write_feed(os.path.join(source, suite))
        nothing = os.path.join(place.path, "nothing")
        with open(nothing, "x", encoding="ascii"):
            pass
        arguments = [self.program, "--config", nothing, "--whitelist", nothing + "-allowed", "--format", "detail"]
        arguments += ["--source", f"file://{quote(source)}/", "--suite", suite, "--status", status]
        environ = environment(place)
        finished = run(arguments, place, environ=environ, timeout_s=self.options.timeout_s)
        if finished.status or b"error:" in finished.errors:
            raise ScanFailed(f"debsecan: {finished.told}")
        try:
            findings = parse_detail(finished.output)
        except FormatError as error:
            raise ScanFailed(f"debsecan: {error}") from error
        if not findings or findings[-1].identity != CANARY[0]:
            raise ScanFailed("debsecan: expected a report of every package, found it cut short")
        return Report(_version_of(self.program), database, tuple(findings[:-1]), system, len(packages))

    def _write_feed(self, target: str) -> Database:
        """Fetch the data, and write it to a file with the canary. Raises ScanFailed."""
        place = self.options.database or TRACKER
        suite = os.path.basename(target)
        address = place + suite if is_address(place) and place.endswith("/") else place
        if not is_address(place) and os.path.isdir(place):
            address = os.path.join(place, suite)
        fetched = fetch(address, MAX_FEED)
        try:
            data = parse_feed(fetched.data, address).with_canary(*CANARY)
        except FormatError as error:
            raise ScanFailed(f"debsecan: {error}") from error
        with open(target, "xb") as file:
            file.write(data)
        return Database(f"sha256:{hashlib.sha256(fetched.data).hexdigest()}", fetched.date)


def _stanza(package: Package) -> str:
    """Return a package as debsecan reads it. Raises ScanFailed for words that would be more than one."""
    source = package.source or package.name
    version = package.source_version or package.version
    for word in (package.name, package.version, source, version):
        if not _WORD.fullmatch(word):
            raise ScanFailed(f"debsecan: expected a name and a version of a package, found {word[:64]!r}")
    lines = f"Package: {package.name}\nStatus: install ok installed\nVersion: {package.version}\n"
    return f"{lines}Source: {source} ({version})\n\n"


def _suite_of(system: str) -> str:
    """Return the name of a release by its number, empty where that is not known."""
    return _SUITES.get(system.removeprefix("debian ").partition(".")[0], "")


def _version_of(program: str) -> str:
    """Return the version that the program has in it, which it does not tell, and its digest."""
    with open(program, "rb") as file:
        data = file.read(MiB)
    match = _VERSION.search(data)
    return f"{match[1].decode() if match else 'unknown'} (sha256:{hashlib.sha256(data).hexdigest()[:16]})"
