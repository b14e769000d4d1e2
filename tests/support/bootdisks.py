"""Disks to install boot loaders on, made by others: sgdisk or sfdisk, mke2fs, mkfs.fat. No root is needed."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.tools import package_file, run, tool

MIB = 1 << 20
GREETING = "hello from the guest"
INIT = f"""#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
root=$(/bin/busybox awk '$2 == "/" {{ print $3 }}' /proc/mounts)
echo "{GREETING}: $root $(/bin/busybox cat /proc/cmdline)"
/bin/busybox poweroff -f
"""


class Piece(NamedTuple):
    """A partition: its kind (``ext4``, ``fat``, ``bios``), its size in MiB, and more options of its maker."""

    kind: str
    mib: int
    options: tuple[str, ...] = ()


_GPT = {"ext4": "8300", "fat": "ef00", "bios": "ef02"}
_MBR = {"ext4": "83", "fat": "ef", "bios": "83"}


def root_files(directory: Path, kernel: Path | None = None) -> Path:
    """A root of busybox and one script that greets and powers off, with a kernel where one is given."""
    for name in ("bin", "dev", "proc", "sbin", "boot", "etc"):
        (directory / name).mkdir(parents=True)
    shutil.copy(package_file("bin/busybox", package="busybox-static"), directory / "bin" / "busybox")
    (directory / "sbin" / "init").write_text(INIT)
    (directory / "sbin" / "init").chmod(0o755)
    (directory / "etc" / "os-release").write_text('PRETTY_NAME="Test System 1"\n')
    if kernel is not None:
        shutil.copy(kernel, directory / "boot" / kernel.name)
    return directory


def make_disk(image: Path, table: str, pieces: Sequence[Piece], root: Path | None = None) -> Path:
    """A disk with these partitions one behind the other; ``root`` goes into those of ext4."""
    starts, at = [], 1
    for piece in pieces:
        starts.append(at)
        at += piece.mib
    with image.open("wb") as file:
        file.truncate((at + 1) * MIB)
    if table == "gpt":
        arguments = []
        for number, (piece, start) in enumerate(zip(pieces, starts, strict=True), 1):
            arguments += ["-n", f"{number}:{start}M:+{piece.mib}M", "-t", f"{number}:{_GPT[piece.kind]}"]
        run([tool("sgdisk"), *arguments, image])
    else:
        lines = [
            f"start={start * 2048}, size={piece.mib * 2048}, type={_MBR[piece.kind]}"
            for piece, start in zip(pieces, starts, strict=True)
        ]
        run([tool("sfdisk"), "-q", image], input="label: dos\n" + "\n".join(lines) + "\n")
    for piece, start in zip(pieces, starts, strict=True):
        if piece.kind == "bios":
            continue
        part = image.with_suffix(".part")
        with part.open("wb") as file:
            file.truncate(piece.mib * MIB)
        if piece.kind == "ext4":
            source = [] if root is None else ["-d", root]
            run([tool("mke2fs"), "-q", "-F", "-t", "ext4", *piece.options, *source, part])
        else:
            run([tool("mkfs.fat"), "-h", str(start * 2048), *piece.options, part])
        with image.open("r+b") as disk:
            disk.seek(start * MIB)
            disk.write(part.read_bytes())
        part.unlink()
    return image


def volume(image: Path, start_mib: int, size_mib: int, to: Path) -> Path:
    """A partition as a file of its own."""
    with image.open("rb") as disk:
        disk.seek(start_mib * MIB)
        to.write_bytes(disk.read(size_mib * MIB))
    return to
