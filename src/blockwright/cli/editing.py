"""What all commands that change a file system in place share: which one, how it is opened, and what is said.

Knows: their options. Refuses to know: the changes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click

from blockwright.cli.options import (
    ImageFormat,
    force_unlocked_option,
    image_options,
    partition_option,
)
from blockwright.cli.output import show_text
from blockwright.device.base import BlockDevice
from blockwright.epoch import source_date_epoch
from blockwright.errors import UsageError
from blockwright.fs.editor import CommitPolicy, Editor
from blockwright.resolve import open_device, open_editor


@dataclass(frozen=True, slots=True)
class Target:
    """The file system that a command changes: as its user names it, and how it may be changed."""

    image: str
    partition: int | None
    force_unlocked: bool
    image_format: ImageFormat
    atomic: bool

    @property
    def name(self) -> str:
        """The address, partition and all."""
        return self.image if self.partition is None else f"{self.image}:{self.partition}"

    @contextmanager
    def editing(self) -> Iterator[Editor]:
        """Open the file system, and commit what the body changed; nothing where it raises."""
        device = self.open(writable=True)
        policy = CommitPolicy(atomic=self.atomic, on_split=self._tell)
        try:
            editor = open_editor(device, source=self.name, policy=policy)
        except BaseException:
            device.close()
            raise
        with editor:
            yield editor

    def open(self, *, writable: bool) -> BlockDevice:
        """Open what the file system lies on, with nobody else there if it is to be ``writable``."""
        return open_device(
            self.image,
            writable=writable,
            partition=self.partition,
            force_unlocked=self.force_unlocked,
            form=self.image_format.form,
            policy=self.image_format.policy,
            alone=writable,
        )

    def _tell(self, reason: str) -> None:
        sys.stderr.write(f"blockwright: {show_text(self.name)}: more than one transaction: {show_text(reason)}\n")


def edits(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument IMAGE and the options of every change, and pass them as ``target``."""

    @wraps(command)
    def with_target(
        *,
        image: str,
        partition: int | None,
        force_unlocked: bool,
        image_format: ImageFormat,
        atomic: bool,
        **others: Any,
    ) -> Any:
        return command(target=Target(image, partition, force_unlocked, image_format, atomic), **others)

    click.option("--atomic", is_flag=True, help="Refuse what is not one transaction, all of it or nothing.")(
        with_target
    )
    return click.argument("image")(partition_option(force_unlocked_option(image_options(with_target))))


def now_ns() -> int:
    """Return the time that changes are given: SOURCE_DATE_EPOCH where it is set, else the clock's."""
    seconds = source_date_epoch()
    return time.time_ns() if seconds is None else seconds * 10**9


def mode_value(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """Return permissions given in octal, for an option's ``callback``."""
    return None if value is None else parse_mode(value)


def parse_mode(text: str) -> int:
    """Return permissions given in octal. Raises UsageError."""
    if not 0 < len(text) <= 5 or not set(text) <= set("01234567") or int(text, 8) > 0o7777:
        raise UsageError(f"mode: expected octal digits such as 644, found {text[:64]!r}")
    return int(text, 8)


def parse_owner(text: str) -> tuple[int | None, int | None]:
    """Return the user and group of ``UID``, ``UID:GID`` or ``:GID``. Raises UsageError."""
    user, _, group = text.partition(":")
    for each in (user, group):
        if each and not (each.isdecimal() and each.isascii() and len(each) <= 10 and int(each) < 1 << 32):
            raise UsageError(f"owner: expected numbers, as in 0:0, found {text[:64]!r}")
    if not user and not group:
        raise UsageError(f"owner: expected UID, UID:GID or :GID, found {text[:64]!r}")
    return int(user) if user else None, int(group) if group else None


def encode(path: str) -> bytes:
    """Return a path within a file system as bytes."""
    return os.fsencode(path)


def join(directory: bytes, name: bytes) -> bytes:
    """Return the path of a name in a directory."""
    return directory.rstrip(b"/") + b"/" + name
