"""Contents changed on their way to a disk, from sources of every kind, through the command."""

import gzip
import hashlib
import stat

import pytest

from blockwright.boot.kinds import parse_ways
from blockwright.build.content import fstab_text
from blockwright.build.definition import BootOptions, Definition
from blockwright.errors import UsageError
from blockwright.extract import extract
from blockwright.manifest import manifest
from blockwright.resolve import open_device, open_file_system
from blockwright.source import open_source
from blockwright.table.read import read
from blockwright.tree.changes import Changes
from blockwright.tree.compare import compare_trees
from blockwright.tree.content import BytesContent
from blockwright.tree.extract import KEEP, ExtractOptions
from blockwright.tree.host import read_directory
from blockwright.tree.mtree.parse import parse
from blockwright.tree.node import Directory, File, Special, Symlink, walk
from tests.support import command, inprocess
from tests.support.oci import Image
from tests.support.tarmaker import archive, header, member, tar_of
from tests.support.trees import CAPABILITY, acl, content_bytes

pytestmark = pytest.mark.unprivileged


def blockwright(*arguments, **options):
    """Run the command; a stream needs a process, which has a standard input."""
    runner = inprocess if options.get("input") is None else command
    return runner.blockwright(*arguments, **options)


TIME = 1_700_000_000 * 10**9


