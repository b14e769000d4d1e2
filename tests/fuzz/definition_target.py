"""Fuzz target: any text as a definition of a disk, in each of its forms."""

import os

from blockwright.build.genimage import read_genimage
from blockwright.build.repart import parse_conf
from blockwright.build.toml_read import parse_partition, parse_toml
from blockwright.errors import FormatError, NotFound, UsageError

MAX_BYTES = 1 << 16

REPART = b"""[Partition]
Type=root
Label=a b
UUID=11111111-2222-3333-4444-555555555555
Weight=2000
PaddingWeight=1
SizeMinBytes=10M
SizeMaxBytes=1G
PaddingMinBytes=4K
PaddingMaxBytes=8K
CopyFiles=/etc:/x
MakeDirectories=/a /b
Flags=0x4
ReadOnly=yes
Minimize=guess
Verity=off
SplitName=-
"""
GENIMAGE = b"""/* c */ config { rootpath = "r" }
image boot.vfat { vfat { label = "BOOT" file a/b { image = "c" } files = { "d", 'e' } } size = 32M }
image root.ext4 { ext4 { label = "x" } size = 150% mountpoint = "/usr" } # c
image disk.img {
  hdimage { partition-table-type = "hybrid" align = 1M disk-uuid = "11111111-2222-3333-4444-555555555555" }
  partition boot { partition-type = 0xC bootable = "true" image = "boot.vfat" offset = 1M }
  partition root { partition-type-uuid = L image = "root.ext4" autoresize = true }
  partition raw { in-partition-table = no offset = 64K size = 4K }
  size = 1G // c
}
"""


def seeds() -> list[bytes]:
    """A text of each form."""
    return [b"r" + REPART, b"g" + GENIMAGE, b't[[partition]]\nmount = "/"\nsize = "rest"\n', b"pmount=/,size=1M"]


def fuzz_one(data: bytes) -> None:
    """Lets nothing but the errors that are documented out; the first byte says the form."""
    text = data[1:MAX_BYTES].decode("utf-8", "replace")
    try:
        form = data[:1]
        if form == b"r":
            parse_conf(text, os.devnull, [], set())
        elif form == b"g":
            read_genimage(text, os.devnull).definition()
        elif form == b"p":
            parse_partition(text)
        else:
            parse_toml(text, os.devnull).definition()
    except (FormatError, UsageError, NotFound):
        return
