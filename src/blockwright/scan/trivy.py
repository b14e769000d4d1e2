"""Trivy (https://trivy.dev): vulnerabilities of a tree's packages, of a container image, or of an SBOM.

Trivy exits with 0 whatever it found, with 1 for whatever went wrong, and swallows what it could not read. So it is
given regular files that can all be read, told to say everything, and believed its report alone. It looks nothing up
on the network unless it is told to update, and reads no configuration: its directory is empty, as is its home.

Knows: Trivy's options and environment, from version 0.50 on. Refuses to know: its report (``trivy_report``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

# Before the imports, since what is imported here is not there either.
assert sys.platform != "win32", "scanners are not run there"

from blockwright.errors import FormatError, ScanFailed  # noqa: E402
from blockwright.scan.fetch import fetch  # noqa: E402
from blockwright.scan.process import MAX_OUTPUT, Finished, environment, find_program, run  # noqa: E402
from blockwright.scan.report_file import read_report  # noqa: E402
from blockwright.scan.sbom import Sbom, SbomFormat  # noqa: E402
from blockwright.scan.scanner import Report, ScannerOptions, Subject, Workplace  # noqa: E402
from blockwright.scan.trivy_report import TrivyVersion, parse_report, parse_version  # noqa: E402
from blockwright.units import MiB  # noqa: E402

VERSION_TIMEOUT_S: Final = 60.0
_SILENT: Final = {"TRIVY_DISABLE_TELEMETRY": "true", "TRIVY_SKIP_VERSION_CHECK": "true"}
"""As environment, which versions that do not know them ignore."""


def find_trivy(options: ScannerOptions, *, image: bool = False) -> Trivy | None:
    """Return Trivy, None where it is not installed. Raises NotFound for a program that was given and is not there."""
    program = find_program("trivy", options.program)
    return None if program is None else Trivy(program, options, image=image)


@dataclass(frozen=True, slots=True)
class Trivy:
    """Trivy at ``program``; ``image`` has it read the container image itself, and not the tree made from it."""

    program: str
    options: ScannerOptions
    image: bool = False

    @property
    def name(self) -> str:
        """What people call it."""
        return "trivy-image" if self.image else "trivy"

    @property
    def looks_for(self) -> str:
        """What it finds."""
        return "vulnerabilities"

    def examine(self, subject: Subject) -> Report:
        """Return what it says of a tree's regular files, or of the image. Raises ScanFailed."""
        version = self._version(subject.place)
        if not self.image:
            return self._scan(subject.place, version, "rootfs", [subject.projected(numbered=False).path])
        if not subject.image:
            raise ScanFailed("trivy-image: expected a container image in a file or directory, found another source")
        return self._scan(subject.place, version, "image", ["--input", os.path.abspath(subject.image)])

    def examine_sbom(self, sbom: Sbom, place: Workplace) -> Report:
        """Return what it says of the packages of an SBOM. Raises ScanFailed."""
        return self._scan(place, self._version(place), "sbom", [os.path.abspath(sbom.path)])

    def write_sbom(self, subject: Subject, form: SbomFormat) -> bytes:
        """Return a list of what a tree holds. Raises ScanFailed."""
        word = {SbomFormat.CYCLONEDX: "cyclonedx", SbomFormat.SPDX: "spdx-json"}[form]
        target = os.path.join(subject.place.path, "sbom.json")
        path = subject.projected(numbered=False).path
        arguments = ["rootfs", "--format", word, "--output", target, "--offline-scan", "--no-progress", path]
        finished = self._run(subject.place, arguments, self.options.timeout_s)
        return read_report(target, "trivy", finished)

    def _scan(self, place: Workplace, version: TrivyVersion, command: str, what: Sequence[str]) -> Report:
        target = os.path.join(place.path, "report.json")
        arguments = [command, "--format", "json", "--output", target, "--exit-code", "0", "--scanners", "vuln"]
        arguments += ["--offline-scan", "--no-progress", "--list-all-pkgs"]
        arguments += ["--timeout", f"{max(1, int(self.options.timeout_s))}s"]
        if self.options.server:
            arguments += ["--server", self.options.server]
        else:
            arguments += ["--skip-db-update", "--skip-java-db-update"]
        finished = self._run(place, [*arguments, *what], self.options.timeout_s)
        data = read_report(target, "trivy", finished)
        try:
            report = parse_report(data)
        except FormatError as error:
            raise ScanFailed(f"trivy: {error}") from error
        remarks = (f"{report.system} gets no more updates",) if report.end_of_life else ()
        assert version.database is not None
        return Report(version.version, version.database, report.findings, report.system, report.packages, remarks)

    def _version(self, place: Workplace) -> TrivyVersion:
        """Return Trivy's version and its database, which is fetched first where that is wanted."""
        try:
            if self.options.server:
                address = self.options.server.rstrip("/") + "/version"
                token = os.environ.get("TRIVY_TOKEN", "")
                found = parse_version(fetch(address, MiB, headers={"Trivy-Token": token} if token else {}).data)
            else:
                if self.options.update:
                    update = ["image", "--download-db-only", "--no-progress"]
                    done = self._run(place, update, self.options.timeout_s)
                    if done.status:
                        raise ScanFailed(f"trivy: database: cannot be fetched: {done.told}")
                done = self._run(place, ["version", "--format", "json"], VERSION_TIMEOUT_S)
                if done.status:
                    raise ScanFailed(f"trivy: version: {done.told}")
                found = parse_version(done.output)
        except FormatError as error:
            raise ScanFailed(f"trivy: {error}") from error
        if found.database is None:
            where = self.options.server or self._cache()
            raise ScanFailed(f"trivy: expected a vulnerability database in {where}, found none (--update fetches it)")
        return found

    def _cache(self) -> str:
        """Return Trivy's directory of databases: what was asked for, else where Trivy itself has it."""
        own = os.environ.get("TRIVY_CACHE_DIR") or os.path.join(_user_cache(), "trivy")
        return os.path.abspath(self.options.database or own)

    def _run(self, place: Workplace, arguments: Sequence[str], timeout_s: float) -> Finished:
        extra: Mapping[str, str] = _SILENT
        if self.options.server and os.environ.get("TRIVY_TOKEN"):
            extra = {**_SILENT, "TRIVY_TOKEN": os.environ["TRIVY_TOKEN"]}
        network = self.options.update or bool(self.options.server)
        return run(
            [self.program, *arguments, "--cache-dir", self._cache()],
            place,
            environ=environment(place, network=network, extra=extra),
            timeout_s=timeout_s,
            max_output=MAX_OUTPUT,
        )


def _user_cache() -> str:
    """Return the user's directory of caches, as Go's os.UserCacheDir has it."""
    if sys.platform == "darwin":
        return os.path.expanduser("~/Library/Caches")
    return os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
