"""Boots a disk in QEMU, without hardware help, and reads its serial console; knows nothing of what is on the disk."""

import os
import re
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Literal

from tests.support.tools import package_file, tool

Firmware = Literal["ovmf", "seabios", "secure"]
Interface = Literal["nvme", "ide", "virtio"]

MAX_CONSOLE = 16 << 20
"""Bytes of console after which a guest counts as run wild."""

HOPELESS = (
    *(b"UEFI Interactive Shell", b"No bootable device", b"Kernel panic - not syncing"),
    *(b"Missing operating system", b"Boot error", b"Could not find kernel image", b"No configuration file found"),
    *(b"grub rescue>", b"No bootable option or device was found"),
)
"""What a console says when nothing more will come of it; waiting for the time to be over would only cost time."""

_DRIVES: dict[Interface, list[str]] = {
    "nvme": ["-device", "nvme,drive=disk,serial=blockwright"],
    "ide": ["-device", "ide-hd,drive=disk"],
    "virtio": ["-device", "virtio-blk-pci,drive=disk"],
}

REACH = 4096
"""Bytes of console that are looked at again when more have come: a word, and what moves the cursor within it."""

_MOVES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


class BootError(AssertionError):
    """The disk did not get as far as it should; the message holds the console."""


def boot_disk(
    path: str | os.PathLike[str],
    *,
    firmware: Firmware = "ovmf",
    expect: bytes,
    timeout: float = 180,
    memory: int = 256,
    interface: Interface = "nvme",
    image_format: str = "raw",
    sector_size: int = 512,
) -> str:
    """The serial console of a guest started from the disk at `path`, up to and with `expect`.

    The disk is not changed: what the guest writes is dropped. `memory` is in MiB, `timeout` in seconds.
    Debian's cloud kernel has NVMe built in, and virtio and IDE only as modules. Raises BootError when `expect` does
    not come before the guest powers off, QEMU ends, the time is over or the console says one of HOPELESS. Ends the
    one process it started.
    """
    command = [
        tool("qemu-system-x86_64"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"),
        *("-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", str(memory)),
        *("-serial", "stdio", "-monitor", "none"),
        *("-drive", f"if=none,id=disk,file.filename={_option(path)},format={image_format},snapshot=on"),
        *_drive(interface, sector_size),
    ]
    if firmware == "seabios":
        command += ["-machine", "graphics=off"]  # SeaBIOS writes to the serial console then
    elif firmware == "ovmf":
        command += ["-bios", str(package_file("/usr/share/ovmf/OVMF.fd", package="ovmf"))]
    with tempfile.TemporaryDirectory(prefix="qemu-") as scratch:
        if firmware == "secure":
            command += _secure(Path(scratch))
        return _console(command, Path(scratch), expect, timeout)


def snakeoil() -> tuple[Path, Path]:
    """The key, which has the password `snakeoil`, and the certificate that the firmware `secure` trusts."""
    key, certificate = (
        package_file(f"/usr/share/ovmf/PkKek-1-snakeoil.{kind}", package="ovmf") for kind in ("key", "pem")
    )
    return key, certificate


def _secure(scratch: Path) -> list[str]:
    code = package_file("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", package="ovmf")
    variables = scratch / "variables"
    shutil.copy(package_file("/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd", package="ovmf"), variables)
    return [
        *("-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"),
        *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_option(code)}"),
        *("-drive", f"if=pflash,unit=1,format=raw,file={_option(variables)}"),
    ]


def _option(path: str | os.PathLike[str]) -> str:
    """The path as a value in QEMU's option syntax, where a comma is written twice."""
    return os.path.abspath(path).replace(",", ",,")


def _drive(interface: Interface, sector_size: int) -> list[str]:
    option, value = _DRIVES[interface]
    if sector_size != 512:
        value += f",logical_block_size={sector_size},physical_block_size={sector_size}"
    return [option, value]


def _console(command: list[str], scratch: Path, expect: bytes, timeout: float) -> str:
    errors = scratch / "stderr"
    with errors.open("wb") as stderr:
        guest = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
    try:
        text = _read_until(guest, expect, time.monotonic() + timeout)
        ended = guest.poll()
    finally:
        if guest.poll() is None:
            guest.send_signal(signal.SIGKILL)
        guest.wait()
        assert guest.stdout is not None
        guest.stdout.close()
    console = bytes(text).decode("utf-8", "backslashreplace")
    if expect in plain(text):
        return console
    how = f"was stopped within {timeout:g} s" if ended is None else f"ended with {ended}"
    said = errors.read_text(errors="backslashreplace").strip()
    raise BootError(f"the guest {how} without printing {expect!r}\n{said}\n--- console\n{console[-8000:]}")


def _read_until(guest: subprocess.Popen[bytes], expect: bytes, deadline: float) -> bytearray:
    """What the guest printed until `expect`, a hopeless word, its end or the deadline."""
    assert guest.stdout is not None
    text = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(guest.stdout, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0 and len(text) < MAX_CONSOLE:
            if not selector.select(left):
                break
            data = os.read(guest.stdout.fileno(), 65536)
            if not data:
                guest.wait(timeout=30)
                break
            start = max(0, len(text) - REACH)
            text += data
            recent = plain(text[start:])
            if any(word in recent for word in (expect, *HOPELESS)):
                break
    return text


def plain(text: bytes | bytearray) -> bytes:
    """The text without what moves a terminal's cursor: SeaBIOS also says the same place twice, within words."""
    return _MOVES.sub(b"", text)
