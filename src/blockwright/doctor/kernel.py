"""What the Linux kernel has for us: drivers by their modules and device nodes, file systems to mount.

Knows: where a kernel tells of itself without being asked to load anything. Refuses to know: how drivers are used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from blockwright.doctor.host import Host
from blockwright.doctor.line import Line, State

_TOPIC: Final = "kernel"


@dataclass(frozen=True, slots=True)
class _Driver:
    """``listed`` is its name in /proc/misc or /proc/devices, ``node`` what it is opened by.

    ``autoload`` says that the kernel brings the module itself, when the node is opened or a table names a target.
    """

    name: str
    module: str
    gives: str
    listed: str = ""
    node: str = ""
    autoload: bool = True


_DRIVERS: Final = (
    _Driver("loop", "loop", "images as /dev/loopN: loop attach, map add", "loop", "/dev/loop-control"),
    _Driver(
        "device-mapper",
        "dm_mod",
        "dm create, and what stands on it: verity open, thin pools, one way of map add",
        "device-mapper",
        "/dev/mapper/control",
    ),
    _Driver("dm-verity", "dm_verity", "verity open"),
    _Driver("dm-thin-pool", "dm_thin_pool", "pool create --driver thin"),
    _Driver("dm-snapshot", "dm_snapshot", "the targets snapshot and snapshot-origin in dm create"),
    _Driver("dm-crypt", "dm_crypt", "the target crypt in dm create"),
    _Driver("nbd", "nbd", "exports of NBD servers as /dev/nbdN: nbd attach", "nbd", autoload=False),
    _Driver("ext4", "ext4", "volume mount of ext2, ext3 and ext4"),
    _Driver("vfat", "vfat", "volume mount of FAT"),
)


class _Modules:
    """What a kernel has compiled in, has loaded, and could load. ``told``: the host has lists of all of them."""

    def __init__(self, host: Host) -> None:
        folder = next(
            (
                each
                for each in (f"/lib/modules/{host.release}", f"/usr/lib/modules/{host.release}")
                if host.exists(each)
            ),
            "",
        )
        built_in = host.text(f"{folder}/modules.builtin") if folder else ""
        loadable = host.text(f"{folder}/modules.dep") if folder else ""
        self.told = bool(loadable)
        self.here = {line.split(" ", 1)[0] for line in host.text("/proc/modules").splitlines()}
        self.here |= set(host.names("/sys/module"))  # of those compiled in, the ones with parameters
        self.here |= {_module(line) for line in built_in.splitlines()}
        self.loadable = {_module(line.partition(":")[0]) for line in loadable.splitlines()}


def _module(path: str) -> str:
    return os.path.basename(path).partition(".ko")[0].replace("-", "_")


def lines(host: Host) -> Iterator[Line]:
    """Yield a line for each driver."""
    if not host.is_linux:
        for driver in _DRIVERS:
            yield Line(_TOPIC, driver.name, State.ABSENT, f"needs Linux, this is {host.system}", driver.gives)
        return
    modules, listed = _Modules(host), _listed(host)
    if "device-mapper" in listed:
        modules.here.add("dm_mod")
    for driver in _DRIVERS:
        yield _line(host, driver, modules, listed)
    yield _kvm(host)
    yield _vsock(host)


def _listed(host: Host) -> set[str]:
    """Return the names of misc and block devices, and of file systems, that the kernel tells."""
    found = set()
    for name in ("/proc/misc", "/proc/devices", "/proc/filesystems"):
        for line in host.text(name).splitlines():
            found.add((line.split() or [""])[-1])
    return found


def _line(host: Host, driver: _Driver, modules: _Modules, listed: set[str]) -> Line:
    def line(state: State, found: str, remedy: str = "") -> Line:
        return Line(_TOPIC, driver.name, state, found, driver.gives, remedy)

    if driver.module in modules.here or (driver.listed or driver.module) in listed:
        if driver.node and not host.exists(driver.node):
            return line(State.READY, f"in the kernel; {driver.node} is missing, and is made by root when needed")
        return line(State.READY, "in the kernel")
    if driver.module in modules.loadable:
        if driver.autoload:
            return line(State.READY, "a module, loaded when needed")
        return line(State.MISSING, "a module, not loaded", f"modprobe {driver.module}")
    if driver.name.startswith("dm-") and "dm_mod" not in modules.here | modules.loadable:
        return line(State.MISSING, "stands on device-mapper, which is missing", _other_kernel(host))
    if modules.told or driver.listed:  # a driver that lists itself would be seen
        return line(State.MISSING, f"not in kernel {host.release}", _other_kernel(host))
    return line(State.UNKNOWN, f"no list of modules at /lib/modules/{host.release}")


def _other_kernel(host: Host) -> str:
    """Return what brings a kernel with more drivers."""
    if host.os_release.get("ID") == "ubuntu":
        return f"apt install linux-modules-extra-{host.release}"
    packages = {
        "apt": "linux-image-generic" if _has_ubuntu(host) else f"linux-image-{_debian_machine(host)}",
        "dnf": "kernel-modules kernel-modules-extra",
        "pacman": "linux",
        "apk": "linux-lts",
    }
    return host.install(packages, "a kernel that has it") + ", and start that kernel"


def _has_ubuntu(host: Host) -> bool:
    return "ubuntu" in host.os_release.get("ID_LIKE", "").split()


def _debian_machine(host: Host) -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(host.machine, host.machine)


def _kvm(host: Host) -> Line:
    gives = "nothing of ours; QEMU starts what was built faster with it"
    if host.exists("/dev/kvm"):
        return Line(_TOPIC, "kvm", State.READY, "/dev/kvm", gives)
    return Line(_TOPIC, "kvm", State.ABSENT, "no /dev/kvm, and none is needed", gives)


def _vsock(host: Host) -> Line:
    gives = "serve --vsock, and nbd+vsock:// addresses: between a host and its guests"
    if host.exists("/dev/vsock"):
        return Line(_TOPIC, "vsock", State.READY, "/dev/vsock", gives)
    return Line(_TOPIC, "vsock", State.MISSING, "no /dev/vsock", gives, "modprobe vhost_vsock")
