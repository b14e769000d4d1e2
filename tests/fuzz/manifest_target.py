"""Fuzz target: any bytes as a manifest, a device table, file_contexts with aliases, and patterns of names.

The first byte says which.
"""

import stat

from blockwright.errors import BlockwrightError, FormatError
from blockwright.tree.changes.devicetable import apply_table, parse_table
from blockwright.tree.changes.patterns import Patterns, exclude, only, read_patterns
from blockwright.tree.compare import compare_trees
from blockwright.tree.content import BytesContent
from blockwright.tree.digest import tree_digest
from blockwright.tree.mtree.apply import apply_manifest
from blockwright.tree.mtree.parse import parse
from blockwright.tree.mtree.write import write_manifest
from blockwright.tree.node import Directory, File, Special, Symlink
from blockwright.tree.selinux.contexts import Contexts, parse_aliases, parse_contexts
from blockwright.tree.selinux.label import label

MAX_BYTES = 1 << 14


def _tree() -> Directory:
    shared = File(content=BytesContent(b"abc"))
    passwd, group = (File(content=BytesContent(each)) for each in (b"root:x:0:0::/root:\n", b"root:x:0:\n"))
    etc = {b"passwd": passwd, b"group": group, b"a": shared}
    below = Directory(entries={b"x": File(), b"b": shared, b"up": Symlink(b"../../../etc")})
    entries = {b"etc": Directory(entries=dict(etc)), b"d": below, b"link": Symlink(b"d"), b"loop": Symlink(b"loop")}
    return Directory(entries={**entries, b"null": Special(stat.S_IFCHR, major=1, minor=3)})


def _manifest(data: bytes) -> None:
    entries = parse(data, "m")
    entries = [entry for entry in entries if entry.contents is None]  # files of this host
    before = _tree()
    made = apply_manifest(before, entries, mtime_ns=1)
    if compare_trees(before, _tree()):
        raise AssertionError("the tree itself changed")
    text = b"".join(write_manifest(made))
    if compare_trees(made, apply_manifest(made, parse(text, "own"), mtime_ns=2)):
        raise AssertionError("what was written says something else")


def _table(data: bytes) -> None:
    rows = parse_table(data, "t")
    rows = [row._replace(copies=min(row.copies, 100)) for row in rows]  # they are as many as is said, and as slow
    tree_digest(apply_table(_tree(), rows, mtime_ns=1))


def _contexts(data: bytes) -> None:
    aliases, _, rules = data.rpartition(b"\n\n")
    found = Contexts(parse_contexts(rules, "c"), parse_aliases(aliases, "s"))
    tree_digest(label(_tree(), found))
    for path in (b"/", b"/" + b"a." * 100, b"/usr/lib/x.so" + b"." * 200 + b"/"):
        found.lookup(path, stat.S_IFREG)


def _patterns(data: bytes) -> None:
    patterns = Patterns(read_patterns(data))
    kept = exclude(_tree(), patterns)
    tree_digest(kept)
    if compare_trees(kept, exclude(kept, patterns)):
        raise AssertionError("what was left is excluded by the same patterns")
    tree_digest(only(_tree(), patterns))


TARGETS = (_manifest, _table, _contexts, _patterns)


def fuzz_one(data: bytes) -> None:
    """Lets nothing out but this package's errors; those of formats tell the line."""
    if not data:
        return
    try:
        TARGETS[data[0] % len(TARGETS)](data[1:MAX_BYTES])
    except FormatError as error:
        if data[0] % len(TARGETS) < 3 and ": line " not in str(error):
            raise AssertionError("an error without a line") from error
    except BlockwrightError:
        pass


def seeds() -> list[bytes]:
    """Inputs that reach every part of the readers."""
    manifest = (
        b"#mtree\n/set type=file uid=0 gid=0 mode=0644\n. type=dir\n  etc type=dir mode=0755\n"
        b"    a size=3 nlink=2 \\\n"
        b"  sha256=ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad cksum=1219131554\n"
        b"    passwd uname=root optional\n  ..\n/unset mode\nn\\040ew type=link link=\\M-a time=1.5 flags=none\n"
        b"./d/z type=char device=linux,1,3\n./q type=block device=0x801\n./p type=fifo\n./e type=file size=0\n"
        b"./d type=dir nochange\n./none optional ignore\n"
    )
    table = b"# t\n/tty c 620 0 root 4 0 0 1 4\n/d r -1 1 2\n/etc/a f 4755 root 0 - - -\n"
    table += (
        b"|xattr cap_chown,cap_bpf+eip\n/new d 1777 0 0\n/none F 600 0 0\n/p p 600 1 1\n/sd b 660 0 6 8 0 1 16 3\n"
    )
    contexts = b"/lib /usr/lib\n/r /\n\n/.* u:r:t:s0\n/etc(/.*)? -d u:r:t\n/etc/a u:r:a\n"
    contexts += b"/dev/[^/]*[0-9]{1,3} -c <<none>>\n"
    contexts += b"/usr/(local/)?.*\\.so(\\.[^/]*)* -- u:r:lib:s0\n/(a|b[[:alpha:]]+)\\x41\\d? u:r:t\n"
    patterns = b"# p\n*.o\n!keep.o\n/etc/\n**/x\nd/**\n[a-c]?\\*\n"
    return [bytes([number]) + each for number, each in enumerate((manifest, table, contexts, patterns))]
