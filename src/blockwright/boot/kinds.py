"""The ways in which a disk can start, by name: at most one for a BIOS and one for UEFI on the same disk.

What Secure Boot asks for beside it.

Knows: names and which of them go together. Refuses to know: how any of them works.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from blockwright.errors import UsageError


class Bios(Enum):
    """What a BIOS starts from the first sector."""

    SYSLINUX = "syslinux"
    GRUB = "grub"


class Uefi(Enum):
    """What UEFI starts from the EFI system partition."""

    SYSTEMD_BOOT = "systemd-boot"
    GRUB = "grub-efi"
    UKI = "uki"
    KERNEL = "kernel"


class Ways(NamedTuple):
    """How a disk starts, on each kind of firmware; None where it does not."""

    bios: Bios | None = None
    uefi: Uefi | None = None

    def __bool__(self) -> bool:
        return self.bios is not None or self.uefi is not None


Sign = Callable[[bytes, str], bytes]
"""``sign(program, name)`` returns the program with a signature; ``name`` is what messages call it."""


@dataclass(frozen=True, slots=True)
class Secure:
    """What Secure Boot asks for: a shim in front, and a hook that signs what has no signature. Nothing by default."""

    shim: bool = False
    sign: Sign | None = None

    def __bool__(self) -> bool:
        return self.shim or self.sign is not None


NOTHING: Final = Secure()

_BIOS: Final = {each.value: each for each in Bios}
_UEFI: Final = {each.value: each for each in Uefi}

NAMES: Final = (*_BIOS, *_UEFI)
"""Every way by name."""

NONE: Final = Ways()


def parse_ways(text: str) -> Ways:
    """Return what ``none``, one name, or one for a BIOS and one for UEFI with a comma between them stand for.

    Raises UsageError for an unknown name, and for two ways on the same firmware.
    """
    if text == "none":
        return NONE
    bios: list[Bios] = []
    uefi: list[Uefi] = []
    for name in text.split(","):
        if name in _BIOS:
            bios.append(_BIOS[name])
        elif name in _UEFI:
            uefi.append(_UEFI[name])
        else:
            raise UsageError(f"boot: expected none or one or two of {', '.join(NAMES)}, found {name[:64]!r}")
    for kind, found in (("a BIOS", bios), ("UEFI", uefi)):
        if len(found) > 1:
            names = " and ".join(each.value for each in found)
            raise UsageError(f"boot: expected one way for {kind} to start the disk, found {names}")
    return Ways(bios[0] if bios else None, uefi[0] if uefi else None)
