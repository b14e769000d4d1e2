"""The machine of a tree's programs, by any of those that every system has."""

import pytest

from blockwright.boot.machine import programs_machine
from blockwright.tree import BytesContent, Directory, File, Symlink


def elf(kind: int, machine: int, order: int = 1) -> File:
    head = b"\x7fELF" + bytes([kind, order]) + bytes(12) + machine.to_bytes(2, "little") + bytes(40)
    return File(content=BytesContent(head))


def tree(**programs) -> Directory:
    return Directory(entries={b"usr": Directory(entries={b"bin": Directory(entries={b"env": programs["env"]})})})


@pytest.mark.parametrize(
    ("kind", "machine", "suffix"),
    [(2, 62, "X64"), (2, 183, "AA64"), (1, 3, "IA32"), (1, 40, "ARM"), (2, 243, "RISCV64"), (2, 258, "LOONGARCH64")],
)
def test_elf_machines(kind, machine, suffix):
    assert programs_machine(tree(env=elf(kind, machine))) == suffix


@pytest.mark.parametrize(
    "env",
    [
        elf(2, 9999),
        elf(1, 62),
        elf(2, 62, order=2),
        File(content=BytesContent(b"#!/bin/sh")),
        Directory(),
        Symlink(b"env"),
    ],
)
def test_what_tells_no_machine(env):
    assert programs_machine(tree(env=env)) is None


def test_links_are_followed_and_scripts_passed_over():
    root = tree(env=elf(2, 62))
    root.entries[b"bin"] = Symlink(b"usr/bin")
    root.entries[b"usr"].entries[b"bin"].entries[b"sh"] = Symlink(b"env")
    root.entries[b"sbin"] = Directory(entries={b"init": File(content=BytesContent(b"#!/bin/sh\n" * 9))})
    assert programs_machine(root) == "X64"
