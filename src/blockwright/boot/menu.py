"""The configuration files of boot loaders: one entry, started at once.

What an entry is called comes from the system that is started and is not trusted: control characters, which end lines
or files for one loader or the other, become spaces. A command line with some is refused.

Knows: how each loader spells it, and what it cannot say. Refuses to know: where files are put.

Source: SYSLINUX 6.04, doc/syslinux.txt; GNU GRUB manual 2.06, "Shell-like scripting", "linux"; UAPI.1 Boot Loader
Specification, "Type #1 Boot Loader Specification Entries".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from blockwright.errors import UsageError

MAX_OPTIONS: Final = 2047
"""Bytes of a kernel command line: what Linux takes on x86 without its final NUL."""
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._+~@:=-]+)+")
_CONTROL: Final = re.compile(r"[\0-\x08\n-\x1f\x7f]")
"""All but the tab, which separates words. SYSLINUX takes 0x1A for the end of the file."""
_WORD: Final = re.compile(r'(?:[^\s"]|"[^"]*"?)+')


@dataclass(frozen=True, slots=True)
class Entry:
    """A system to start: its title, its kernel and RAM disk by absolute path, its kernel command line.

    ``serial`` makes the loader use the first serial line too, at 115200 baud.
    """

    title: str
    kernel: str
    initrd: str | None
    options: str
    serial: bool = False

    def __post_init__(self) -> None:
        for path in (self.kernel, self.initrd):
            if path is not None and _PATH.fullmatch(path) is None:
                raise UsageError(f"{path[:200]!r}: expected a path that loaders can spell: letters, digits, ._+~@:=-")
        check_options(self.options)


def check_options(options: str) -> None:
    """Raise UsageError for a kernel command line that no loader can pass on."""
    control = _CONTROL.search(options)
    if control is not None:
        raise UsageError(f"kernel command line: expected one line, found the control character {control[0]!a}")
    try:
        length = len(options.encode())
    except UnicodeEncodeError:
        raise UsageError(f"kernel command line: expected text in UTF-8, found {options[:64]!a}") from None
    if length > MAX_OPTIONS:
        raise UsageError(f"kernel command line: expected at most {MAX_OPTIONS} bytes, found {length}")


def syslinux(entry: Entry) -> str:
    """Return ``syslinux.cfg``, or ``extlinux.conf``."""
    lines = ["SERIAL 0 115200"] if entry.serial else []  # must come first
    lines += ["DEFAULT linux", "PROMPT 0", "TIMEOUT 0", "", "LABEL linux"]
    lines += [f"  MENU LABEL {_one_line(entry.title)}", f"  LINUX {entry.kernel}"]
    if entry.initrd is not None:
        lines.append(f"  INITRD {entry.initrd}")
    lines.append(f"  APPEND {entry.options}")
    return _text(lines)


def grub(entry: Entry) -> str:
    """Return ``grub.cfg``; its paths are on the partition that GRUB's prefix is on."""
    lines = []
    if entry.serial:
        lines += [
            "serial --unit=0 --speed=115200",
            "terminal_input console serial",
            "terminal_output console serial",
        ]
    options = "".join(f" {_quoted(word)}" for word in kernel_words(entry.options))
    lines += ["set default=0", "set timeout=0", f"menuentry {_quoted(_one_line(entry.title))} {{"]
    lines.append(f"  linux {entry.kernel}{options}")
    if entry.initrd is not None:
        lines.append(f"  initrd {entry.initrd}")
    lines.append("}")
    return _text(lines)


def systemd(entry: Entry, version: str) -> str:
    """Return the entry as systemd-boot takes it, of type 1; ``version`` is the kernel's."""
    lines = [f"title {_one_line(entry.title)}", f"version {_one_line(version)}", f"linux {entry.kernel}"]
    if entry.initrd is not None:
        lines.append(f"initrd {entry.initrd}")
    lines.append(f"options {entry.options}")
    return _text(lines)


def kernel_words(options: str) -> list[str]:
    """Return the words of a kernel command line as Linux takes them apart, without the quotes around spaces."""
    return [word.replace('"', "") for word in _WORD.findall(options)]


def _quoted(word: str) -> str:
    """Return a word of GRUB's scripts that means these characters."""
    return "'" + word.replace("'", "'\\''") + "'"


def _one_line(text: str) -> str:
    """Return the text without what is not printable, or ``Linux`` where nothing is left of it."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split()) or "Linux"


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
