"""Starts Debian's cloud kernel in QEMU over the host's files, and runs one shell script in it.

The second kernel of the guest tests: slower than User-Mode Linux, and independent of it. The host's root comes in
through virtiofs, read-only, one directory of the caller writable; virtiofsd needs root. The first steps are made from
an initramfs of busybox and the modules that lead to virtiofs.
"""

import contextlib
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.guest import FILE_SYSTEMS, PANIC, GuestError
from tests.support.initramfs import Entry, module_files, pack
from tests.support.tools import missing, package_file, tool

MODULES = (
    *FILE_SYSTEMS,
    *("loop", "nbd", "vsock_loopback", "cbc", "xts", "ecb"),
    *("dm-thin-pool", "dm-snapshot", "sha512_generic", "dm-verity", "dm-zero", "dm-crypt", "dm-flakey"),
)
"""What is loaded before the script runs, by name; those it does not have are passed over (dm-dust is one)."""

_TRANSPORT = ("virtio_pci", "virtiofs")
_STATUS = ".script-status"

_INIT = """\
#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
for module in {transport}; do $bb insmod /modules/$module; done
$bb mount -t virtiofs -o ro root /host || $bb poweroff -f
$bb mount -t virtiofs share /host{share} || $bb poweroff -f
$bb mount -t proc proc /host/proc
$bb mount -t sysfs sysfs /host/sys
$bb mount -t devtmpfs devtmpfs /host/dev
$bb mount -t tmpfs tmpfs /host/run
$bb mkdir -p /host/dev/shm /host/run/home /host/run/tmp
$bb mount -t tmpfs tmpfs /host/dev/shm
for module in {modules}; do $bb insmod /host$module || echo "insmod $module failed"; done
export {environment}
$bb chroot /host {busybox} sh {script} </dev/null
echo $? > /host{share}/{status}
$bb sync
$bb poweroff -f
"""


def run_qemu_guest(
    script: str,
    share: Path,
    *,
    environment: Mapping[str, str] | None = None,
    disks: Sequence[Path] = (),
    memory: int = 512,
    timeout: float = 900,
    modules: Iterable[str] = MODULES,
) -> tuple[int, str]:
    """What `script` returned in the guest, and the console's text; all as `run_guest` has it.

    `disks` become /dev/nvme0n1, /dev/nvme1n1 and so on. Skips without root, which virtiofsd needs.
    """
    if os.geteuid() != 0:
        missing("virtiofsd needs root")
    kernel = package_file("/boot/vmlinuz-*-cloud-amd64", package="linux-image-cloud-amd64")
    status = share / _STATUS
    status.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="guest-") as name, contextlib.ExitStack() as daemons:
        scratch = Path(name)
        (share / ".script").write_text(script)
        initramfs = scratch / "initramfs"
        initramfs.write_bytes(_initramfs(kernel, share, environment or {}, modules))
        sockets = [
            daemons.enter_context(_virtiofsd(scratch / "root.sock", Path("/"))),
            daemons.enter_context(_virtiofsd(scratch / "share.sock", share)),
        ]
        ended, console = _run(_command(kernel, initramfs, sockets, disks, memory), scratch, timeout)
    text = console.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    tail = f"--- console\n{text[-6000:].strip() or '(empty)'}"
    if PANIC in console:
        raise GuestError(f"the guest's kernel panicked\n{tail}")
    if ended is None:
        raise GuestError(f"the guest had not ended after {timeout:g} s and was stopped\n{tail}")
    if ended != 0 or not status.exists():
        raise GuestError(f"the guest ended with {ended} before its script did\n{tail}")
    return int(status.read_text()), text


def _command(kernel: Path, initramfs: Path, sockets: Sequence[Path], disks: Sequence[Path], memory: int) -> list[str]:
    command = [
        tool("qemu-system-x86_64"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"),
        *("-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", str(memory)),
        *("-object", f"memory-backend-memfd,id=mem,size={memory}M,share=on", "-numa", "node,memdev=mem"),
        *("-kernel", str(kernel), "-initrd", str(initramfs)),
        *("-append", "console=ttyS0 quiet panic=-1", "-serial", "stdio", "-monitor", "none"),
    ]
    for tag, path in zip(("root", "share"), sockets, strict=True):
        command += ["-chardev", f"socket,id={tag},path={path}"]
        command += ["-device", f"vhost-user-fs-pci,chardev={tag},tag={tag}"]
    for number, disk in enumerate(disks):
        file = os.path.abspath(disk).replace(",", ",,")
        command += ["-drive", f"if=none,id=disk{number},file.filename={file},format=raw"]
        command += ["-device", f"nvme,drive=disk{number},serial=disk{number}"]
    return command


@contextlib.contextmanager
def _virtiofsd(socket: Path, source: Path) -> Iterator[Path]:
    """Serve a directory until the block ends; the path is that of its socket."""
    program = package_file("/usr/lib/qemu/virtiofsd", package="qemu-system-common")
    log = socket.with_suffix(".log")
    options = (f"source={source}", "cache=auto", "sandbox=chroot")
    with log.open("wb") as out:
        daemon = subprocess.Popen(
            [program, f"--socket-path={socket}", *(word for each in options for word in ("-o", each))],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
        try:
            while not socket.exists():
                if daemon.poll() is not None:
                    raise GuestError(f"virtiofsd ended with {daemon.returncode}\n{log.read_text()[-2000:]}")
                time.sleep(0.01)
            yield socket
        finally:
            daemon.kill()
            daemon.wait()


def _run(command: list[str], scratch: Path, timeout: float) -> tuple[int | None, bytes]:
    """How QEMU ended (None: it was stopped) and the guest's console."""
    console = scratch / "console"
    with console.open("wb") as out:
        guest = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        try:
            ended: int | None = guest.wait(timeout)
        except subprocess.TimeoutExpired:
            ended = None
        finally:
            guest.kill()
            guest.wait()
    return ended, console.read_bytes()


def _initramfs(kernel: Path, share: Path, environment: Mapping[str, str], modules: Iterable[str]) -> bytes:
    """busybox, the modules of the transport, and the first process."""
    transport = module_files(kernel, _TRANSPORT)
    loaded = [path for path in module_files(kernel, modules) if path not in transport]
    variables = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/run/home", "TMPDIR": "/run/tmp", **environment}
    quoted = shlex.quote(os.path.abspath(share))
    init = _INIT.format(
        transport=" ".join(path.name for path in transport),
        modules=" ".join(shlex.quote(str(path)) for path in loaded),
        share=quoted,
        environment=" ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items()),
        busybox=tool("busybox"),
        script=shlex.quote(os.path.abspath(share / ".script")),
        status=_STATUS,
    )
    entries = [Entry.directory(name) for name in ("bin", "modules", "host", "proc", "sys", "dev")]
    entries.append(Entry.program("bin/busybox", Path(tool("busybox"))))
    entries += [Entry.file(f"modules/{path.name}", path.read_bytes()) for path in transport]
    entries.append(Entry("init", 0o100755, init.encode()))
    return pack(entries)
