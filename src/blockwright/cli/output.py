"""What the command prints: JSON documents with a schema, tables, and progress on a terminal.

Knows: how values are shown. Refuses to know: where they come from.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from blockwright.device.base import BlockDevice
from blockwright.errors import UsageError
from blockwright.units import MiB, format_size

if TYPE_CHECKING:  # most commands read no archive
    from blockwright.tree.rules import Remarks

Progress = Callable[[int, int], None]
"""``progress(done, total)`` in bytes; a total of 0 is one that nobody knows."""

_INTERVAL_S = 0.1


def print_json(schema: str, document: dict[str, Any]) -> None:
    """Print one JSON document, which names its ``schema`` (``blockwright.NAME/VERSION``)."""
    import json

    sys.stdout.write(json.dumps({"schema": schema, **document}, indent=2) + "\n")


_collected: list[str] | None = None
"""What was printed, for the document that tells of it; None while it goes to standard output."""


@contextmanager
def collecting() -> Iterator[list[str]]:
    """Give a list that paths and lines are added to meanwhile, in place of standard output."""
    global _collected  # noqa: PLW0603 - a process has one standard output
    _collected = []
    try:
        yield _collected
    finally:
        _collected = None


def print_lines(lines: Sequence[str]) -> None:
    """Print lines of text; what an image or a name could put in to steer the terminal is escaped."""
    if _collected is not None:
        _collected.extend(lines)
        return
    sys.stdout.write("".join(f"{show_text(line)}\n" for line in lines))


def print_path(path: str) -> None:
    """Print the path of what was made, byte for byte; nothing where standard output is what was made."""
    if is_stdout(path):
        return
    if _collected is not None:
        _collected.append(path)
        return
    sys.stdout.flush()
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:
        sys.stdout.write(f"{path}\n")
    else:
        buffer.write(os.fsencode(path) + b"\n")
        buffer.flush()


def write_bytes(device: BlockDevice) -> None:
    """Write all bytes of a device to standard output."""
    buffer = memoryview(bytearray(min(device.size, MiB)))
    position = 0
    while position < device.size:
        part = buffer[: min(len(buffer), device.size - position)]
        device.read_into(position, part)
        sys.stdout.buffer.write(part)
        position += len(part)
    sys.stdout.buffer.flush()


def write_file(path: str, pieces: Iterable[bytes], what: str, *, force: bool) -> None:
    """Make a file of ``pieces`` appear under its name; ``what`` it is goes into messages.

    Raises UsageError where the name is a device's, and what OutputFile raises.
    """
    from blockwright.device.base import ResizableDevice
    from blockwright.device.output import OutputFile

    with OutputFile(path, force=force) as out:
        if not isinstance(out.device, ResizableDevice):
            raise UsageError(f"{path}: expected a file to write {what} to, found a device")
        position = 0
        for piece in pieces:
            out.device.resize(position + len(piece))
            out.device.write(position, piece)
            position += len(piece)


def in_colour() -> bool:
    """Whether standard output takes colours: a terminal that knows them, and no NO_COLOR (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") not in ("", "dumb")


def is_stdout(path: str) -> bool:
    """Whether ``path`` is the regular file that standard output goes to, as in ``-o /dev/stdout > disk.img``."""
    try:
        status, own = os.stat(path), os.fstat(sys.stdout.fileno())
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(own.st_mode) and (status.st_dev, status.st_ino) == (own.st_dev, own.st_ino)


def table(rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """Return rows as lines with aligned columns; ``align`` has ``<`` or ``>`` for each column."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(align))] if rows else []
    return [
        "  ".join(
            cell.rjust(width) if side == ">" else cell.ljust(width)
            for cell, width, side in zip(row, widths, align, strict=True)
        ).rstrip()
        for row in rows
    ]


def show_name(name: bytes) -> str:
    """Return a file name for a terminal: UTF-8 where it is, control characters and other bytes escaped."""
    return show_text(name.decode("utf-8", "surrogateescape"))


def show_text(text: str) -> str:
    """Return text on one line: control characters, and bytes that are not UTF-8, are escaped."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


class StderrLogger:
    """A logger whose lines go to standard error: warnings, and unless it is ``quiet`` what is done."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet

    def debug(self, msg: str, *args: Any) -> None:
        """Say nothing."""

    def info(self, msg: str, *args: Any) -> None:
        """Say what was done."""
        if not self._quiet:
            self.warning(msg, *args)

    def warning(self, msg: str, *args: Any) -> None:
        """Say what is not as one would think."""
        sys.stderr.write(f"blockwright: {show_text(msg % args)}\n")
        sys.stderr.flush()


def tell_remarks(name: str, remarks: Remarks) -> None:
    """Tell on standard error, in one line, what an archive held that was not taken as it stands."""
    told = []
    if remarks.replaced:
        told.append(f"{remarks.replaced} entries were replaced by later ones of the same name")
    if remarks.dropped_xattrs:
        names = ", ".join(f"{show_name(each)} of {count}" for each, count in sorted(remarks.dropped_xattrs.items()))
        told.append(f"left out extended attributes: {names} (--xattrs all keeps them)")
    tell(name, told)


def tell(name: str, lines: Sequence[str]) -> None:
    """Tell on standard error, in one line, what of a thing its user should know; nothing for no lines."""
    if lines:
        sys.stderr.write(f"blockwright: {show_text(name)}: {'; '.join(lines)}\n")


def _silent(done: int, total: int) -> None:  # the shape of Progress
    """Show nothing."""


@contextmanager
def progress_bar(title: str, *, quiet: bool) -> Iterator[Progress]:
    """Show a bar on standard error while it is a terminal, and nothing otherwise."""
    if quiet or not sys.stderr.isatty():
        yield _silent
        return
    started = shown = time.monotonic()
    width = 0

    def show(done: int, total: int) -> None:
        nonlocal shown, width
        now = time.monotonic()
        if now - shown < _INTERVAL_S:
            return
        shown = now
        speed = f"{format_size(round(done / max(now - started, 1e-6)))}/s"
        if total:
            share = min(1.0, done / total)
            filled = round(share * 30)
            bar = f"[{'#' * filled}{'.' * (30 - filled)}] {share:4.0%}"
            text = f"{title} {bar}  {format_size(done)} of {format_size(total)}, {speed}"
        else:
            text = f"{title} {format_size(done)}, {speed}"
        sys.stderr.write("\r" + text.ljust(width))
        sys.stderr.flush()
        width = len(text)

    try:
        yield show
    finally:
        if width:
            sys.stderr.write("\r" + " " * width + "\r")
            sys.stderr.flush()
