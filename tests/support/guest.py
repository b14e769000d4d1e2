"""Starts a Linux kernel of its own, User-Mode Linux, over the host's files, and runs one shell script in it.

The kernel is an ordinary process: no root, no hardware help, two seconds to start. Its root is the host's file
system, read-only; one directory of the caller is writable. It knows nothing of pytest.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.tools import package_file, run, tool

FILE_SYSTEMS = ("vfat", "nls_cp437", "nls_ascii", "nls_iso8859_1", "nls_utf8")
_BLOCK_DEVICES = ("loop", "nbd")
_SOCKETS = ("vsock_loopback",)
# cbc comes first: encrypted_keys, which dm-crypt needs, starts only where it is there.
_MAPPED = (
    "cbc",
    "xts",
    "ecb",
    "dm-thin-pool",
    "dm-snapshot",
    "sha512_generic",  # of dm-verity
    "dm-verity",
    "dm-zero",
    "dm-crypt",
    "dm-flakey",
    "dm-dust",
)
MODULES = (*FILE_SYSTEMS, *_BLOCK_DEVICES, *_SOCKETS, *_MAPPED)
"""What is loaded before the script runs, by name, without what it depends on; built-in ones are passed over."""

PANIC = b"Kernel panic - not syncing"

_INIT = """\
#!/bin/sh
bb={busybox}
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t tmpfs tmpfs /run
$bb mkdir -p /dev/shm /run/home /run/tmp
$bb mount -t tmpfs tmpfs /dev/shm
$bb mount -t hostfs none {mnt} -o {share} || $bb poweroff -f
for module in {modules}; do $bb insmod $module || echo "insmod $module failed"; done
export {environment}
{busybox} sh {script} </dev/null
echo $? > {mnt}/{status}
$bb sync
$bb poweroff -f
"""

_STATUS = ".script-status"
_REGISTERS = "uml_registers.c"


class GuestError(AssertionError):
    """The guest did not run its script to the end; the message holds the tail of its console."""


def run_guest(
    script: str,
    share: Path,
    *,
    environment: Mapping[str, str] | None = None,
    disks: Sequence[Path] = (),
    memory: int = 512,
    timeout: float = 300,
    modules: Iterable[str] = MODULES,
) -> tuple[int, str]:
    """What `script` returned in the guest, and the console's text.

    The guest sees the host's files read-only under their own names, and may write what lies under `share`, as far
    as whoever runs us may. /run is its own memory; TMPDIR and HOME lie there. `disks` become /dev/ubda, /dev/ubdb and
    so on, writable. `memory` is in MiB, `timeout` in seconds. Raises GuestError when the kernel panics, dies, or has
    not powered off in time; ends the processes it started.
    """
    kernel = tool("linux.uml")
    status = share / _STATUS
    status.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="guest-") as name:
        scratch = Path(name)
        init = _write_init(scratch, script, share, environment or {}, module_files(modules))
        command = [
            kernel,
            *(f"mem={memory}M", "con=null", "con0=null,fd:1", "ssl=null", "quiet"),
            *("umid=guest", f"uml_dir={scratch}/", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}"),
            *(f"ubd{number}={os.path.abspath(disk)}" for number, disk in enumerate(disks)),
        ]
        ended, console = _run(command, scratch, timeout)
    text = console.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    if PANIC in console:
        raise GuestError(f"the guest's kernel panicked\n{_tail(text)}")
    if ended is None:
        raise GuestError(f"the guest had not ended after {timeout:g} s and was stopped\n{_tail(text)}")
    if ended != 0 or not status.exists():
        raise GuestError(f"the guest ended with {ended} before its script did\n{_tail(text)}")
    return int(status.read_text()), text


def _tail(console: str) -> str:
    return f"--- console\n{console[-6000:].strip() or '(empty)'}"


def _write_init(scratch: Path, script: str, share: Path, environment: Mapping[str, str], modules: list[Path]) -> Path:
    """The guest's first process: mounts, modules, then the script."""
    (scratch / "script").write_text(script)
    variables = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/run/home", "TMPDIR": "/run/tmp", **environment}
    quoted = shlex.quote(os.path.abspath(share))
    init = scratch / "init"
    init.write_text(
        _INIT.format(
            busybox=tool("busybox"),
            mnt=quoted,
            share=quoted,
            modules=" ".join(shlex.quote(str(module)) for module in modules),
            environment=" ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items()),
            script=shlex.quote(str(scratch / "script")),
            status=_STATUS,
        )
    )
    init.chmod(0o755)
    return init


def _run(command: list[str], scratch: Path, timeout: float) -> tuple[int | None, bytes]:
    """How the kernel ended (None: it was stopped) and its console."""
    console = scratch / "console"
    with console.open("wb") as out:
        guest = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=_kernel_environment(scratch),
        )
        try:
            ended: int | None = guest.wait(timeout)
        except subprocess.TimeoutExpired:
            ended = None
        finally:
            # Every process of the guest is one of the host in the kernel's session; a dead kernel leaves them behind.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(guest.pid, signal.SIGKILL)
            guest.wait()
    return ended, console.read_bytes()


def _kernel_environment(scratch: Path) -> dict[str, str]:
    """Ours, so that the kernel keeps the guest's memory in /dev/shm, or in `scratch` where that does not serve."""
    environment = {name: value for name, value in os.environ.items() if name not in {"TMPDIR", "TMP", "TEMP"}}
    if " amx_tile" in Path("/proc/cpuinfo").read_text():
        environment["LD_PRELOAD"] = _larger_registers(scratch)
    shm = "/dev/shm"
    if not os.access(shm, os.W_OK) or os.statvfs(shm).f_flag & os.ST_NOEXEC:
        environment["TMPDIR"] = str(scratch)
    return environment


def _larger_registers(scratch: Path) -> str:
    """Without it the kernel panics in its first process, on processors that have more registers than it knows."""
    library = scratch / "registers.so"
    run([tool("cc"), "-O1", "-shared", "-fPIC", "-o", library, Path(__file__).with_name(_REGISTERS)])
    return str(library)


def module_files(names: Iterable[str]) -> list[Path]:
    """The kernel's module files for `names`, each after those it depends on; names it does not have are left out."""
    listing = package_file("/usr/lib/uml/modules/*", package="user-mode-linux") / "modules.dep"
    depends: dict[str, list[str]] = {}
    by_name: dict[str, str] = {}
    for line in listing.read_text().splitlines():
        file, _, needed = line.partition(":")
        depends[file] = needed.split()
        by_name[os.path.basename(file).removesuffix(".ko").replace("-", "_")] = file
    ordered: dict[str, None] = {}
    for name in names:
        file = by_name.get(name.replace("-", "_"), "")
        for each in _closure(file, depends):
            ordered.setdefault(each)
    return [listing.parent / file for file in ordered]


def _closure(file: str, depends: Mapping[str, list[str]]) -> Iterator[str]:
    """`file` after everything it depends on; modules.dep lists that nearest first."""
    if file:
        yield from reversed(depends[file])
        yield file
