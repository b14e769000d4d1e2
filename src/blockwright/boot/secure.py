"""Programs that firmware with Secure Boot starts: signed by a hook of the caller's, or started by a shim as it is.

A signature covers a whole program, so nothing that carries one is changed here: a shim, a signed loader and a signed
kernel go to the disk byte for byte. The shim takes the place that firmware looks at, and starts what lies beside it
by the name of GRUB.

Knows: names beside one another, and which programs want a signature. Refuses to know: keys, and what signs.

Source: UEFI 2.10 section 3.5.1.1; shim's README, "DEFAULT_LOADER"; Microsoft PE format, "Certificate Data".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from blockwright.boot import loaders, pe
from blockwright.boot.image import efi_suffix
from blockwright.boot.kinds import Secure, Sign
from blockwright.boot.shelf import Shelf
from blockwright.errors import LimitExceeded, NotThisFormat
from blockwright.tree.content import BytesContent, Content

MAX_SIGNED: Final = 1 << 30
"""Bytes of a program that is signed; it is in memory as a whole."""


def secured(files: dict[str, Content], secure: Secure, shelves: Sequence[Shelf], suffix: str) -> dict[str, Content]:
    """Return the files of an EFI system partition with what ``secure`` asks for.

    Raises NotFound where there is no shim for the machine, NotThisFormat for what the hook returned, and what that
    raises.
    """
    made = dict(files)
    if secure.sign is not None:
        for path, content in files.items():
            made[path] = _signed(content, secure.sign, path)
    return _behind_shim(made, shelves, suffix) if secure.shim else made


def _signed(content: Content, sign: Sign, path: str) -> Content:
    """Return a program with a signature; what has one, or is no program, as it is."""
    if content.size < 2 or content.read(0, 2) != b"MZ":
        return content
    if content.size > MAX_SIGNED:
        raise LimitExceeded(
            f"expected a program of at most {MAX_SIGNED} bytes to sign, found {content.size}", source=path
        )
    program = content.read(0, content.size)
    if pe.read(program, path).signed:
        return content
    signed = bytes(sign(program, path))
    found = pe.read(signed, f"{path}, signed")
    if not found.signed or found.machine != pe.read(program, path).machine:
        raise NotThisFormat("expected the same program with a signature", source=f"{path}, signed")
    return BytesContent(signed)


def _behind_shim(files: dict[str, Content], shelves: Sequence[Shelf], suffix: str) -> dict[str, Content]:
    shim, manager = loaders.shim(shelves, suffix)
    found = efi_suffix(shim.content, shim.name)
    if found != suffix:
        raise NotThisFormat(f"expected a shim for {suffix}, found one for {found}", source=shim.name)
    if not pe.read(shim.bytes(), shim.name).signed:
        raise NotThisFormat("expected a shim with a signature, found none", source=shim.name)
    first, low = f"EFI/BOOT/BOOT{suffix}.EFI", suffix.lower()
    made = {path: content for path, content in files.items() if path != first}
    made[f"EFI/BOOT/grub{low}.efi"] = files[first]
    made[first] = shim.content
    if manager is not None:
        made[f"EFI/BOOT/mm{low}.efi"] = manager.content
    return made
