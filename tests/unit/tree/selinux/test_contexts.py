import re
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.errors import Corrupt, FormatError, LimitExceeded
from blockwright.tree.automaton import Automaton
from blockwright.tree.node import Directory, File, Symlink
from blockwright.tree.selinux import contexts as contexts_module
from blockwright.tree.selinux.contexts import Alias, Contexts, parse_aliases, parse_contexts, read_contexts
from blockwright.tree.selinux.label import SELINUX, label
from blockwright.tree.selinux.regex import Unusable, translate

REG, DIR = stat.S_IFREG, stat.S_IFDIR


def rules(text, **options):
    return Contexts(parse_contexts(text.encode(), "fc"), **options)


def test_the_last_line_counts_but_plain_paths_before_all():
    text = "/etc/x u:r:plain:s0\n/etc/y\\.z u:r:dot:s0\n/.* u:r:all:s0\n/etc/.* u:r:first:s0\n"
    found = rules(text + "/etc(/.*)? u:r:last:s0")
    assert found.lookup(b"/etc/x", REG) == b"u:r:plain:s0"
    assert found.lookup(b"/etc/y.z", REG) == b"u:r:dot:s0"
    assert found.lookup(b"/etc/other", REG) == found.lookup(b"/etc", DIR) == b"u:r:last:s0"
    assert found.lookup(b"/etcetera", REG) == b"u:r:all:s0"


def test_types_of_files_and_none():
    text = "/d -d u:r:dir\n/d -- u:r:file\n/p/.* -l u:r:link\n/n <<none>>\n/n/.* u:r:n\n/n/x.* <<none>>\n"
    found = rules(text + "/q -d u:r:q")
    assert found.lookup(b"/d", DIR) == b"u:r:dir"
    assert found.lookup(b"/d", REG) == b"u:r:file"
    assert found.lookup(b"/p/a", REG) is None
    assert found.lookup(b"/p/a", stat.S_IFLNK) == b"u:r:link"
    assert found.lookup(b"/n", DIR) is found.lookup(b"/n/xy", REG) is found.lookup(b"/q", REG) is None
    assert found.lookup(b"/n/y", REG) == b"u:r:n"


def test_aliases_are_whole_names():
    subs = [Alias(b"/lib", b"/usr/lib"), Alias(b"/r", b"/")]
    dist = [Alias(b"/usr/l", b"/usr/lib")]
    found = rules("/usr/lib(/.*)? u:r:lib\n/lib64 u:r:no\n/x u:r:x", subs=subs, subs_dist=dist)
    assert found.lookup(b"/lib", DIR) == found.lookup(b"/lib/a", REG) == found.lookup(b"/usr/l/b", REG) == b"u:r:lib"
    assert found.lookup(b"/lib64", REG) == b"u:r:no"
    assert found.lookup(b"/r/x", REG) == b"u:r:x"


def test_a_tree_is_labelled():
    shared = File(xattrs={b"user.a": b"1"})
    lib = Directory(entries={b"a": shared, b"b": shared})
    root = Directory(entries={b"lib": lib, b"none": File(xattrs={SELINUX: b"kept\0"}), b"l": Symlink(b"x")})
    found = rules(
        "/ u:r:root\n/usr/lib(/.*)? u:r:lib\n/l -l u:r:link\n/none <<none>>", subs=[Alias(b"/lib", b"/usr/lib")]
    )
    made = label(root, found)
    assert made.xattrs == {SELINUX: b"u:r:root\0"}
    assert made.entries[b"lib"].entries[b"a"] is made.entries[b"lib"].entries[b"b"]
    assert made.entries[b"lib"].entries[b"a"].xattrs == {b"user.a": b"1", SELINUX: b"u:r:lib\0"}
    assert made.entries[b"none"].xattrs == {SELINUX: b"kept\0"}
    assert made.entries[b"l"].xattrs == {SELINUX: b"u:r:link\0"}
    assert shared.xattrs == {b"user.a": b"1"}


