"""A swap area's header, which is its first page.

Source: Linux, include/linux/swap.h, ``union swap_header``, and mm/swapfile.c, ``read_swap_header``; util-linux,
swaplabel(8), for UUID and label. Numbers are in the byte order of the machine; here little-endian.

Knows: fields. Refuses to know: what is swapped.
"""

from __future__ import annotations

from typing import Final

from blockwright.codec.record import Record, raw, u32

MAGIC: Final = b"SWAPSPACE2"
VERSION: Final = 1
PAGE_SIZE: Final = 4096
"""Bytes of a page as the header counts them; it ends with the magic."""
MIN_PAGES: Final = 10
"""The least that mkswap makes."""
MAX_PAGES: Final = 0xFFFFFFFF
MAX_LABEL: Final = 16


class Header(Record, size=PAGE_SIZE):
    """The first page. ``last_page`` is a page's number, and so one less than there are."""

    version: int = u32(1024, VERSION)
    last_page: int = u32(1028)
    nr_badpages: int = u32(1032)
    sws_uuid: bytes = raw(1036, 16)
    sws_volume: bytes = raw(1052, MAX_LABEL)
    magic: bytes = raw(PAGE_SIZE - len(MAGIC), len(MAGIC))
