"""Labels by Debian's policy, against libselinux's own look-up."""

import bz2
import os
import re
import shutil
import stat
import struct
import subprocess

import pytest

from blockwright.tree.selinux.contexts import read_contexts
from tests.support.tools import package_file, tool

KINDS = {"file": stat.S_IFREG, "dir": stat.S_IFDIR, "lnk_file": stat.S_IFLNK, "chr_file": stat.S_IFCHR}
SIMPLER = (
    (r"\(([^()|]*)\|[^()]*\)\??", r"\1"),
    (r"\(/\.\*\)\?", "/x/y"),
    (r"\.\*", "ab"),
    (r"\[\^/\][+*]", "zz"),
    (r"\[0-9\][+*]?", "4"),
    (r"\\", ""),
    (r"[?()+]", ""),
)


def paths_of(text: str, every: int) -> list[str]:
    """Paths that expressions of a policy match, or nearly; and names that nobody foresaw."""
    found = []
    for line in text.splitlines()[::every]:
        path = line.split()[0] if line.split() else ""
        for regex, simple in SIMPLER:
            path = re.sub(regex, simple, path)
        if path.startswith("/") and not re.search(r"[\[\]{}|*^$#]|//|/$", path):
            found += [path, path + "x", path + "/sub.so.1", os.path.dirname(path) + "/.hidden"]
    return sorted({path for path in found if "//" not in path})


def theirs(file: str, kind: str, paths: list[str]) -> list[str]:
    found: list[str] = []
    for start in range(0, len(paths), 1000):
        argv = [
            tool("matchpathcon"),
            "-f",
            file,
            "-n",
            "-m",
            kind,
            *paths[start : start + 1000],
        ]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        found += done.stdout.splitlines()
    assert len(found) == len(paths)
    return found


def contexts_of(module: bytes) -> str:
    """The file contexts of a module package: sections, of which one is text behind its mark."""
    data = bz2.decompress(module)
    magic, _, count = struct.unpack_from("<III", data)
    assert magic == 0xF97CFF8F
    for start in struct.unpack_from(f"<{count}I", data, 12):
        if struct.unpack_from("<I", data, start)[0] == 0xF97CFF90:
            return data[start + 4 :].partition(b"\0")[0].decode("latin-1").partition("\xf9|\xff")[0]
    return ""


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """The rules of all modules of Debian's policy, but for those that are filled in for each user."""
    folder = package_file("usr/share/selinux/default/base.pp.bz2", package="selinux-policy-default").parent
    lines = []
    for module in sorted(folder.glob("*.pp.bz2")):
        text = contexts_of(module.read_bytes())
        lines += [line for line in text.splitlines() if line.startswith("/")]
    file = tmp_path_factory.mktemp("policy") / "file_contexts"
    file.write_text("".join(f"{line}\n" for line in lines))
    subs = "etc/selinux/default/contexts/files/file_contexts.subs_dist"
    shutil.copy(package_file(subs, package="selinux-policy-default"), file.parent)
    return str(file)


@pytest.mark.parametrize("kind", KINDS)
def test_a_real_policy(kind, policy):
    contexts = read_contexts(policy)
    with open(policy) as text:
        lines = text.read()
    assert lines.count("\n") > 4000
    paths = paths_of(lines, every=8)
    assert len(paths) > 1500
    ours = [(contexts.lookup(path.encode(), KINDS[kind]) or b"<<none>>").decode() for path in paths]
    assert ours == theirs(policy, kind, paths)
    assert len(set(ours)) > 100


def test_files_beside_it_and_their_order(tmp_path):
    lines = ["/.*\tu:r:all:s0", "/a/b\tu:r:plain:s0", "/a/.*\tu:r:below:s0", "/a/n.*\t<<none>>", "/x -- u:r:file:s0"]
    lines += ["/x u:r:any:s0", "/lib(/.*)? u:r:lib:s0", "/usr/lib(/.*)? u:r:usrlib:s0", "/d\\.e u:r:dot:s0"]
    lines += ["/usr/lib/systemd(/.*)? u:r:sd:s0", "/d.* u:r:d:s0", "/p/q/.* u:r:pq:s0", "/p/.* u:r:p:s0"]
    (tmp_path / "fc").write_text("".join(f"{line}\n" for line in lines))
    (tmp_path / "fc.local").write_text("/a/local u:r:local:s0\n/h/.* u:r:h2:s0\n")
    (tmp_path / "fc.homedirs").write_text("/h/.* u:r:h1:s0\n")
    (tmp_path / "fc.subs_dist").write_text("/lib /usr/lib\n/lib/systemd /usr/lib/systemd\n/one /two\n/root /\n")
    (tmp_path / "fc.subs").write_text("/two /lib\n/three /one\n/lib/sub /a\n")
    paths = ["/a", "/a/b", "/a/c", "/a/no", "/x", "/lib", "/lib/x", "/lib64", "/usr/lib/systemd/x", "/lib/systemd/x"]
    paths += ["/a/local", "/h/x", "/one/z", "/two/z", "/three/z", "/three", "/lib/sub/b", "/d.e", "/dxe", "/root/a/b"]
    paths += ["/m/n", "/m/n/c", "/m/q", "/v/w", "/v/w/c", "/v/q", "/root", "/p/q/z", "/p/z"]
    contexts = read_contexts(str(tmp_path / "fc"))
    for kind, mode in KINDS.items():
        ours = [(contexts.lookup(path.encode(), mode) or b"<<none>>").decode() for path in paths]
        assert ours == theirs(str(tmp_path / "fc"), kind, paths)
