"""A volume of layers as others can have it: exported by a process of its own, as a block device where there is root.

The process is started by who activates the volume, and ends when that is over. It holds two leases in the journal:
that of whoever writes to the volume, by which it is asked to stand still, and one that says where the export is.

Knows: how that process is started and ended. Refuses to know: what it does (``serve.volume``), and layers.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any, Final

from blockwright import errors
from blockwright.device.base import BlockDevice
from blockwright.device.hostblock import HostBlockDevice
from blockwright.errors import BlockwrightError, InUse, KernelError, Unavailable
from blockwright.journal import Journal, Lease
from blockwright.system.linux import nbd
from blockwright.system.linux.mount import points_of
from blockwright.system.linux.nbd.state import require_driver
from blockwright.volume.file.holder import remove_traces
from blockwright.volume.info import VolumeInfo
from blockwright.volume.spec import PoolSpec

START_S: Final = 60
"""How long the process has until the volume can be read, or it ends."""
STOP_S: Final = 30.0
"""How long the process may take to end when nobody uses what it exports."""
CLIENTS_S: Final = 3.0
"""How long clients that are about to go are waited for."""
_PAUSE_S: Final = 0.01
_MAX_LINE: Final = 64 << 10
_MAIN: Final = "from blockwright.serve.volume import main; main()"
_PREFIX: Final = "export/"


def lease_name(number: int) -> str:
    """Return the lease that the process with the export of that volume holds."""
    return f"{_PREFIX}{number}"


def lease_of(journal: Journal, number: int) -> Lease | None:
    """Return the lease of the process that exports the volume, None where none does."""
    name = lease_name(number)
    return next((each for each in journal.leases() if each.name == name and each.owner.alive), None)


def path_of(lease: Lease | None) -> str | None:
    """Return the block device that the export is, or its address; None where there is neither yet."""
    path = None if lease is None else lease.fields.get("path")
    return path if isinstance(path, str) else None


def is_export(path: str) -> bool:
    """Whether an active volume's path is one of an export."""
    return path.startswith(("/dev/nbd", "nbd+unix:"))


def check_device(volume: VolumeInfo) -> None:
    """Return where a volume of layers can be a block device. Raises Unavailable, with what works instead."""
    try:
        require_driver("activate", volume.address)
        nbd.available()
    except Unavailable as error:
        text = f"consists of layers, of which only the driver nbd makes a block device: {error.args[1]}"
        remedy = (
            f"'modprobe nbd' if the kernel has it; 'blockwright serve {volume.address}' needs neither it nor root"
        )
        raise Unavailable("activate", volume.address, error.errno or 0, text, remedy=remedy) from None


def start(spec: PoolSpec, journal: Journal, volume: VolumeInfo, *, device: bool) -> None:
    """Have the volume exported, as a block device too with ``device``, and to be read; one that is stays so.

    Raises what opening its layers and attaching raise; there is no process then.
    """
    if path_of(lease_of(journal, volume.id)) is not None:
        return
    mode, kind = "read-only" if volume.read_only else "writable", "device" if device else "socket"
    process = subprocess.Popen(  # noqa: S603 - this program itself
        # -P: no module is taken from the working directory, which may be anybody's
        [sys.executable, "-P", "-c", _MAIN, spec.name, volume.name, mode, kind],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)},
    )
    with process:  # which ends at once: its child goes on
        assert process.stdout is not None, "it was asked for"
        line = process.stdout.readline(_MAX_LINE)
    try:
        told = json.loads(line)
    except ValueError:
        told = {"error": f"{volume.name}: the process that was to export it ended before it could"}
    if "error" in told:
        raise _error(told)


def _error(told: dict[str, Any]) -> BlockwrightError:
    kind, text = getattr(errors, str(told.get("kind")), BlockwrightError), str(told["error"])
    if isinstance(kind, type) and issubclass(kind, BlockwrightError) and not issubclass(kind, KernelError):
        return kind(text)
    return BlockwrightError(text)


def stop(journal: Journal, volume: VolumeInfo) -> None:
    """Have the volume exported by nobody, and all that was written to the device in its layers.

    Raises InUse while a client or a file system uses it, KernelError; it stays exported then.
    """
    lease = lease_of(journal, volume.id)
    if lease is None or sys.platform == "win32":
        return
    if lease.owner.foreign:
        raise InUse(f"{volume.name}: is exported by {lease.owner.text}: deactivate it there")
    path = path_of(lease) or ""
    device = path.startswith("/dev/")
    if device and points_of(path):
        raise InUse(f"{volume.name}: is mounted")
    if device:
        nbd.detach(path)
    last = time.monotonic() + STOP_S
    end = last - STOP_S + CLIENTS_S if path and not device else last
    while lease.owner.alive:
        if time.monotonic() >= end:
            if end < last and lease_of(journal, volume.id) is None:  # given back: nobody is connected, and it ends
                end = last
                continue
            who = "a client is connected" if path and not device else f"process {lease.owner.pid} does not end"
            raise InUse(f"{volume.name}: {path}: is in use: {who}")
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(lease.owner.pid, signal.SIGTERM)
        time.sleep(_PAUSE_S)
    journal.give_back(lease)
    remove_traces(str(lease.fields.get("socket", "")))


def clean(lease: Lease) -> None:
    """Have nothing left of a process that died with the lease. What is on a device behind it was lost with it."""
    remove_traces(str(lease.fields.get("socket", "")))
    if lease.name.startswith(_PREFIX) and lease.fields.get("device") and sys.platform == "linux":
        nbd.gc(force=True)


def resize(volume: VolumeInfo, size: int) -> None:
    """Have the block device that the volume is as large as that; an export is asked by each new client."""
    if volume.path is None or not volume.path.startswith("/dev/nbd"):
        return
    number = nbd.number_of(volume.path)
    found = nbd.state(number)
    if found is not None and found.size != size:
        with nbd.Control() as control:
            control.reconfigure(number, found.identifier, size=size)


def read(path: str) -> BlockDevice:
    """Return the export at a path, to be read."""
    if path.startswith("/dev/"):
        return HostBlockDevice(path)
    from blockwright.nbd.client.connect import connect

    return connect(path)
