"""What this package made in the kernel, on file, so that what a died process left can be told and removed.

A record is a small file, written before the kernel is asked, and added to when it has answered. It names the process
that answers for it, or nobody once it is meant to stay. Records end with the boot they were made in.

Knows: records, processes, boots. Refuses to know: devices, and whether one is still what a record says.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from blockwright import marks
from blockwright.errors import KernelError
from blockwright.owner import Owner, boot_identity
from blockwright.system.linux.ioctl import lock_node

MAX_RECORD: Final = 64 << 10
"""Bytes of a record that are read."""
LOCK_TIMEOUT_S: Final = 30.0
_PAUSE_S: Final = 0.005
LEFT_S: Final = 60.0
"""Seconds after which a record that cannot be read is what a process left that died: others write theirs at once."""
MAX_RECORDS: Final = 1 << 16
"""Records of one kind that are looked at."""

_owned_lock: Final = threading.Lock()
_owned: Final[dict[str, set[str]]] = {}
"""The records that this process answers for, by the file in which it has its mark for them."""

_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
"""What ``json.dumps`` makes anew for each call."""


@dataclass(frozen=True, slots=True)
class Record:
    """``fields`` is what the maker wrote. ``owner`` is the process that answers for it, None where it is to stay.

    ``alive`` says whether that process still runs, ``current`` whether the record is of this boot.
    """

    name: str
    fields: dict[str, Any]
    owner: tuple[int, int] | None
    alive: bool
    current: bool


class Registry:
    """The records of one kind of device, in a directory of its own. ``folder`` is chosen by ``directory`` if None."""

    def __init__(self, kind: str, folder: str | None = None) -> None:
        self._folder = os.path.join(directory() if folder is None else folder, kind)
        self._written: set[str] = set()

    def put(self, name: str, fields: dict[str, Any], *, owned: bool) -> None:
        """Have a record of that name; ``owned`` by this process, or to stay.

        One that this object has put before stays as it was where that fails, or the process dies meanwhile; another's
        of that name is lost then. Raises OSError from the host.
        """
        document = {"boot": boot_identity(), "owner": self._current(name) if owned else None, **fields}
        # One write of one line, which a killed process has done or not. Of several lines the last one counts.
        again = name in self._written
        flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if again else os.O_TRUNC)
        path = self._path(name)
        fd = self._open(path, flags)
        try:
            line = f"{_encode(document)}\n".encode()
            if os.write(fd, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        finally:
            os.close(fd)
        self._written.add(name)
        if not owned:
            self._disown(name)

    def _disown(self, name: str) -> None:
        """Have no mark where the record of that name was the last that this process answered for."""
        with _owned_lock:
            mine = _owned.get(self._marks, set())
            if name in mine:
                mine.discard(name)
                if not mine:
                    marks.drop(self._marks)

    def _current(self, name: str) -> list[int]:
        """Return this process as records name it, of which it answers for one of that name."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        with _owned_lock:
            _owned.setdefault(self._marks, set()).add(name)
        owner = Owner.current(self._marks)
        return [owner.pid, owner.start, owner.space, owner.mark]

    @property
    def _marks(self) -> str:
        """The file in which those who answer for records have their marks."""
        return os.path.join(self._folder, "owners")

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, f"{name}.json")

    def _open(self, path: str, flags: int) -> int:
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            return os.open(path, flags, 0o600)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process, and thread, from a ``locked`` block of this kind; one that dies lets go.

        Raises KernelError (EAGAIN) where the lock is not free within 30 s.
        """
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        with locked_file(os.path.join(self._folder, "lock")):
            yield

    def remove(self, name: str) -> None:
        """Have no record of that name."""
        self._written.discard(name)
        self._disown(name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(name))

    def records(self) -> Iterator[Record]:
        """Yield the records there are. One that cannot be read is passed over, and removed when it is old enough."""
        try:
            names = sorted(os.listdir(self._folder))[:MAX_RECORDS]
        except FileNotFoundError:
            return
        for file in names:
            name, dot, _ = file.rpartition(".json")
            if not dot:
                continue  # the lock
            found = self._read(name)
            if found is not None:
                yield found
            elif self._is_left(name):
                self.remove(name)

    def _is_left(self, name: str) -> bool:
        """Whether nobody can be about to write the record any more."""
        try:
            return time.time() - os.stat(self._path(name)).st_mtime > LEFT_S
        except FileNotFoundError:
            return False

    def get(self, name: str) -> Record | None:
        """Return the record of that name, None where there is none that can be read."""
        return self._read(name)

    def _read(self, name: str) -> Record | None:
        try:
            # A file object would cost as much as the rest.
            fd = os.open(self._path(name), os.O_RDONLY)
            try:
                whole = os.read(fd, MAX_RECORD).rpartition(b"\n")[0]
            finally:
                os.close(fd)
            document = json.loads(whole.rpartition(b"\n")[2])
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        if not isinstance(document, dict):
            return None
        owner = document.pop("owner", None)
        boot = document.pop("boot", None)
        who = owner_of(owner, self._marks)
        alive = who is not None and who.alive
        return Record(name, document, None if who is None else (who.pid, who.start), alive, boot == boot_identity())


@contextlib.contextmanager
def locked_file(path: str) -> Iterator[None]:
    """Hold the lock of the file at ``path``, which is made, against every other process and thread.

    Raises KernelError (EAGAIN) where it is not free within 30 s, OSError.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        end = time.monotonic() + LOCK_TIMEOUT_S
        while not lock_node(fd):
            if time.monotonic() > end:
                text = f"somebody else has held the lock for {LOCK_TIMEOUT_S:g} s"
                raise KernelError("flock", path, errno.EAGAIN, text)
            time.sleep(_PAUSE_S)
        yield
    finally:
        os.close(fd)


def owner_of(value: object, marks: str) -> Owner | None:
    """Return the process that a record names; a value that is neither one nor None is one that cannot be alive.

    ``marks`` is the file in which it has its mark. Only records of this boot name any.
    """
    if value is None:
        return None
    if isinstance(value, list) and len(value) in (2, 4) and all(type(each) is int and each >= 0 for each in value):
        pid, start, space, mark = (*value, 0, 0)[:4]
        return Owner(boot_identity(), pid, start, space, mark, marks)
    return Owner("", 0, 0)


def directory() -> str:
    """Return where records are kept: BLOCKWRIGHT_HOME/run, /run/blockwright as root, or the user's own directory."""
    home = os.environ.get("BLOCKWRIGHT_HOME")
    if home:
        return os.path.join(home, "run")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return "/run/blockwright"
    runtime = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("XDG_STATE_HOME")
    return os.path.join(runtime or os.path.expanduser("~/.local/state"), "blockwright")
