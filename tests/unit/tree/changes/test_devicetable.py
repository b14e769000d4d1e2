import stat
import struct

import pytest

from blockwright.errors import Corrupt, FormatError, LimitExceeded, NotFound, UsageError
from blockwright.tree.changes import devicetable
from blockwright.tree.changes.devicetable import CAPABILITIES, apply_table, parse_capabilities, parse_table
from blockwright.tree.changes.text import Line
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File, Special, Symlink

LINE = Line("t", 1)


def tree():
    passwd = File(content=BytesContent(b"web:x:33:34::/:\n"))
    file = File(0o644)
    return Directory(
        entries={
            b"etc": Directory(entries={b"passwd": passwd, b"group": File(content=BytesContent(b"tty:x:5:\n"))}),
            b"bin": Directory(entries={b"a": file, b"b": file, b"l": Symlink(b"a"), b"d": Directory()}),
        }
    )


def applied(text, root=None):
    return apply_table(root or tree(), parse_table(text.encode(), "t"), mtime_ns=5)


def at(root, path):
    for part in path.encode().split(b"/"):
        root = root.entries[part]
    return root


def test_devices_are_made_in_numbers():
    lines = ["/dev/tty c 620 0 tty 4 64 2 3 3", "/dev/null c 666 0 0 1 3", "/run/p p 600 1 2"]
    lines.append("/dev/one b 600 0 0 8 1 0 0 1")
    made = applied("\n".join(lines))
    assert sorted(at(made, "dev").entries) == [b"null", b"one", b"tty2", b"tty3", b"tty4"]
    found = at(made, "dev/tty4")
    assert isinstance(found, Special)
    assert (found.kind, found.permissions, found.gid) == (stat.S_IFCHR, 0o620, 5)
    assert (found.major, found.minor, found.mtime_ns) == (4, 70, 5)
    assert at(made, "run/p").kind == stat.S_IFIFO


def test_files_and_directories_get_owners_and_modes():
    lines = ["# comment", "", "/bin/l f 4755 web 7", "/srv/www d 2750 33 tty - - -", "/bin/none F 600 0 0"]
    made = applied("\n".join([*lines, "/bin/d d -1 9 9"]))
    file = at(made, "bin/a")
    assert (file.permissions, file.uid, file.gid) == (0o4755, 33, 7)
    assert at(made, "bin/b") is file
    assert (at(made, "srv/www").permissions, at(made, "srv").permissions) == (0o2750, 0o755)
    assert (at(made, "bin/d").permissions, at(made, "bin/d").uid) == (0o755, 9)


def test_everything_below_a_path():
    before = tree()
    made = applied("/bin r 700 1 2", before)
    for path in ("bin", "bin/a", "bin/d", "bin/l"):
        assert (at(made, path).uid, at(made, path).gid) == (1, 2)
    assert at(made, "bin/a").permissions == 0o700
    assert at(made, "bin/l").permissions == 0o777
    assert at(before, "bin/a").uid == 0


def test_capabilities():
    made = applied("/bin/a f 755 0 0\n|xattr cap_net_raw,cap_net_admin+ep")
    assert at(made, "bin/a").xattrs == {
        b"security.capability": struct.pack("<IIIII", 0x02000001, 1 << 13 | 1 << 12, 0, 0, 0)
    }
    assert parse_capabilities(b"cap_bpf=i", LINE) == struct.pack("<IIIII", 0x02000000, 0, 0, 0, 1 << 7)
    whole = struct.unpack("<IIIII", parse_capabilities(b"all=ep cap_chown-ep", LINE))
    assert whole == (0x02000001, 0xFFFFFFFE, 0, (1 << len(CAPABILITIES) - 32) - 1, 0)


def test_a_table_of_too_many_nodes_is_refused(monkeypatch):
    monkeypatch.setattr(devicetable, "MAX_NODES", 5)
    parse_table(b"/a c 600 0 0 1 1 0 1 4\n/b d 755 0 0\n", "t")
    with pytest.raises(LimitExceeded, match="t: line 2"):
        parse_table(b"/a c 600 0 0 1 1 0 1 5\n/b d 755 0 0\n", "t")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("/a", Corrupt),
        ("/a f 755 0 0 0 0 0 0 0 0", Corrupt),
        ("/a x 755 0 0", FormatError),
        ("/a d 999 0 0", Corrupt),
        ("/../a d 755 0 0", Corrupt),
        ("/a c 600 0 0 x 0", Corrupt),
        ("/a c 600 0 0 4096 0", Corrupt),
        ("/a c 600 0 0 1 0 0 1 65537", Corrupt),
        ("/a c 600 0 0 1 1048575 0 1 2", Corrupt),
        ("/ c 600 0 0 1 1", Corrupt),
        ("|xattr cap_chown+ep", Corrupt),
        ("/a d 755 0 0\n|xattr cap_chown+ep", Corrupt),
        ("/a f 755 0 0\n|xattr", Corrupt),
        ("/a f 755 0 0\n|xattr chown+ep", Corrupt),
        ("/a f 755 0 0\n|xattr cap_chown", FormatError),
        ("/a f 755 0 0\n|xattr cap_chown+p cap_kill+ep", FormatError),
        ("/bin/none f 755 0 0", NotFound),
        ("/bin/none r 755 0 0", NotFound),
        ("/bin f 755 0 0", NotFound),
        ("/bin/a f 755 nobody 0", NotFound),
        ("/bin/a c 600 0 0 1 3", UsageError),
        ("/bin/d p 600 0 0", UsageError),
        ("/bin/a/x p 600 0 0", UsageError),
        ("/bin/a d 600 0 0", UsageError),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text, error):
    with pytest.raises(error, match=rf"t: line {text.count(chr(10)) + 1}: "):
        applied(text)
