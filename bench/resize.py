"""Measure growing and shrinking of ext2 and ext4 beside resize2fs: ``python bench/resize.py``.

Each round starts from a copy of one image, made by mke2fs with a directory in it; both commands are whole processes,
and the output is synced before the clock stops. resize2fs wants `e2fsck -f` before it shrinks, which is not counted:
it is called with -f.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

# Only now are they to be found.
from blockwright.units import GiB, TiB  # noqa: E402
from measure import Row, compile_modules, once  # noqa: E402
from tests.support.tools import tool  # noqa: E402

ROUNDS = 5
CASES = [
    ("ext4, 1 GiB to 16 GiB", ("-t", "ext4"), GiB, 16 * GiB),
    ("ext4, 1 GiB to 1 TiB", ("-t", "ext4"), GiB, TiB),
    ("ext4 without resize_inode, 1 GiB to 1 TiB", ("-t", "ext4", "-O", "^resize_inode"), GiB, TiB),
    ("ext2, 1 GiB to 100 GiB", ("-t", "ext2", "-I", "256"), GiB, 100 * GiB),
    ("ext4, 1 TiB to 2 GiB", ("-t", "ext4"), TiB, 2 * GiB),
    ("ext4, 4 GiB to 1 GiB, the journal moves", ("-t", "ext4"), 4 * GiB, GiB),
]


def main() -> None:
    compile_modules()
    with tempfile.TemporaryDirectory(prefix="bench-resize.", dir=os.environ.get("BENCH_DIR")) as folder:
        for name, features, size, target in CASES:
            measure(Path(folder), name, features, size, target)


def measure(folder: Path, name: str, features: tuple[str, ...], size: int, target: int) -> None:
    base = folder / "base"
    base.unlink(missing_ok=True)
    made = [tool("mke2fs"), "-q", "-F", *features, "-d", str(ROOT / "src"), str(base), f"{size // 1024}K"]
    subprocess.run(made, check=True, capture_output=True)
    image = folder / "image"
    commands = {
        "resize2fs": [tool("resize2fs"), "-f", str(image), f"{target // 1024}K"],
        "blockwright": [sys.executable, "-m", "blockwright", "fs", "resize", str(image), str(target)],
    }
    rows = {each: Row(each) for each in commands}
    for _ in range(ROUNDS):
        for each, argv in commands.items():
            subprocess.run(["cp", "--sparse=always", base, image], check=True)
            os.sync()
            seconds, memory = once(argv, image, keep=True)
            rows[each].seconds.append(seconds)
            rows[each].memory.append(memory)
            subprocess.run([tool("e2fsck"), "-fn", str(image)], check=True, capture_output=True)
            allocated = os.stat(image).st_blocks * 512 >> 20
            print(f"# {each}: {allocated} MiB allocated", file=sys.stderr)
    print(name)
    print(rows["resize2fs"].text())
    print(rows["blockwright"].text(rows["resize2fs"].median))


if __name__ == "__main__":
    main()
