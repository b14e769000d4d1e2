"""The machine that a tree's programs run on, by the ELF header of one that every system has.

Knows: where such programs are, and a few bytes of ELF. Refuses to know: kernels.

Source: System V ABI, "ELF Header": e_ident, e_machine.
"""

from __future__ import annotations

from typing import Final

from blockwright.tree.lookup import lookup
from blockwright.tree.node import Directory, File

_PROGRAMS: Final = (
    b"usr/lib/systemd/systemd",
    b"sbin/init",
    b"bin/sh",
    b"bin/busybox",
    b"usr/bin/env",
)
_MACHINES: Final = {
    (1, 3): "IA32",
    (2, 62): "X64",
    (1, 40): "ARM",
    (2, 183): "AA64",
    (1, 243): "RISCV32",
    (2, 243): "RISCV64",
    (2, 258): "LOONGARCH64",
}
"""(EI_CLASS, e_machine) to the suffix that UEFI gives the machine."""
_LITTLE_ENDIAN: Final = 1


def programs_machine(tree: Directory) -> str | None:
    """Return UEFI's suffix for the machine of the tree's programs (``X64``), None where none of them is known."""
    for path in _PROGRAMS:
        node = lookup(tree, path)
        if not isinstance(node, File) or node.content.size < 20:
            continue
        head = bytearray(20)
        node.content.read_into(0, memoryview(head))
        if head[:4] == b"\x7fELF" and head[5] == _LITTLE_ENDIAN:
            found = _MACHINES.get((head[4], int.from_bytes(head[18:20], "little")))
            if found is not None:
                return found
    return None
