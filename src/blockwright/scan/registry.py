"""Which scanners there are, and which of them is meant.

Knows: names, and the order in which one is looked for. Refuses to know: what a scanner does.
"""

from __future__ import annotations

import sys
from typing import Final

from blockwright.errors import NotSupported, ScanFailed, UsageError
from blockwright.plugin import SCANNERS, find_plugin
from blockwright.scan.scanner import SbomMaker, Scanner, ScannerOptions

NAMES: Final = ("trivy", "trivy-image", "debsecan", "clamav")
"""The scanners that are ours, by name."""

UNASKED: Final = ("trivy", "debsecan")
"""Those that are taken where none is named: the first that is installed. Malware is looked for on demand."""

ELSEWHERE: Final = "scan: expected a platform with process groups and files by descriptor, found Windows"
_PROGRAMS: Final = {"trivy": "trivy", "trivy-image": "trivy", "debsecan": "debsecan", "clamav": "clamscan"}


def find_scanner(name: str | None, options: ScannerOptions) -> Scanner | None:
    """Return the scanner of this name, or the first that is installed; None where it, or any, is not.

    Raises UsageError for another name, NotFound for a program that was given and is not there.
    """
    if name is None:
        if options.program:
            raise UsageError(f"scanner: expected its name beside its program, found {options.program!r} alone")
        return next((found for each in UNASKED if (found := _find(each, options)) is not None), None)
    if name in NAMES:
        return _find(name, options)
    plugin = find_plugin(SCANNERS, name)
    if plugin is None:
        raise UsageError(f"scanner: expected one of {', '.join(NAMES)}, found {name[:64]!r}")
    scanner: Scanner | None = plugin(options)
    return scanner


def missing(name: str | None) -> str:
    """Return for people that a scanner, or any, is not installed."""
    if name is None:
        return f"no scanner is installed ({' or '.join(UNASKED)})"
    return f"{name} is not installed (no program {_PROGRAMS.get(name, name)} on PATH)"


if sys.platform != "win32":

    def _find(name: str, options: ScannerOptions) -> Scanner | None:
        """Return a scanner, None where it is not installed."""
        if name in ("trivy", "trivy-image"):
            from blockwright.scan.trivy import find_trivy

            return find_trivy(options, image=name == "trivy-image")
        if name == "debsecan":
            from blockwright.scan.debsecan import find_debsecan

            return find_debsecan(options)
        from blockwright.scan.clamav import find_clamav

        return find_clamav(options)

    def find_maker(options: ScannerOptions) -> SbomMaker:
        """Return what makes an SBOM: syft, else Trivy. Raises ScanFailed where neither is installed, NotFound."""
        from blockwright.scan.syft import find_syft
        from blockwright.scan.trivy import find_trivy

        own = ScannerOptions(program=options.sbom_program, timeout_s=options.timeout_s)
        found = find_syft(own) or find_trivy(ScannerOptions(timeout_s=options.timeout_s))
        if found is None:
            raise ScanFailed("SBOM: no program that makes one is installed (syft or trivy)")
        return found
else:

    def _find(_name: str, _options: ScannerOptions) -> Scanner | None:
        """Refuse: there are no groups of processes, and no files by descriptor and name."""
        raise NotSupported(ELSEWHERE)

    def find_maker(options: ScannerOptions) -> SbomMaker:  # noqa: ARG001  # as it is elsewhere
        """Refuse, as for scanners."""
        raise NotSupported(ELSEWHERE)
