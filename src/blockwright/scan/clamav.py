"""ClamAV (clamscan): malware in a tree's files, by signatures.

clamscan prints names of files in lines, so each content has a number for a name. What is larger than it looks at, it
would call clean: it is told to say so, and such files count as left out.

Knows: clamscan's options and its directory of signatures. Refuses to know: its report (``clamav_report``).
"""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

# Before the imports, since what is imported here is not there either.
assert sys.platform != "win32", "scanners are not run there"

from blockwright.errors import FormatError, ScanFailed  # noqa: E402
from blockwright.scan.clamav_report import parse_clamscan, parse_cvd  # noqa: E402
from blockwright.scan.process import environment, find_program, run  # noqa: E402
from blockwright.scan.sbom import Sbom  # noqa: E402
from blockwright.scan.scanner import Database, Report, ScannerOptions, Subject, Workplace  # noqa: E402
from blockwright.scan.verdict import NOTHING, Finding, LeftOut, Severity  # noqa: E402

DATABASES: Final = "/var/lib/clamav"
"""Where freshclam keeps signatures."""

MAX_FILE: Final = 2_000_000_000
"""Bytes of a file that clamscan looks at; it takes no limit of 2 GiB or more."""

_LIMITS: Final = (
    f"--max-filesize={MAX_FILE}",
    "--max-scansize=4000000000",
    "--max-files=1000000",
    "--max-scantime=0",
)


def find_clamav(options: ScannerOptions) -> ClamAV | None:
    """Return ClamAV, None where it is not installed. Raises NotFound for a given program that is not there."""
    program = find_program("clamscan", options.program)
    return None if program is None else ClamAV(program, options)


@dataclass(frozen=True, slots=True)
class ClamAV:
    """clamscan at ``program``; the options' ``database`` is a file of signatures or a directory of such."""

    program: str
    options: ScannerOptions

    @property
    def name(self) -> str:
        """What people call it."""
        return "clamav"

    @property
    def looks_for(self) -> str:
        """What it finds."""
        return "malware"

    def examine(self, subject: Subject) -> Report:
        """Return what it says of a tree's files. Raises ScanFailed."""
        signatures = os.path.abspath(self.options.database or DATABASES)
        database = _database_of(signatures)
        projected = subject.projected(numbered=True)
        arguments = [self.program, f"--database={signatures}", "--stdout", "--infected", "--alert-exceeds-max=yes"]
        arguments += ["--recursive", f"--tempdir={subject.place.folder('tmp')}", *_LIMITS, projected.path]
        timeout_s = self.options.timeout_s
        finished = run(arguments, subject.place, environ=environment(subject.place), timeout_s=timeout_s)
        if finished.status not in (0, 1):  # 1 is also what it exits with when it found something
            raise ScanFailed(f"clamav: {finished.told}")
        try:
            report = parse_clamscan(finished.output, projected.path, projected.names)
        except FormatError as error:
            said = f" ({finished.last_words})" if finished.last_words else ""
            raise ScanFailed(f"clamav: {error}{said}") from error
        names = {number: path.decode("utf-8", "backslashreplace") for number, path in projected.names.items()}
        findings = [Finding(signature, Severity.CRITICAL, place=names[number]) for number, signature in report.found]
        unseen = NOTHING
        if report.unseen:
            size = sum(os.stat(os.path.join(projected.path, each)).st_size for each in report.unseen)
            unseen = LeftOut(len(report.unseen), size, tuple(names[each] for each in report.unseen[:20]))
        return Report(report.engine, database, tuple(findings), subject.inventory.system, unseen=unseen)

    def examine_sbom(self, sbom: Sbom, place: Workplace) -> Report:
        """Refuse: signatures are looked for in files."""
        raise ScanFailed("clamav: expected files to look into, found a list of packages")


def _database_of(path: str) -> Database:
    """Return the version and date of signatures: the newest file's. Raises ScanFailed where there are none.

    ClamAV's own have a version and a date in them. Others are their digests, and from when they were changed last.
    """
    try:
        names = sorted(os.listdir(path)) if os.path.isdir(path) else [""]
        files = [os.path.join(path, name) if name else path for name in names]
        files = [each for each in files if os.path.isfile(each) and not os.path.basename(each).startswith(".")]
        versions, dates, digest = [], [], hashlib.sha256()
        for each in files:
            with open(each, "rb") as file:
                known = parse_cvd(file.read(512))
                if known is not None:
                    versions.append(f"{os.path.basename(each).partition('.')[0]} {known[0]}")
                    dates.append(known[1])
                    continue
                file.seek(0)
                digest.update(f"{os.path.basename(each)}\0{os.fstat(file.fileno()).st_size}\0".encode())
                digest.update(hashlib.file_digest(file, "sha256").digest())
                dates.append(datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC))
    except OSError as error:
        raise ScanFailed(f"clamav: {path}: {str(error.strerror).lower()}") from error
    if not files:
        raise ScanFailed(f"clamav: expected signatures in {path}, found none (freshclam fetches ClamAV's own)")
    if len(versions) < len(files):
        versions.append(f"sha256:{digest.hexdigest()}")
    return Database(", ".join(versions), max(dates))
