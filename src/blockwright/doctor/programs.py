"""Programs that are of use beside ours. None is ever started from here, and no job of ours needs one.

Knows: names, and packages that have them. Refuses to know: versions, which only running them would tell.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from blockwright.doctor.host import Host
from blockwright.doctor.line import Line, State

_TOPIC: Final = "programs"
_SYSTEM: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where administrators' programs are, which an ordinary user's PATH may leave out."""


class _Program(NamedTuple):
    name: str
    gives: str
    packages: Mapping[str, str]
    otherwise: str = "no package here has it"


_THIN: Final = {
    "apt": "thin-provisioning-tools",
    "dnf": "device-mapper-persistent-data",
    "pacman": "thin-provisioning-tools",
    "apk": "thin-provisioning-tools",
}
_FIRMWARE: Final = (
    "/usr/share/OVMF/OVMF_CODE.fd",
    "/usr/share/OVMF/OVMF_CODE_4M.fd",
    "/usr/share/ovmf/OVMF.fd",
    "/usr/share/edk2/ovmf/OVMF_CODE.fd",
    "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
    "/usr/share/edk2-ovmf/x64/OVMF_CODE.fd",
    "/opt/homebrew/share/qemu/edk2-aarch64-code.fd",
    "/usr/local/share/qemu/edk2-x86_64-code.fd",
)


def _programs(machine: str) -> tuple[_Program, ...]:
    arm = machine in ("aarch64", "arm64")
    return (
        _Program(
            "qemu-system-aarch64" if arm else "qemu-system-x86_64",
            "start what was built, in a virtual machine",
            {
                "apt": "qemu-system-arm" if arm else "qemu-system-x86",
                "dnf": "qemu-system-aarch64-core" if arm else "qemu-system-x86-core",
                "pacman": "qemu-system-aarch64" if arm else "qemu-system-x86",
                "apk": "qemu-system-aarch64" if arm else "qemu-system-x86_64",
                "brew": "qemu",
            },
        ),
        _Program("thin_check", "a second opinion on a thin pool's metadata, beside pool check", _THIN),
        _Program("thin_repair", "metadata of a thin pool made anew, where it is damaged", _THIN),
        _Program(
            "trivy",
            "a scanner for known holes, of a disk image or a directory from extract",
            {"pacman": "trivy", "apk": "trivy", "brew": "trivy"},
            "its own repository: https://trivy.dev",
        ),
        _Program(
            "clamscan",
            "a scanner for malware, of a directory from extract",
            {"apt": "clamav", "dnf": "clamav", "pacman": "clamav", "apk": "clamav", "brew": "clamav"},
        ),
        _Program("debsecan", "a scanner for known holes in Debian's packages", {"apt": "debsecan"}, "Debian has it"),
        _Program(
            "syft",
            "a bill of materials of a directory from extract",
            {"brew": "syft", "apk": "syft"},
            "its own releases: https://github.com/anchore/syft",
        ),
    )


def lines(host: Host) -> Iterator[Line]:
    """Yield a line for each program, and one for the firmware of virtual machines."""
    for program in _programs(host.machine.lower()):
        found = _which(host, program.name)
        if found is None:
            remedy = host.install(program.packages, program.otherwise)
            yield Line(_TOPIC, program.name, State.MISSING, "not found", program.gives, remedy)
        else:
            yield Line(_TOPIC, program.name, State.READY, found, program.gives)
    yield _firmware(host)


def _firmware(host: Host) -> Line:
    gives = "start disks by UEFI in QEMU"
    for path in _FIRMWARE:
        if host.exists(path):
            return Line(_TOPIC, "ovmf", State.READY, path, gives)
    packages = {"apt": "ovmf", "dnf": "edk2-ovmf", "pacman": "edk2-ovmf", "apk": "ovmf", "brew": "qemu"}
    return Line(_TOPIC, "ovmf", State.MISSING, "not found", gives, host.install(packages))


def _which(host: Host, name: str) -> str | None:
    for folder in (*host.environment.get("PATH", "").split(os.pathsep), *_SYSTEM):
        path = os.path.join(folder, name)
        if folder.startswith("/") and os.path.isfile(host.path(path)) and os.access(host.path(path), os.X_OK):
            return path
    return None
