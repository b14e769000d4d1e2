"""Which boot loaders and kernels a build would find on this host.

Knows: which package of each distribution has them. Refuses to know: where files lie, which ``boot.loaders`` does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from blockwright.boot import loaders
from blockwright.boot.kinds import Uefi
from blockwright.boot.shelf import Shelf, of_directory, of_host
from blockwright.doctor.host import Host
from blockwright.doctor.line import Line, State
from blockwright.errors import BlockwrightError, NotFound

_TOPIC: Final = "loaders"
_SUFFIXES: Final = {
    "x86_64": "X64",
    "amd64": "X64",
    "aarch64": "AA64",
    "arm64": "AA64",
    "i686": "IA32",
    "riscv64": "RISCV64",
}
"""The machine as uname has it, to the suffix of UEFI 2.10 section 3.5.1.1."""
_ELSEWHERE: Final = "no package here has it: unpack Debian's {package}, and name the directory by --loader-dir"


class _Loader(NamedTuple):
    name: str
    gives: str
    packages: Mapping[str, str]
    find: Callable[[Sequence[Shelf], str], str]


def _syslinux(shelves: Sequence[Shelf], _suffix: str) -> str:
    found = loaders.syslinux(shelves)
    for table in ("gpt", "mbr"):
        loaders.disk_code(shelves, table)
    return f"version {found.version[0]}.{found.version[1]:02}"


def _uefi(way: Uefi) -> Callable[[Sequence[Shelf], str], str]:
    return lambda shelves, suffix: loaders.uefi(shelves, way, suffix).name


_SYSTEMD: Final = {
    "apt": "systemd-boot-efi",
    "dnf": "systemd-boot-unsigned",
    "pacman": "systemd",
    "apk": "systemd-boot systemd-efistub",
}


def _loaders(suffix: str) -> tuple[_Loader, ...]:
    machine = {"X64": "amd64", "AA64": "arm64", "IA32": "ia32", "RISCV64": "riscv64"}.get(suffix, "amd64")
    short = {"X64": "x64", "AA64": "aa64", "IA32": "ia32"}.get(suffix, "x64")
    return (
        _Loader(
            "syslinux",
            "--boot syslinux, on a BIOS",
            {
                "apt": "extlinux syslinux-common",
                "dnf": "syslinux-extlinux syslinux-nonlinux",
                "pacman": "syslinux",
                "apk": "syslinux",
            },
            _syslinux,
        ),
        _Loader(
            "grub",
            "--boot grub, on a BIOS",
            {"apt": "grub-pc-bin", "dnf": "grub2-pc-modules", "pacman": "grub", "apk": "grub-bios"},
            lambda shelves, _suffix: loaders.grub(shelves).source,
        ),
        _Loader("systemd-boot", "--boot systemd-boot, on UEFI", _SYSTEMD, _uefi(Uefi.SYSTEMD_BOOT)),
        _Loader("systemd stub", "--boot uki, one signed or signable file for UEFI", _SYSTEMD, _uefi(Uefi.UKI)),
        _Loader(
            "grub-efi",
            "--boot grub-efi, on UEFI",
            {"apt": f"grub-efi-{machine}-bin", "dnf": f"grub2-efi-{short}"},
            _uefi(Uefi.GRUB),
        ),
        _Loader(
            "shim",
            "Secure Boot by a distribution's keys",
            {"apt": "shim-signed", "dnf": f"shim-{short}"},
            lambda shelves, suffix: loaders.shim(shelves, suffix)[0].name,
        ),
    )


def lines(host: Host, directory: str | None = None) -> Iterator[Line]:
    """Yield a line for each loader, and one for kernels. Raises NotFound where there is no such directory."""
    shelf = of_host(host.top) if directory is None else of_directory(directory)
    suffix = _SUFFIXES.get(host.machine.lower(), "X64")
    for loader in _loaders(suffix):
        try:
            found = loader.find([shelf], suffix)
        except NotFound:
            otherwise = _ELSEWHERE.format(package=loader.packages["apt"])
            remedy = host.install(loader.packages, otherwise)
            yield Line(_TOPIC, loader.name, State.MISSING, "not found", loader.gives, remedy)
        except (BlockwrightError, OSError) as error:
            remedy = host.install(loader.packages, "install it anew")
            yield Line(_TOPIC, loader.name, State.MISSING, f"not of use: {error}", loader.gives, remedy)
        else:
            yield Line(_TOPIC, loader.name, State.READY, found, loader.gives)
    yield _kernel(host)


def _kernel(host: Host) -> Line:
    gives = "--kernel, where SOURCE has no kernel of its own"
    found = [f"/boot/{name}" for name in host.names("/boot") if name.startswith(("vmlinuz", "Image"))]
    found += [f"/usr/lib/modules/{name}/vmlinuz" for name in host.names("/usr/lib/modules")]
    found = [path for path in found if os.path.isfile(host.path(path))]
    readable = [path for path in found if os.access(host.path(path), os.R_OK)]
    if readable:
        return Line(_TOPIC, "kernel", State.READY, readable[-1], gives)
    if found:
        remedy = f"copy it by sudo: install -m 644 {found[-1]} ."
        return Line(_TOPIC, "kernel", State.MISSING, f"{found[-1]} may not be read", gives, remedy)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(host.machine, host.machine)
    generic = host.os_release.get("ID") == "ubuntu"
    packages = {
        "apt": "linux-image-generic" if generic else f"linux-image-{machine}",
        "dnf": "kernel-core",
        "pacman": "linux",
        "apk": "linux-lts",
    }
    remedy = host.install(packages, "take one from a Linux distribution")
    return Line(_TOPIC, "kernel", State.MISSING, "none in /boot or /usr/lib/modules", gives, remedy)
