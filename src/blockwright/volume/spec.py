"""What a pool is, as it was specified: saved, so that it comes back after a reboot.

Each pool has a folder under the state directory: its specification (``pool.json``), its journal and its lock.

Knows: where these lie, and how a specification is read. Refuses to know: what drivers do with options.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from blockwright.device.descriptor import named_error
from blockwright.device.hostfile import sync_data
from blockwright.errors import Corrupt, NotFound, Unsupported
from blockwright.home import state_home
from blockwright.system.linux.registry import locked_file
from blockwright.volume.info import check_name

DRIVERS: Final = ("file", "thin")
VERSION: Final = 1
MAX_SPEC: Final = 256 << 10
"""Bytes of a specification that are read."""
MAX_POOLS: Final = 4096
_FILE: Final = "pool.json"
MAKING: Final = "making.json"
"""What the specification of a pool that is being made is called: who finds it undoes what was begun."""


def state_directory() -> str:
    """Return where pools are kept: below BLOCKWRIGHT_HOME, /var/lib/blockwright as root, or XDG_STATE_HOME."""
    return os.path.join(state_home(), "pools")


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pool: its ``driver`` and that driver's ``options``, of JSON. ``folder`` is where its state lies."""

    name: str
    driver: str
    folder: str
    options: Mapping[str, Any]
    created_ns: int = 0

    @property
    def journal(self) -> str:
        """The path of its journal."""
        return os.path.join(self.folder, "journal.db")

    def save(self, name: str = _FILE) -> None:
        """Have the specification on file, durably, under that name. Raises OSError."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        document = {
            "schema": f"blockwright.pool/{VERSION}",
            "name": self.name,
            "driver": self.driver,
            "created_ns": self.created_ns,
            "options": dict(self.options),
        }
        write_file(os.path.join(self.folder, name), json.dumps(document, indent=2).encode() + b"\n")

    def text(self, option: str) -> str:
        """Return an option that is text. Raises Corrupt."""
        found = self.options.get(option)
        if not isinstance(found, str) or not found:
            raise Corrupt(f"pool {self.name}: {option}: expected a text, found {found!r}", source=self.folder)
        return found

    def number(self, option: str) -> int:
        """Return an option that is a number. Raises Corrupt."""
        found = self.options.get(option)
        if type(found) is not int or found < 0:
            raise Corrupt(f"pool {self.name}: {option}: expected a number, found {found!r}", source=self.folder)
        return found

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process, and thread, from the pool; a process that dies lets go.

        Raises KernelError (EAGAIN) where the lock is not free within 30 s, NotFound where the pool was destroyed.
        """
        gone = NotFound(f"pool {self.name}: no such pool: it was destroyed")
        with ExitStack() as stack:
            try:
                stack.enter_context(locked_file(os.path.join(self.folder, "lock")))
            except FileNotFoundError:
                raise gone from None
            if not os.path.exists(os.path.join(self.folder, _FILE)):
                raise gone
            yield


def pool_names() -> list[str]:
    """Return the names of all pools that are specified."""
    home = state_directory()
    try:
        found = sorted(os.listdir(home))[:MAX_POOLS]
    except FileNotFoundError:
        return []
    return [name for name in found if os.path.exists(os.path.join(home, name, _FILE))]


def folder_of(name: str) -> str:
    """Return where the state of a pool lies. Raises UsageError for what is no name."""
    return os.path.join(state_directory(), check_name(name, "pool"))


def unfinished_pools() -> list[str]:
    """Return the names of pools that somebody is making, or had begun to make when he died."""
    home = state_directory()
    try:
        found = sorted(os.listdir(home))[:MAX_POOLS]
    except FileNotFoundError:
        return []
    return [name for name in found if os.path.exists(os.path.join(home, name, MAKING))]


def load_spec(name: str, file_name: str = _FILE) -> PoolSpec:
    """Return a pool's specification. Raises NotFound, Corrupt, Unsupported for one of a newer version."""
    folder = folder_of(name)
    path = os.path.join(folder, file_name)
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_SPEC + 1)
    except FileNotFoundError:
        known = ", ".join(pool_names()[:8]) or "none"
        raise NotFound(f"pool {name}: no such pool: there are {known}") from None
    return parse_spec(text, name, folder)


def parse_spec(text: bytes, name: str, folder: str) -> PoolSpec:
    """Return the specification in ``text``. Raises as ``load_spec`` does."""
    source = os.path.join(folder, _FILE)
    try:
        document = json.loads(text) if len(text) <= MAX_SPEC else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Corrupt("pool: expected a JSON object", source=source)
    schema, _, version = str(document.get("schema")).rpartition("/")
    if schema != "blockwright.pool":
        raise Corrupt(f"pool: expected the schema blockwright.pool, found {schema[:64]!r}", source=source)
    if version != str(VERSION):
        raise Unsupported(f"pool: expected version {VERSION}, found {version[:16]!r}", source=source)
    driver, options, created = document.get("driver"), document.get("options"), document.get("created_ns")
    if document.get("name") != name or driver not in DRIVERS:
        raise Corrupt(f"pool: expected pool {name} of a driver {' or '.join(DRIVERS)}", source=source)
    if not isinstance(options, dict) or type(created) is not int:
        raise Corrupt("pool: expected options and a time", source=source)
    return PoolSpec(name, str(driver), folder, options, created)


def remove_folder(spec: PoolSpec) -> None:
    """Have no state of the pool; its specification goes first. Raises OSError where others put files there."""
    for name in (_FILE, MAKING, "journal.db-wal", "journal.db-shm", "journal.db", "journal.db-owners", "lock"):
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(spec.folder, name))
    for name in os.listdir(spec.folder):
        if name.startswith("journal.db.set-aside"):
            os.unlink(os.path.join(spec.folder, name))
    os.rmdir(spec.folder)


def write_file(path: str, data: bytes, mode: int = 0o600) -> None:
    """Have ``data`` at ``path``, durably, whole or not at all. Raises OSError, which names ``path``."""
    try:
        _write_beside(path, f"{path}.{os.getpid()}.part", data, mode)
    except OSError as error:
        raise named_error(OSError(error.errno, error.strerror), path) from None
    sync_folder(os.path.dirname(path) or os.curdir)


def _write_beside(path: str, beside: str, data: bytes, mode: int) -> None:
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(fd, left) :]
            sync_data(fd)
        finally:
            os.close(fd)
        os.replace(beside, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(beside)
        raise


def sync_folder(path: str) -> None:
    """Make durable which names a folder has, where the system can."""
    if os.name == "nt":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
