import base64

import pytest

from blockwright.errors import NotFound, UsageError
from blockwright.tree.changes import Changes
from blockwright.tree.changes.cloudinit import check, read_seed
from blockwright.tree.changes.helpers import (
    check_hostname,
    check_keys,
    check_machine_id,
    check_password_hash,
    check_timezone,
)
from blockwright.tree.changes.ready import ready
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File, Symlink
from tests.support.trees import content_bytes


def key(kind=b"ssh-ed25519", body=b"x" * 36):
    return kind + b" " + base64.b64encode(len(kind).to_bytes(4, "big") + kind + body)


def tree(**files):
    texts = {
        "passwd": "root:x:0:0:root:/root:/bin/sh\nu:x:5:6::/home/u:/bin/sh\nh:x:7:7:::/bin/sh\n",
        "shadow": "daemon:*:1\nroot:*:19000:0:99999:7:::\n",
        **files,
    }
    etc = {name.encode(): File(0o640, 0, 42, content=BytesContent(text.encode())) for name, text in texts.items()}
    zone = Directory(entries={b"Europe": Directory(entries={b"Berlin": File()})})
    share = Directory(entries={b"zoneinfo": zone})
    dbus = Directory(entries={b"machine-id": File()})
    return Directory(
        mtime_ns=5,
        entries={
            b"etc": Directory(mtime_ns=50, entries=etc),
            b"usr": Directory(entries={b"share": share}),
            b"var": Directory(entries={b"lib": Directory(entries={b"dbus": dbus})}),
            b"root": Directory(0o750),
        },
    )


def changed(root=None, **asked):
    return ready(Changes(**asked)).apply(root or tree())


def at(root, path):
    for part in path.encode().split(b"/"):
        root = root.entries[part]
    return root


def text(root, path):
    return content_bytes(at(root, path).content)


def test_a_name_a_zone_and_an_identity():
    made = changed(hostname="box.example", timezone="Europe/Berlin", machine_id="uninitialized")
    assert text(made, "etc/hostname") == b"box.example\n"
    assert at(made, "etc/hostname").mtime_ns == 50
    assert at(made, "etc/localtime").target == b"../usr/share/zoneinfo/Europe/Berlin"
    assert text(made, "etc/machine-id") == b"uninitialized\n"
    assert b"machine-id" not in at(made, "var/lib/dbus").entries
    assert b"timezone" not in at(made, "etc").entries
    assert text(changed(tree(timezone="UTC"), timezone="Europe/Berlin"), "etc/timezone") == b"Europe/Berlin\n"
    assert text(changed(machine_id="empty"), "etc/machine-id") == b""
    with pytest.raises(NotFound, match="Moon"):
        changed(timezone="Moon")


def test_root_s_password():
    made = changed(root_password_hash="$6$salt$hash")
    assert text(made, "etc/shadow") == b"daemon:*:1\nroot:$6$salt$hash:19000:0:99999:7:::\n"
    assert (at(made, "etc/shadow").permissions, at(made, "etc/shadow").gid) == (0o640, 42)
    with pytest.raises(NotFound):
        changed(tree(shadow="x:*:1\n"), root_password_hash="!")


def test_keys_are_their_user_s(tmp_path):
    path = tmp_path / "k:eys"
    path.write_bytes(b"# mine\n\n" + key() + b" me@here\n")
    other = tmp_path / "other"
    other.write_bytes(b'command="a \\" b",no-pty ' + key(b"ecdsa-sha2-nistp256") + b"\n")
    made = changed(authorized_keys=(str(path), f"{path}:u", f"{other}:u", f"{other}:u"))
    root = at(made, "root/.ssh")
    assert (root.permissions, root.uid, at(made, "root").permissions) == (0o700, 0, 0o750)
    home, folder, file = (at(made, each) for each in ("home/u", "home/u/.ssh", "home/u/.ssh/authorized_keys"))
    assert [(each.permissions, each.uid, each.gid) for each in (home, folder, file)] == [
        (0o700, 5, 6),
        (0o700, 5, 6),
        (0o600, 5, 6),
    ]
    assert at(made, "home").uid == 0
    assert content_bytes(file.content) == key() + b" me@here\n" + other.read_bytes()
    again = changed(made, authorized_keys=(f"{path}:u",))
    assert text(again, "home/u/.ssh/authorized_keys") == content_bytes(file.content)
    linked = tree()
    linked.entries[b"root"].entries[b".ssh"] = Symlink(b"/etc")
    with pytest.raises(UsageError, match="ssh: expected a directory"):
        changed(linked, authorized_keys=(str(path),))
    for user, error in (("nobody", NotFound), ("h", UsageError)):
        with pytest.raises(error):
            changed(authorized_keys=(f"{path}:{user}",))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"# only\n",
        b"ssh-ed25519\n",
        b"ssh-ed25519 !!!!\n",
        b"ssh-ed25519 AAAA\n",
        b"hello world\n",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n",
        key(b"ssh-rsa").replace(b"ssh-rsa", b"ssh-dss"),
        b'command="open ' + key(),
    ],
)
def test_what_is_no_public_key_is_refused(data):
    with pytest.raises(UsageError):
        check_keys(data, "keys")


