"""Jobs that can be asked for by name, and the lines without which each cannot be done.

Knows: names. Refuses to know: whether a line holds.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Job(NamedTuple):
    """``needs`` is all of these, of each any one: names of lines, the usual one first."""

    what: str
    needs: tuple[tuple[str, ...], ...]


_IMAGES: Final = (("python",),)
_ROOT: Final = ("root",)

JOBS: Final = {
    "attach": Job("loop attach, map add", (("loop",), _ROOT)),
    "bios": Job("build --boot syslinux or grub", (("syslinux", "grub"),)),
    "build": Job("build, extract, manifest", _IMAGES),
    "convert": Job("convert, compare, disk create", _IMAGES),
    "dm": Job("dm", (("device-mapper",), _ROOT)),
    "edit": Job("fs, disk", _IMAGES),
    "mount": Job("volume mount", (_ROOT, ("ext4", "vfat"))),
    "nbd": Job("nbd attach", (("nbd",), _ROOT)),
    "registry": Job("build docker://", (("registry",),)),
    "secure-boot": Job("build --shim", (("shim",),)),
    "serve": Job("serve, nbd copy", _IMAGES),
    "store": Job("s3://, gs://, az:// and http:// addresses", (("store",),)),
    "thin": Job("pool create --driver thin", (("device-mapper",), ("dm-thin-pool",), _ROOT)),
    "uefi": Job("build --boot systemd-boot, grub-efi or uki", (("systemd-boot", "grub-efi", "systemd stub"),)),
    "verity": Job("verity open", (("device-mapper",), ("dm-verity",), _ROOT)),
}
"""Jobs by name, in the order in which they are told."""