def tree() -> Directory:
    def file(text: bytes, **metadata):
        return File(mtime_ns=TIME, content=BytesContent(text), **metadata)

    linked = file(b"linked")
    etc = {
        b"passwd": file(b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv/web:/bin/sh\n"),
        b"group": file(b"root:x:0:\nwww:x:34:\n"),
        b"shadow": file(b"root:*:1::::::\n"),
    }
    some = {
        b"secret": file(b"SECRET-THAT-NOBODY-READS " * 400),
        b"kept": file(b"kept", xattrs={b"user.a": b"1", b"security.capability": CAPABILITY}),
        b"shared": file(b"s", xattrs={b"system.posix_acl_access": acl((1234, 6))}),
        b"a": linked,
        b"b": linked,
        b"l": Symlink(b"kept", mtime_ns=TIME),
    }
    folders = {name: Directory(mtime_ns=TIME, entries=entries) for name, entries in ((b"etc", etc), (b"some", some))}
    return Directory(mtime_ns=TIME, entries=dict(folders))


@pytest.fixture(params=["tar", "gzip", "stream", "layout", "layout of tars", "image"])
def source(request, tmp_path):
    """The tree as each kind of source that needs no superuser: what to name, and standard input."""
    data = tar_of(tree())
    path = tmp_path / "source"
    if request.param == "tar":
        path.write_bytes(data)
    elif request.param == "gzip":
        path.write_bytes(gzip.compress(data))
    elif request.param == "stream":
        return "-", gzip.compress(data)
    elif request.param == "image":
        (tmp_path / "whole.tar").write_bytes(data)
        blockwright("build", tmp_path / "whole.tar", "-o", path, "--table", "none")
    else:
        plain = {"compress": bytes, "kind": "application/vnd.oci.image.layer.v1.tar"}
        Image([data], **(plain if request.param == "layout of tars" else {})).seal().directory(path)
    return str(path), None


def files_of(path, number):
    device = open_device(f"{path}:{number}" if number else str(path))
    with open_file_system(device, source=str(path)) as system:
        found = system.tree()
        for _, node in walk(found):
            if isinstance(node, File):
                node.content = BytesContent(content_bytes(node.content))
        found.entries.pop(b"lost+found", None)
        return found


def identity_of(path, number):
    with open_device(str(path)) as device:
        return read(device).partitions[number - 1].identity


@pytest.fixture
def options(tmp_path):
    (tmp_path / "table").write_text("/dev/null c 666 0 0 1 3\n/some/kept f 4755 web www\n")
    (tmp_path / "manifest").write_text("some/a type=file mode=0604 uid=5\netc/hostname type=file gid=9\n")
    (tmp_path / "contexts").write_text("/.* u:r:any:s0\n/etc(/.*)? u:r:etc:s0\n/some/l -l u:r:link:s0\n")
    (tmp_path / "user-data").write_text("#cloud-config\n")
    texts = ["--owner", "root:root", "--exclude", "secret", "--add-text", "/etc/issue=Hello", "--hostname", "box"]
    texts += ["--fstab", "--cloud-init", str(tmp_path / "user-data"), "--root-password-hash", "!"]
    for name in ("device-table", "manifest", "selinux-contexts"):
        texts += [f"--{name}", str(tmp_path / name.removeprefix("device-").removeprefix("selinux-"))]
    return texts


def test_every_source_becomes_the_same_tree(source, options, tmp_path):
    name, stdin = source
    output = tmp_path / "disk.img"
    blockwright("build", name, "-o", output, *options, input=stdin)
    (found,) = [files_of(output, 1)]
    expected_names = {
        *(b"etc/" + each for each in (b"passwd", b"group", b"shadow", b"issue", b"hostname", b"fstab")),
        *(b"some/" + each for each in (b"kept", b"shared", b"a", b"b", b"l")),
        *(b"var/lib/cloud/seed/nocloud/" + each for each in (b"user-data", b"meta-data")),
        b"dev/null",
    }
    nodes = {path: node for path, node in walk(found) if not isinstance(node, Directory)}
    assert set(nodes) == expected_names
    assert nodes[b"some/a"] is nodes[b"some/b"]
    assert (nodes[b"some/a"].permissions, nodes[b"some/a"].uid) == (0o604, 5)
    kept = nodes[b"some/kept"]
    assert (kept.permissions, kept.uid, kept.gid) == (0o4755, 33, 34)
    assert kept.xattrs == {b"user.a": b"1", b"security.capability": CAPABILITY, b"security.selinux": b"u:r:any:s0\0"}
    assert nodes[b"some/shared"].xattrs[b"system.posix_acl_access"] == acl((1234, 6))
    assert nodes[b"some/l"].xattrs == {b"security.selinux": b"u:r:link:s0\0"}
    assert nodes[b"etc/fstab"].xattrs == {b"security.selinux": b"u:r:etc:s0\0"}
    assert nodes[b"etc/hostname"].gid == 9
    assert content_bytes(nodes[b"etc/shadow"].content) == b"root:!:1::::::\n"
    assert isinstance(nodes[b"dev/null"], Special)
    assert nodes[b"dev/null"].kind == stat.S_IFCHR
    assert content_bytes(nodes[b"some/a"].content) == b"linked"
    assert f"PARTUUID={identity_of(output, 1)} / ext4".encode() in content_bytes(nodes[b"etc/fstab"].content)
    with open(output, "rb") as file:
        assert b"SECRET" not in file.read()


@pytest.mark.parametrize("table", ["gpt", "mbr"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_partition_for_cloud_init(tmp_path, table, streamed):
    (tmp_path / "user-data").write_text("#cloud-config\nhostname: x\n")
    data = tar_of(tree())
    (tmp_path / "s.tar").write_bytes(data)
    output = tmp_path / "disk.img"
    blockwright(
        *("build", "-" if streamed else tmp_path / "s.tar", "-o", output, "--table", table, "--fstab"),
        *("--cloud-init", tmp_path / "user-data", "--cloud-init-as", "partition"),
        input=gzip.compress(data) if streamed else None,
    )
    volume = files_of(output, 1)
    assert content_bytes(volume.entries[b"user-data"].content) == b"#cloud-config\nhostname: x\n"
    assert content_bytes(volume.entries[b"meta-data"].content).startswith(b"instance-id: ")
    root = files_of(output, 2)
    assert b"var" not in root.entries
    assert f"PARTUUID={identity_of(output, 2)} / ".encode() in content_bytes(
        root.entries[b"etc"].entries[b"fstab"].content
    )
    with open_file_system(open_device(f"{output}:1"), source="volume") as system:
        assert system.label == "CIDATA"
    blockwright("check", output)


def test_a_bare_file_system_is_known_by_its_own_identity(tmp_path):
    (tmp_path / "s.tar").write_bytes(tar_of(tree()))
    output = tmp_path / "root.ext4"
    blockwright("build", tmp_path / "s.tar", "-o", output, "--table", "none", "--fstab")
    text = content_bytes(files_of(output, 0).entries[b"etc"].entries[b"fstab"].content)
    with open(output, "rb") as file:
        file.seek(1024 + 0x68)
        uuid = file.read(16).hex()
    assert text.splitlines()[1].split()[0].replace(b"-", b"") == b"UUID=" + uuid.encode()
    (tmp_path / "user-data").write_text("#!/bin/sh\n")
    arguments = ["--cloud-init", tmp_path / "user-data", "--cloud-init-as", "partition"]
    blockwright("build", tmp_path / "s.tar", "-o", tmp_path / "x", "--table", "none", *arguments, code=2)
    assert not (tmp_path / "x").exists()


def test_fstab_of_a_root_that_is_proven():
    definition = Definition(verity=True, boot=BootOptions(ways=parse_ways("systemd-boot")))
    lines = fstab_text(definition, {"root": "PARTUUID=r", "esp": "PARTUUID=e"}).decode().splitlines()[1:]
    assert lines == ["/dev/mapper/root / ext4 ro 0 0", "PARTUUID=e /boot/efi vfat umask=0077,nofail 0 2"]


def test_the_same_input_gives_the_same_bytes(tmp_path, options):
    (tmp_path / "s.tar").write_bytes(tar_of(tree()))
    for name in ("a", "b"):
        blockwright("build", tmp_path / "s.tar", "-o", tmp_path / name, *options)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_dry_run_of_a_stream_says_what_it_cannot_read(tmp_path):
    data = tar_of(tree())
    done = blockwright("build", "-", "--dry-run", "--owner", "web:www", input=gzip.compress(data), code=2)
    assert b"--dry-run" in done.stderr
    blockwright("build", "-", "--dry-run", "--owner", "1:2", "--exclude", "etc", input=gzip.compress(data))


def test_fstab_cannot_be_verified_before_it_is_known(tmp_path):
    (tmp_path / "s.tar").write_bytes(tar_of(tree()))
    (tmp_path / "m").write_text("etc/fstab md5=00000000000000000000000000000000\n")
    done = blockwright(
        "build", tmp_path / "s.tar", "-o", tmp_path / "x", "--fstab", "--manifest", tmp_path / "m", code=2
    )
    assert b"m: line 1: build: /etc/fstab is written last" in done.stderr


def test_digests_of_a_stream_are_verified(tmp_path):
    data = gzip.compress(tar_of(tree()))
    for body, code in ((b"linked", 0), (b"other", 1)):
        (tmp_path / "m").write_text(f"some/a sha256={hashlib.sha256(body).hexdigest()}\n")
        blockwright("build", "-", "-o", tmp_path / f"{code}.img", "--manifest", tmp_path / "m", input=data, code=code)
    assert not (tmp_path / "1.img").exists()


def test_extract_changes_what_it_makes(source, tmp_path):
    name, stdin = source
    target = tmp_path / "target"
    arguments = ["--exclude", "secret", "--add-text", "/etc/issue=Hello", "--hostname", "box", "--only", "etc"]
    blockwright("extract", name, target, *arguments, input=stdin)
    names = sorted(path.name for path in (target / "etc").iterdir())
    assert names == ["group", "hostname", "issue", "passwd", "shadow"]
    assert [path.name for path in target.iterdir()] == ["etc"]
    for wrong in (["--authorized-keys", "none"], ["--exclude", "["], ["--hostname", "-"]):
        blockwright("extract", name, tmp_path / "x", *wrong, input=stdin, code=5 if wrong[1] == "none" else 2)
        assert not (tmp_path / "x").exists()


def test_extract_of_a_stream_says_what_it_cannot_read(tmp_path):
    data = gzip.compress(tar_of(tree()))
    done = blockwright("extract", "-", tmp_path / "x", "--root-password-hash", "!", input=data, code=2)
    assert b"passes once" in done.stderr
    assert not (tmp_path / "x").exists()


def test_a_manifest_of_every_source_is_the_same(source, tmp_path):
    name, stdin = source
    text = blockwright("manifest", name, "--digest", "sha1", input=stdin).stdout
    (tmp_path / "s.tar").write_bytes(tar_of(tree()))
    expected = blockwright("manifest", tmp_path / "s.tar", "--digest", "sha1").stdout
    lost = [line for line in text.splitlines() if not line.startswith(b"./lost+found ")]
    assert lost == expected.splitlines()
    assert len(parse(expected, "m")) == 12
    done = blockwright("manifest", name, "-o", tmp_path / "m", "--umask", "777", "--only", "some/a", input=stdin)
    assert done.stdout == os_line(tmp_path / "m")
    assert b"./some/a type=file mode=0000" in (tmp_path / "m").read_bytes()
    blockwright("manifest", name, "-o", tmp_path / "m", input=stdin, code=2)


def os_line(path) -> bytes:
    return f"{path}\n".encode()


def test_manifests_refuse_what_they_cannot(tmp_path):
    data = gzip.compress(tar_of(tree()))
    done = blockwright("manifest", "-", "--owner", "web", input=data, code=2)
    assert b"passes once" in done.stderr
    blockwright("manifest", tmp_path / "none", code=5)


def test_python_without_the_command(tmp_path):
    (tmp_path / "s.tar").write_bytes(archive(header(b"d/", kind=b"5"), member(b"d/f", b"x")))
    with open_source(tmp_path / "s.tar") as source:
        for changes in (Changes(fstab=True), Changes(cloud_init=("x",), cloud_init_as="partition")):
            with pytest.raises(UsageError, match="of disks"):
                extract(source, str(tmp_path / "out"), ExtractOptions(owner=KEEP), changes=changes)
            with pytest.raises(UsageError, match="of disks"):
                list(manifest(source, changes=changes))
        extract(source, str(tmp_path / "out"), ExtractOptions(), changes=Changes(exclude=("f",)))
    assert not compare_trees(
        read_directory(tmp_path / "out"),
        Directory(entries={b"d": Directory()}),
        ignore={"permissions", "uid", "gid", "mtime_ns", "xattrs"},
    )
