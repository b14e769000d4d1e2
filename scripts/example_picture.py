"""Draws the picture in the README: a disk that is built for it, always the same.

python scripts/example_picture.py [FILE]     docs/disk.svg, unless told otherwise
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

FILES = {
    "boot/efi/EFI/BOOT/BOOTX64.EFI": 1_300,
    "boot/efi/EFI/Linux/linux-6.12.efi": 14_500,
    "boot/vmlinuz-6.12": 8_300,
    "boot/initrd.img-6.12": 21_000,
    "etc/ssl/certs/ca-certificates.crt": 220,
    "home/ann/photos/lake.raw": 11_000,
    "home/ann/photos/mountain.raw": 9_500,
    "home/ann/mail/inbox.mbox": 5_200,
    "home/bob/music/album.flac": 14_000,
    "home/bob/notes.txt": 40,
    "usr/bin/python3.13": 7_000,
    "usr/bin/git": 4_100,
    "usr/bin/vim": 3_800,
    "usr/bin/busybox": 1_100,
    "usr/lib/libc.so.6": 2_000,
    "usr/lib/modules/6.12/kernel.img": 17_000,
    "usr/lib/python3.13/stdlib.zip": 9_000,
    "usr/share/fonts/sans.ttf": 4_400,
    "usr/share/locale/all.mo": 3_300,
    "var/lib/db/data.mdb": 12_000,
    "var/log/journal": 6_000,
}
"""Files of the disk, and their sizes in thousands of bytes."""
PARTITIONS = (
    "type=esp,mount=/boot/efi,size=36M",
    "mount=/,size=224M,label=system",
    "type=swap,size=32M",
)


def main() -> None:
    """Build the disk, and draw it."""
    root = Path(__file__).resolve().parent.parent
    target = Path(sys.argv[1] if len(sys.argv) > 1 else root / "docs" / "disk.svg").resolve()
    command = [sys.executable, "-m", "blockwright"]
    with tempfile.TemporaryDirectory() as work:
        noise = random.Random(0)
        for name, size in FILES.items():
            path = Path(work, "rootfs", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(noise.randbytes(size * 1000))
        options = [f"--partition={each}" for each in PARTITIONS]
        build = ["build", "rootfs", "-o", "disk.img", "--size", "320M", "--seed", "picture", "--owner", "0:0"]
        env = {**os.environ, "SOURCE_DATE_EPOCH": "1767225600"}
        subprocess.run([*command, *build, *options], cwd=work, env=env, check=True, stdout=subprocess.DEVNULL)
        draw = ["inspect", "disk.img", "--svg", str(target), "--force"]
        subprocess.run([*command, *draw], cwd=work, env=env, check=True)


if __name__ == "__main__":
    main()