def test_files_beside_are_read(tmp_path):
    path = tmp_path / "fc"
    path.write_text("/.* u:r:base\n")
    (tmp_path / "fc.homedirs").write_text("/home/.* u:r:home\n")
    (tmp_path / "fc.local").write_text("/home/me/.* u:r:local\n")
    (tmp_path / "fc.subs_dist").write_text("# alias\n/homes /home\n")
    found = read_contexts(str(path))
    assert found.lookup(b"/homes/you/x", REG) == b"u:r:home"
    assert found.lookup(b"/home/me/x", REG) == b"u:r:local"
    assert found.lookup(b"/x", REG) == b"u:r:base"


SUPPORTED = [
    rb"/a?quota\.(user|group)",
    rb"/usr/(local/)?.*\.so(\.[^/]*)*",
    rb"/dev/[shmxv]d[^/]*",
    rb"/dev/tty[0-9]{1,3}",
    rb"/x{2,}y{0,1}z{3}",
    rb"/[[:alpha:]_-]+[^[:digit:]]\d\w\S",
    rb"/(?:a|b|)c",
    rb"/\x41\t[]x]",
    rb"^/a.b$",
    rb"/a{b",
    rb"/[a\]b\-c]",
    rb"/(a(b(c)?)*)+",
]


@pytest.mark.parametrize("text", SUPPORTED)
@given(data=st.data())
def test_expressions_mean_what_they_mean_to_python(text, data):
    python = text
    for name, members in ((b"[:alpha:]", b"a-zA-Z"), (b"[:digit:]", b"0-9")):
        python = python.replace(name, members)
    expected = re.compile(rb"(?:%s)\Z" % python, re.DOTALL | re.ASCII)
    literal, expression = translate(text)
    machine = Automaton()
    machine.add(expression, 0)
    sample = data.draw(st.one_of(st.from_regex(expected, fullmatch=True), st.binary(max_size=8)))
    assert (machine.run(machine.start, sample).best(0) == 0) == bool(expected.fullmatch(sample))
    assert literal is None or literal == sample or not expected.fullmatch(sample)


@pytest.mark.parametrize(
    "text",
    [
        *(
            b"(",
            b")",
            b"/(a",
            b"/a)",
            b"/[a",
            b"/a**",
            b"/*?",
            b"*",
            b"/a|/b",
            b"/(?=x)",
            b"/(?i)x",
            b"/\\1",
            b"/a\\",
        ),
        *(b"/\\b", b"/a$b", b"/x^", b"/[z-a]", b"/[[:nope:]]", b"/[[.a.]]", b"/a{300}", b"/a{2,1}", b"a?", b""),
        *(b"/\\x0", b"/\\x00", b"/(*VERB)x", b"/a\0b", b"/\\Qx", b"/[a-\\d]"),
        b"/" + b"(" * 80 + b"x" + b")" * 80,
        b"/" + b"x" * 5000,
    ],
)
def test_expressions_that_are_not_supported_are_refused(text):
    with pytest.raises(Unusable):
        translate(text)


@pytest.mark.parametrize(
    "text", ["/x", "/x -q u:r:t", "/x u:r", "/x -- u:r:t s0", "/x( u:r:t", "/x u::t", "/x <<some>>"]
)
def test_lines_that_are_none_are_told(text):
    with pytest.raises(FormatError, match="fc: line 3: "):
        parse_contexts(f"# comment\n\n{text}\n".encode(), "fc")


def test_what_would_take_too_much_memory_is_told(monkeypatch):
    with pytest.raises(LimitExceeded, match="fc: line 1"):
        rules("/((a{0,255}){0,255}){0,255} u:r:t")
    monkeypatch.setattr(contexts_module, "MAX_RULES", 2)
    with pytest.raises(LimitExceeded, match="fc: line 3"):
        rules("/a u:r:t\n/b u:r:t\n/c u:r:t")


@pytest.mark.parametrize("text", ["/a", "a /b", "/a /b /c", "/ /b", "// /b"])
def test_aliases_that_are_none_are_told(text):
    with pytest.raises(Corrupt, match="s: line 1"):
        parse_aliases(text.encode(), "s")