@pytest.mark.parametrize(
    ("function", "good", "bad"),
    [
        (check_hostname, ["a", "a-b.c", "x" * 63], ["", "-a", "a-", "a..b", "a_b", "x" * 65, "a b", "a\n", "ä"]),
        (check_timezone, ["UTC", "Etc/GMT+1"], ["", "../x", "/UTC", "a//b", "a\n"]),
        (check_machine_id, ["empty", "uninitialized", "0123456789abcdef" * 2], ["", "0" * 32, "A" * 32, "1" * 31]),
        (check_password_hash, ["!", "*", "$y$j9T$x/y$z.", "!$6$a$b"], ["", "secret", "$6$a:b$c", "$6$a$b\n"]),
    ],
)
def test_words_are_checked(function, good, bad):
    for each in good:
        function(each)
    for each in bad:
        with pytest.raises(UsageError):
            function(each)


def test_a_seed_from_a_directory_and_from_files(tmp_path):
    (tmp_path / "user-data").write_text("#cloud-config\n")
    (tmp_path / "meta-data").write_text("instance-id: x\n")
    (tmp_path / "network-config").write_text("version: 2\n")
    assert list(read_seed([str(tmp_path)])) == ["user-data", "meta-data", "network-config"]
    alone = tmp_path / "cloud.yaml"
    alone.write_text("#cloud-config\na: b\n")
    one, two = read_seed([str(alone)]), read_seed([str(tmp_path / "user-data")])
    assert one["user-data"] == b"#cloud-config\na: b\n"
    assert one["meta-data"].startswith(b"instance-id: nocloud-")
    assert one["meta-data"] != two["meta-data"]
    made = changed(cloud_init=(str(alone),))
    file = at(made, "var/lib/cloud/seed/nocloud/user-data")
    assert (file.permissions, content_bytes(file.content)) == (0o600, one["user-data"])
    for paths in ([str(tmp_path), str(tmp_path)], [str(alone), str(alone)]):
        with pytest.raises(UsageError):
            read_seed(paths)
    (tmp_path / "none").mkdir()
    with pytest.raises(NotFound):
        read_seed([str(tmp_path / "none")])


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("user-data", b"hello: world\n"),
        ("vendor-data", b"\x7fELF"),
        ("meta-data", b"hostname: x\n"),
        ("meta-data", b"instance-id: \xff\n"),
        ("meta-data", b"instance-id: x\n\tlocal-hostname: y\n"),
        ("meta-data", b"instance-id: x\0\n"),
        ("network-config", b"ethernets: {}\n"),
    ],
)
def test_files_of_a_seed_that_are_none_are_refused(name, data):
    with pytest.raises(UsageError, match=name):
        check(name, data, name)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("user-data", b""),
        ("user-data", b"#!/bin/sh\n"),
        ("user-data", b"\x1f\x8b\x08"),
        ("user-data", b"Content-Type: multipart/mixed; boundary=x\n"),
        ("user-data", b"## template: jinja\n#cloud-config\n"),
        ("meta-data", b'{"instance-id": "x"}'),
        ("network-config", b"network:\n  version: 1\n"),
    ],
)
def test_files_of_a_seed(name, data):
    check(name, data, name)


def test_what_is_asked_for_is_checked_before_any_tree(tmp_path):
    for asked in (
        {"unmapped": "keep"},
        {"umask": "9"},
        {"hostname": "-"},
        {"cloud_init_as": "partition"},
        {"cloud_init_as": "x"},
        {"exclude": ("[",)},
        {"map_ids": ("1",)},
    ):
        with pytest.raises(UsageError):
            ready(Changes(**asked))
    for name in ("exclude_from", "device_tables", "manifests", "authorized_keys", "cloud_init"):
        with pytest.raises(NotFound, match="none"):
            ready(Changes(**{name: (str(tmp_path / "none"),)}))
    with pytest.raises(NotFound, match="none"):
        ready(Changes(selinux_contexts=str(tmp_path / "none")))


def test_the_order(tmp_path):
    """Ids first, then names, then owners, then what is added; then tables, manifests, labels."""
    (tmp_path / "table").write_text("/added f 600 1 1\n/tabled f 600 2 2\n")
    (tmp_path / "manifest").write_text("tabled type=file uid=3\nadded gid=9\n")
    (tmp_path / "fc").write_text("/.* u:r:t:s0\n")
    (tmp_path / "skip").write_text("*.o\n")
    from blockwright.tree.changes import Addition

    root = Directory(
        uid=100000,
        gid=100000,
        entries={b"x.o": File(uid=5), b"tabled": File(0o777, 100001, 100001), b"kept": File(0o666, 100002, 100002)},
    )
    asked = Changes(
        map_ids=("0:100000:10",),
        unmapped="keep",
        exclude_from=(str(tmp_path / "skip"),),
        owner="7",
        umask="022",
        add=(Addition("/added", text="x", mode="666", owner="4:4"), Addition("/new.o", text="")),
        device_tables=(str(tmp_path / "table"),),
        manifests=(str(tmp_path / "manifest"),),
        selinux_contexts=str(tmp_path / "fc"),
    )
    made = ready(asked).apply(root)
    found = {name: (node.uid, node.gid, node.permissions) for name, node in made.entries.items()}
    assert found == {
        b"tabled": (3, 2, 0o600),
        b"kept": (7, 2, 0o644),
        b"added": (1, 9, 0o600),
        b"new.o": (0, 0, 0o644),
    }
    assert all(node.xattrs == {b"security.selinux": b"u:r:t:s0\0"} for node in [made, *made.entries.values()])
    assert root.entries[b"kept"].uid == 100002


def test_a_link_in_the_last_part_is_replaced():
    root = tree()
    root.entries[b"etc"].entries[b"hostname"] = Symlink(b"/outside")
    assert isinstance(at(changed(root, hostname="a"), "etc/hostname"), File)
