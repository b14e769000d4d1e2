"""Inputs of guest tests that more than one file of them wants, made on the host before the guest starts.

A function fills the directory it is given; a test names it with `@pytest.mark.prepare(by=function)`.
"""

from pathlib import Path

from tests.support.tools import run, tool


def mke2fs_image(directory: Path) -> None:
    """image.ext4: 16 MiB made by mke2fs with a file, a directory and a symbolic link in it."""
    tree = directory / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").write_bytes(b"from the host\n")
    (tree / "link").symlink_to("sub/file")
    image = directory / "image.ext4"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    run([tool("mke2fs"), "-q", "-t", "ext4", "-d", tree, image])


def two_blank_disks(directory: Path) -> list[Path]:
    """Two disks of 4 and 8 MiB, zeros."""
    disks = []
    for mebibytes in (4, 8):
        disk = directory / f"disk{mebibytes}"
        with disk.open("wb") as file:
            file.truncate(mebibytes << 20)
        disks.append(disk)
    return disks
