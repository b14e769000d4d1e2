"""File systems made by mke2fs, and what debugfs says is in them.

Knows: how the two programs are asked. Refuses to know: what we say; a test compares.
"""

import os
import random
import re
import resource
import socket
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.tools import run, tool

FIXED = {
    "E2FSPROGS_FAKE_TIME": "1700000000",
    "MKE2FS_CONFIG": str(Path(__file__).with_name("mke2fs.conf")),
    "MKE2FS_SKIP_PROGRESS": "1",
    "MKE2FS_SKIP_CHECK_MSG": "1",
}
"""An environment in which the same arguments make the same file system, whatever the machine's configuration."""
UUID = "0c5e5b0e-7b0c-4a8e-9d6e-2f6f5b0a1c3d"
TIME = 1_600_000_000


def make_source(path: Path, *, seed: int = 1, small: bool = False) -> Path:
    """Fill the directory `path` with every kind of file that its user may make; root also makes devices."""
    path.mkdir()
    rng = random.Random(seed)
    sizes = [0, 1, 59, 60, 61, 100, 160, 200, 1023, 1024, 1025, 4096, 4097, 13000]
    sizes += [] if small else [65536, 70001, 300_000, 1_100_000]
    for size in sizes:
        (path / f"file{size}").write_bytes(rng.randbytes(size))
    with (path / "sparse").open("wb") as file:
        for offset in (0, 100_000, 900_000) if not small else (0, 40_000):
            file.seek(offset)
            file.write(rng.randbytes(3000))
        file.truncate(1_000_000 if not small else 100_000)
    with (path / "pieces").open("wb") as file:  # extents past one leaf, or two levels of indirect blocks
        for index in range(100):
            file.seek(8192 * index)
            file.write(rng.randbytes(4096))
    os.link(path / "file4097", path / "hard")
    for length in (1, 12, 59, 60, 61, 159, 160, 500, 900):
        (path / f"link{length}").symlink_to("t" * length)
    deep = path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "file").write_text("deep")
    os.link(path / "file100", deep / "hard2")
    (path / "empty").mkdir()
    for count, name in ((3, "few"), (30, "some"), (40 if small else 420, "many")):
        folder = path / name
        folder.mkdir()
        for index in range(count):
            (folder / f"{name}-{index}-{'x' * rng.randrange(40)}").write_bytes(b"%d" % index)
    (path / "names").mkdir()
    for name in ("n" * 255, "sp ace", "größe", "UPPER", "lower", ".dot"):
        (path / "names" / name).write_text(name)
    os.mkfifo(path / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(path)  # a socket's path is at most 108 bytes
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
    for size in (1, 20, 60, 100, 200):
        os.setxattr(path / "file160", f"user.a{size}", rng.randbytes(size))
    os.setxattr(path / "file59", "user.block", rng.randbytes(800))
    os.setxattr(path / "file1024", "user.alone", rng.randbytes(400))
    os.setxattr(path / "file61", "user.tiny", b"v")
    os.setxattr(path / "a", "user.dir", b"on a directory")
    if os.geteuid() == 0:
        _make_as_root(path, rng)
    for place, folders, files in os.walk(path, topdown=False):
        for name in (*folders, *files):
            times = (TIME + rng.randrange(10**8), TIME + rng.randrange(10**8))
            os.utime(Path(place, name), times, follow_symlinks=False)
    os.utime(path, (TIME, TIME))
    return path


def _make_as_root(path: Path, rng: random.Random) -> None:
    os.mknod(path / "char", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(path / "block", stat.S_IFBLK | 0o660, os.makedev(259, 70_000))
    os.chown(path / "file13000", 70_000, 80_000)
    os.chmod(path / "file1", 0o6755)
    acl = bytes.fromhex("0200000001000600ffffffff02000700e803000004000400ffffffff10000700ffffffff20000400ffffffff")
    os.setxattr(path / "file4096", "system.posix_acl_access", acl)
    os.setxattr(path / "a", "system.posix_acl_default", acl)
    os.setxattr(path / "file1025", "trusted.t", rng.randbytes(30))
    os.setxattr(path / "file1025", "security.selinux", b"system_u:object_r:bin_t:s0\0")


QUESTION = re.compile(r"(?<!Optimize)\? no$|IGNORED|trying backup|Found invalid V2", re.MULTILINE | re.IGNORECASE)
"""What e2fsck prints of damage. Its exit status alone leaves out all that it finds before its first pass, because
it marks the file system valid after that; a tree of extents that could be shorter is no damage.
"""
FUTURE = re.compile(r"^Superblock last (?:mount|write) time [^?]*is in the future\.\nFix\? no$", re.MULTILINE)
"""What e2fsck asks about times that a clock has not come to yet. Nothing is damaged by them, and it exits with 0."""
PATIENCE_S = 20
"""Seconds of a processor after which e2fsck has met what it cannot get over: an inode table in block 0, for one."""
SLEEP_S = 100
"""The same, where it waits: for another host that a block of multiple mount protection tells of."""


def e2fsck_complains(image: Path) -> bool:
    """Whether `e2fsck -fn` finds damage, or does not get through."""
    command = [tool("e2fsck"), "-fn", str(image)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SLEEP_S,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (PATIENCE_S, PATIENCE_S)),
        )
    except subprocess.TimeoutExpired:
        return True
    text = (done.stdout + done.stderr).decode("utf-8", "replace")
    return done.returncode != 0 or QUESTION.search(FUTURE.sub("", text)) is not None


def mke2fs(image: Path, size: str, *arguments: str, source: Path | None = None) -> Path:
    """Make a file system in the new file `image`, with fixed UUIDs and times."""
    command = [tool("mke2fs"), "-q", "-F", "-U", UUID, "-E", f"hash_seed={UUID}", *arguments]
    if "-E" in arguments:  # a later -E takes the place of the one before
        at = command.index("-E", command.index("-E") + 1)
        command[at + 1] += f",hash_seed={UUID}"
    if source is not None:
        command += ["-d", str(source)]
    run([*command, str(image), size], env=FIXED)
    return image


def debugfs(image: Path, *commands: str, write: bool = False) -> str:
    """What debugfs prints for the commands, one behind the other."""
    argv = [tool("debugfs"), *(["-w"] if write else []), "-f", "/dev/stdin", str(image)]
    return run(argv, input="\n".join(commands) + "\n", env=FIXED).stdout


@dataclass(frozen=True)
class Shown:
    """What debugfs says of an inode."""

    mode: int
    links: int
    uid: int
    gid: int
    size: int
    mtime_ns: int | None
    flags: int
    device: tuple[int, int] | None


_STAT = re.compile(
    r"Inode: (\d+)\s+Type: ([\w ]+?)\s+Mode:\s+(\d+)\s+Flags: (0x[0-9a-f]+).*?User:\s+(\d+)\s+Group:\s+(\d+).*?"
    r"Size: (\d+).*?Links: (\d+)",
    re.DOTALL,
)
_TYPES = {
    "regular": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "character special": stat.S_IFCHR,
    "block special": stat.S_IFBLK,
    "FIFO": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
}


def parse_stat(text: str) -> dict[int, Shown]:
    """The inodes of the output of several `stat` commands."""
    found = {}
    for part in text.split("debugfs: stat ")[1:]:
        match = _STAT.search(part)
        assert match is not None, part
        time = re.search(r"^\s*mtime: (0x[0-9a-f]+)(?::([0-9a-f]+))?", part, re.MULTILINE)
        assert time is not None, part
        extra = int(time[2] or "0", 16)
        seconds = int(time[1], 16)
        seconds -= (seconds >> 31) << 32
        major = re.search(r"Device major/minor number: (\d+):(\d+)", part)
        found[int(match[1])] = Shown(
            mode=_TYPES[match[2]] | int(match[3], 8),
            links=int(match[8]),
            uid=int(match[5]),
            gid=int(match[6]),
            size=int(match[7]),
            mtime_ns=(seconds + ((extra & 3) << 32)) * 10**9 + (extra >> 2),
            flags=int(match[4], 16),
            device=(int(major[1]), int(major[2])) if major else None,
        )
    return found


def list_directory(text: str) -> dict[str, tuple[int, int]]:
    """The entries (name to inode and mode) of the output of one `ls -p` command, without `.` and `..`."""
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(r"/(\d+)/(\d*)/(\d*)/(\d*)/(.*)/(\d*)/", line)
        if match and match[1] != "0" and match[5] not in (".", ".."):
            found[match[5]] = (int(match[1]), int(match[2], 8))
    return found
