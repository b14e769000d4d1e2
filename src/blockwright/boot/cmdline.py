"""The kernel command line: what it says of the root and of the console, beside what the user says.

Knows: Linux's words for both. Refuses to know: who passes it on.

Source: Linux, Documentation/admin-guide/kernel-parameters.rst; systemd-veritysetup-generator(8).
"""

from __future__ import annotations

from typing import Final

SERIAL: Final = "console=tty0 console=ttyS0,115200"
"""What tells Linux to use the first serial line beside the screen."""


def with_root(cmdline: str, identity: str) -> str:
    """Return the command line with ``root=PARTUUID=…`` and ``rw`` in front, unless it says either itself."""
    return _with(cmdline, root=f"PARTUUID={identity}", mode="rw")


def with_verity_root(cmdline: str, root_hash: str) -> str:
    """Return the command line with ``root=/dev/mapper/root``, ``ro`` and ``roothash=…`` in front.

    systemd's generator in the initial RAM disk makes that device of the partitions whose UUIDs are the first and the
    last 128 bits of the root hash. ``root=`` and ``ro`` are left to a line that says them itself.
    """
    return _with(cmdline, f"roothash={root_hash}", root="/dev/mapper/root", mode="ro")


def with_serial(cmdline: str) -> str:
    """Return the command line with the first serial line as the console, behind what it says itself."""
    return f"{cmdline} {SERIAL}".strip()


def _with(cmdline: str, *more: str, root: str, mode: str) -> str:
    words = cmdline.split()
    defaults = []
    if not any(word.startswith("root=") for word in words):
        defaults.append(f"root={root}")
    if not any(word in ("ro", "rw") for word in words):
        defaults.append(mode)
    return " ".join([*defaults, *more, *([cmdline.strip()] if words else [])])
