"""Trees to measure with: made once, the same each time, kept beside one another under one directory."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import tarfile
import zlib
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


def _member(name: str, kind: bytes, body: bytes = b"") -> bytes:
    """Return a tar member: its header, and its body in whole blocks."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mtime = kind, len(body), 1_600_000_000
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    return info.tobuf(tarfile.USTAR_FORMAT) + body.ljust(-(-len(body) // 512) * 512, b"\0")


def flat_archive(path: Path, count: int) -> Path:
    """Return an archive of ``count`` empty files in one directory."""
    with path.open("wb") as file:
        file.write(_member("d", tarfile.DIRTYPE))
        for number in range(count):
            file.write(_member(f"d/name-of-a-file-{number:07d}", tarfile.REGTYPE))
        file.write(bytes(1024))
    return path


def deep_archive(path: Path, count: int) -> Path:
    """Return an archive of ``count`` files of a few bytes, a hundred in each directory."""
    with path.open("wb") as file:
        for number in range(count):
            above, inner = f"t{number // 10_000:03d}", f"{number // 100 % 100:02d}"
            if number % 10_000 == 0:
                file.write(_member(above, tarfile.DIRTYPE))
            if number % 100 == 0:
                file.write(_member(f"{above}/{inner}", tarfile.DIRTYPE))
            file.write(
                _member(f"{above}/{inner}/file-{number:07d}.txt", tarfile.REGTYPE, b"content of %07d" % number)
            )
        file.write(bytes(1024))
    return path


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


def layers(base: Path, sources: list[list[str]]) -> Path:
    """Return an OCI layout with a gzipped layer for each list of host directories, named ``one``."""
    path = base / "layout"
    if path.exists():
        return path
    part = base / "layout.part"
    shutil.rmtree(part, ignore_errors=True)
    (part / "blobs" / "sha256").mkdir(parents=True)

    def blob(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (part / "blobs" / "sha256" / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    packed, diff_ids = [], []
    for names in sources:
        scratch = base / "layer.tar"
        with tarfile.open(scratch, "w", format=tarfile.GNU_FORMAT) as out:
            for name in names:
                out.add(name, arcname=name.lstrip("/"))
        data = scratch.read_bytes()
        scratch.unlink()
        diff_ids.append("sha256:" + hashlib.sha256(data).hexdigest())
        packed.append(blob(zlib.compress(data, 6, wbits=31), "layer.v1.tar+gzip"))
    config = {"os": "linux", "architecture": "amd64", "created": "2024-01-01T00:00:00Z", "config": {}}
    config |= {"rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": [{} for _ in packed]}
    manifest = {"schemaVersion": 2, "config": blob(json.dumps(config).encode(), "config.v1+json"), "layers": packed}
    described = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    described["annotations"] = {"org.opencontainers.image.ref.name": "one"}
    (part / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    (part / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    part.rename(path)
    return path
