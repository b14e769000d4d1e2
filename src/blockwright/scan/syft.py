"""syft (Anchore's): a list of what a tree holds, as CycloneDX or SPDX. It looks nothing up.

Knows: syft's options and environment, from version 0.75 on. Refuses to know: what the list says, but that it is one.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

# Before the imports, since what is imported here is not there either.
assert sys.platform != "win32", "scanners are not run there"

from blockwright.errors import FormatError, ScanFailed  # noqa: E402
from blockwright.scan.process import environment, find_program, run  # noqa: E402
from blockwright.scan.sbom import SbomFormat, parse_sbom  # noqa: E402
from blockwright.scan.scanner import ScannerOptions, Subject  # noqa: E402

_SILENT: Final = {"SYFT_CHECK_FOR_APP_UPDATE": "false"}


def find_syft(options: ScannerOptions) -> Syft | None:
    """Return syft, None where it is not installed. Raises NotFound for a given program that is not there."""
    program = find_program("syft", options.program)
    return None if program is None else Syft(program, options)


@dataclass(frozen=True, slots=True)
class Syft:
    """syft at ``program``."""

    program: str
    options: ScannerOptions

    def write_sbom(self, subject: Subject, form: SbomFormat) -> bytes:
        """Return the list of what a tree holds. Raises ScanFailed where it is none, or lacks what there is."""
        word = {SbomFormat.CYCLONEDX: "cyclonedx-json", SbomFormat.SPDX: "spdx-json"}[form]
        path = subject.projected(numbered=False).path
        arguments = [self.program, "scan", f"dir:{path}", "--output", word, "--quiet"]
        environ = environment(subject.place, extra=_SILENT)
        finished = run(arguments, subject.place, environ=environ, timeout_s=self.options.timeout_s)
        if finished.status:
            raise ScanFailed(f"syft: {finished.told}")
        try:
            sbom = parse_sbom(finished.output, "syft's list")
        except FormatError as error:
            raise ScanFailed(f"syft: {error}") from error
        if sbom.form is not form:
            raise ScanFailed(f"syft: expected {form.value}, found {sbom.form.value}")
        if not sbom.packages and subject.inventory.has_packages:
            raise ScanFailed("syft: expected packages, found none, though there is a package database")
        return finished.output
