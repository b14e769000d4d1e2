"""Trees to measure with: made once, the same each time, kept beside one another under one directory."""

from __future__ import annotations

import os
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

_BLOCK = random.Random(0).randbytes(1 << 20)


def _content(generator: random.Random, size: int) -> bytes:
    start = generator.randrange(len(_BLOCK) - 4096)
    data = _BLOCK[start : start + min(size, len(_BLOCK) - start)]
    return data if len(data) == size else (data * (size // len(data) + 1))[:size]


def small_files(root: Path) -> None:
    """20,000 files of 1 to 8 KiB in directories of 50: the best case of mke2fs."""
    generator = random.Random(1)
    for directory in range(400):
        path = root / f"d{directory // 20:02d}" / f"e{directory:03d}"
        path.mkdir(parents=True)
        for number in range(50):
            (path / f"file{number:02d}.txt").write_bytes(_content(generator, generator.randint(1024, 8192)))


def one_directory(root: Path) -> None:
    """One directory of 40,000 small files."""
    for number in range(40_000):
        (root / f"message-{number:06d}-{number * 2654435761 % 2**32:08x}.eml").write_bytes(b"x" * (number % 700))


def hard_links(pairs: int) -> Callable[[Path], None]:
    """Return a maker of ``pairs`` files with two names each."""

    def make(root: Path) -> None:
        for number in range(pairs):
            directory = root / f"{number % 200:03d}"
            directory.mkdir(exist_ok=True)
            first = directory / f"a{number:06d}"
            first.write_bytes(b"linked %d" % number)
            os.link(first, directory / f"b{number:06d}")

    return make


def little(root: Path) -> None:
    """A handful of files."""
    for name in ("etc", "bin", "usr"):
        (root / name).mkdir()
        (root / name / "file").write_bytes(b"little")


MAKERS: dict[str, Callable[[Path], None]] = {
    "small-files": small_files,
    "one-directory": one_directory,
    "hard-links-10k": hard_links(10_000),
    "hard-links-20k": hard_links(20_000),
    "little": little,
}


def tree(base: Path, name: str) -> Path:
    """Return the tree called ``name`` under ``base``, made if it is not there."""
    root = base / name
    if not root.exists():
        part = base / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        MAKERS[name](part)
        part.rename(root)
    return root


def archive(base: Path, source: Path) -> Path:
    """Return a tar.gz of about 1.8 GiB unpacked: ``source`` as many times over, each under a name of its own."""
    path = base / "tree.tar.gz"
    if not path.exists():
        part = base / "tree.tar.gz.part"
        with tarfile.open(part, "w:gz", compresslevel=6, format=tarfile.GNU_FORMAT) as out:
            copy = 0
            while out.offset < 1400 << 20:
                out.add(source, arcname=f"copy{copy}")
                copy += 1
        part.rename(path)
    return path
