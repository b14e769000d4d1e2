"""Measure ``blockwright build`` beside mke2fs, tar and gzip: ``python bench/build.py [CASE ...]``.

Whole processes, warm cache, the output on the file system of the source, every output synced.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from measure import Contender, Row, compare, compile_modules, once
from trees import archive, deep_archive, flat_archive, layers, tree

BLOCKWRIGHT = [str(Path(sys.executable).parent / "blockwright"), "build", "--quiet", "--force", "--table", "none"]
DECODE = (
    "import sys, shutil\nfrom isal import igzip\n"
    "with igzip.open(sys.argv[1]) as i, open(sys.argv[2], 'wb') as o: shutil.copyfileobj(i, o, 1 << 20)"
)


def ours(source: Path, output: Path, *more: str, rounds: int = 5) -> Contender:
    return Contender("blockwright", [*BLOCKWRIGHT, str(source), "-o", str(output), *more], output, rounds)


def mke2fs(source: Path, output: Path, size: str, inodes: int, rounds: int) -> Contender:
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "metadata_csum,64bit", "-N", str(inodes), "-d", str(source)]
    return Contender("mke2fs -d", [*argv, str(output), size], output, rounds)


def report(title: str, rows: dict[str, Row], base: str) -> None:
    print(f"\n{title}")
    for row in rows.values():
        print("  " + row.text(rows[base].median if base in rows else None), flush=True)


def check(contender: Contender) -> None:
    if contender.name == "blockwright":
        subprocess.run(["e2fsck", "-fn", str(contender.output)], check=True, capture_output=True)


def million(base: Path, out: Path) -> None:
    """Many names in one directory, and in a tree: time and memory have to follow their number."""
    for name, make in (("one directory", flat_archive), ("a tree", deep_archive)):
        for count in (250_000, 500_000, 1_000_000):
            packed = make(base / f"{name.replace(' ', '-')}-{count}.tar", count)
            rows = {"blockwright": compare([ours(packed, out, rounds=1)], check)["blockwright"]}
            with packed.open("rb") as stream:
                rows["from a stream"] = compare([ours(Path("-"), out, rounds=1)], check, stream)["blockwright"]
            report(f"{count} names in {name}, of a tar archive", rows, "")
            packed.unlink()


def verified(root: Path, out: Path, rounds: int) -> None:
    """What was built, held against its source: by building it anew, and file by file."""
    image = out.with_name("verified.img")
    once([*BLOCKWRIGHT, str(root), "-o", str(image)], image)
    command = BLOCKWRIGHT[0]
    ways = {
        "build": ours(root, out, rounds=rounds),
        "build --verify-only": Contender(
            "", [*BLOCKWRIGHT, str(root), "-o", str(image), "--verify-only"], out, rounds
        ),
        "check --against": Contender("", [command, "check", str(image), "--against", f"{root}/"], out, rounds),
    }
    rows = compare([dataclasses.replace(each, name=name) for name, each in ways.items()])
    report(f"{root}, verified", rows, "build")
    image.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "case", nargs="*", default=["share", "small", "flat", "links", "huge", "targz", "layers", "million", "verify"]
    )
    parser.add_argument("--dir", default=os.environ.get("BENCH_DIR", tempfile.gettempdir() + "/blockwright-bench"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", default="/usr/share", help="the large real tree")
    options = parser.parse_args()
    base = Path(options.dir)
    base.mkdir(parents=True, exist_ok=True)
    compile_modules()
    out = base / "out.img"
    rounds = options.rounds
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores, in {base}")
    if "share" in options.case:
        root = Path(options.share)
        tar = Contender(
            "tar cf", ["tar", "cf", str(base / "out.tar"), "-C", str(root), "."], base / "out.tar", rounds
        )
        rows = compare([ours(root, out, rounds=rounds), tar, mke2fs(root, out, "1G", 70000, 1)], check)
        entries = sum(1 + len(files) for _, _, files in os.walk(root))
        report(f"{root}: {entries} entries", rows, "mke2fs -d")
        print(f"  blockwright / tar: {rows['blockwright'].median / rows['tar cf'].median:.2f}x")
    if "small" in options.case:
        root = tree(base, "small-files")
        report(
            "20,000 files of 1 to 8 KiB in small directories",
            compare([ours(root, out, rounds=rounds), mke2fs(root, out, "256M", 24000, rounds)], check),
            "mke2fs -d",
        )
    if "flat" in options.case:
        root = tree(base, "one-directory")
        report(
            "one directory of 40,000 files",
            compare([ours(root, out, rounds=rounds), mke2fs(root, out, "512M", 44000, 1)], check),
            "mke2fs -d",
        )
    if "links" in options.case:
        for name in ("hard-links-10k", "hard-links-20k"):
            root = tree(base, name)
            report(
                name,
                compare([ours(root, out, rounds=rounds), mke2fs(root, out, "256M", 24000, 1)], check),
                "mke2fs -d",
            )
    if "huge" in options.case:
        root = tree(base, "little")
        rows = compare([ours(root, out, "--size", "1T", rounds=rounds), mke2fs(root, out, "1T", 67108864, 1)], check)
        report("1 TiB with little in it", rows, "mke2fs -d")
    if "targz" in options.case:
        packed = archive(base, Path(options.share))
        decode = Contender(
            "decode to a file (isal)", [sys.executable, "-c", DECODE, str(packed), str(out)], out, rounds
        )
        report("tar.gz of 1.8 GiB", compare([ours(packed, out, rounds=rounds), decode], check), decode.name)
    if "verify" in options.case:
        verified(Path(options.share), out, rounds)
    if "million" in options.case:
        million(base, out)
    if "layers" in options.case:
        sources = [[options.share], ["/usr/bin", "/usr/lib/x86_64-linux-gnu"], [f"{options.share}/doc"]]
        layout = layers(base, sources)
        scratch = base / "scratch"
        steps = (
            f"rm -rf {scratch} && mkdir {scratch} && "
            f"skopeo --insecure-policy copy -q oci:{layout}:one oci:{scratch}/copy:one && "
            f"umoci unpack --image {scratch}/copy:one {scratch}/bundle && "
            f"mke2fs -q -F -t ext4 -N 200000 -d {scratch}/bundle/rootfs {out} 4G"
        )
        peer = Contender("skopeo, umoci, mke2fs -d", ["sh", "-c", steps], out, 1)
        rows = compare([ours(layout, out, rounds=rounds), peer], check)
        report("a container image of three layers", rows, peer.name)
    shutil.rmtree(base / "scratch", ignore_errors=True)


if __name__ == "__main__":
    main()
