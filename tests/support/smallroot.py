"""A root tree that Debian's kernel starts: static busybox and one script."""

import shutil
from pathlib import Path

from tests.support.tools import package_file


def small_root(root: Path, init: str) -> Path:
    """Make the tree at `root`, with `init` as what the kernel starts; return `root`."""
    for name in ("bin", "dev", "proc", "sbin", "boot", "etc"):
        (root / name).mkdir(parents=True)
    shutil.copy(package_file("bin/busybox", package="busybox-static"), root / "bin" / "busybox")
    (root / "sbin" / "init").write_text(init)
    (root / "sbin" / "init").chmod(0o755)
    (root / "etc" / "os-release").write_text('PRETTY_NAME="Test System 1"\n')
    return root


def debian_kernel() -> Path:
    """Debian's cloud kernel, which has NVMe built in."""
    return package_file("boot/vmlinuz-*-cloud-amd64", package="linux-image-cloud-amd64")
