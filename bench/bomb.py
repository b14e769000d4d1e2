"""An archive that grows: 10 GiB of zeros in a tar.gz of 10 MiB, and how soon it is refused: ``python bench/bomb.py``.

The whole command, with its peak memory, and in this process the time from the piece that went over the budget to the
refusal in the caller's hands.
"""

from __future__ import annotations

import os
import statistics
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from blockwright.build.definition import Definition
from blockwright.build.run import build
from blockwright.errors import ArchiveRejected
from blockwright.source import open_source
from blockwright.tree.rules import Budget
from blockwright.units import GiB, MiB
from measure import compile_modules

ROUNDS = 5
SIZE = 10 * GiB
_PIECE = 16 * MiB


def make(path: Path) -> None:
    """Write the archive: one piece is compressed once, and stands there as often as it is wanted."""
    member = tarfile.TarInfo("zeros")
    member.size = SIZE
    head, end = member.tobuf(tarfile.GNU_FORMAT), bytes(10240 - 512)
    zeros, packer = bytes(_PIECE), zlib.compressobj(9, wbits=-15)
    first = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    crc = zlib.crc32(head)
    with path.open("wb") as file:
        file.write(b"\x1f\x8b\x08\0\0\0\0\0\x02\xff" + first)
        for _ in range(SIZE // _PIECE):
            file.write(piece)
            crc = zlib.crc32(zeros, crc)
        crc = zlib.crc32(end, crc)
        file.write(packer.compress(end) + packer.flush())
        file.write(struct.pack("<II", crc, (len(head) + SIZE + len(end)) & 0xFFFFFFFF))


def whole(archive: Path, output: Path) -> tuple[float, int]:
    """Return the seconds and the peak resident bytes of the command, which has to refuse."""
    argv = [sys.executable, "-m", "blockwright", "build", "--quiet", str(archive), "-o", str(output)]
    started = time.perf_counter()
    process = subprocess.Popen(argv, stderr=subprocess.PIPE)
    assert process.stderr is not None
    told = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 1 or "ratio: expected at most" not in told or output.exists():
        raise SystemExit(f"not refused: exit {process.returncode}: {told}")
    return time.perf_counter() - started, usage.ru_maxrss * 1024


def behind(archive: Path, output: Path) -> float:
    """Return the seconds from the piece that went over the budget to the refusal."""
    reached = 0.0
    check = Budget.check

    def noted(self: Budget, came_out: int, went_in: int) -> None:
        nonlocal reached
        reached = time.perf_counter()
        check(self, came_out, went_in)

    Budget.check = noted  # type: ignore[method-assign] # there is no other way to look at it
    try:
        with open_source(str(archive)) as source:
            build(source, str(output), Definition())
    except ArchiveRejected:
        return time.perf_counter() - reached
    finally:
        Budget.check = check  # type: ignore[method-assign]
    raise SystemExit("not refused")


def main() -> None:
    compile_modules()
    with tempfile.TemporaryDirectory(prefix="bench-bomb.", dir=os.environ.get("BENCH_DIR")) as folder:
        archive, output = Path(folder, "bomb.tar.gz"), Path(folder, "out.img")
        make(archive)
        print(f"\n{SIZE >> 30} GiB of zeros in a tar.gz of {archive.stat().st_size / MiB:.1f} MiB")
        rounds = [whole(archive, output) for _ in range(ROUNDS)]
        seconds = [each for each, _ in rounds]
        memory = max(each for _, each in rounds)
        span = f"({min(seconds):.2f}-{max(seconds):.2f})"
        print(f"  refused, the whole command   {statistics.median(seconds):.2f} s {span}  {memory >> 20} MiB")
        late = [behind(archive, output) for _ in range(ROUNDS)]
        print(f"  behind the budget            {statistics.median(late):.3f} s (under 1 wanted)")


if __name__ == "__main__":
    main()
