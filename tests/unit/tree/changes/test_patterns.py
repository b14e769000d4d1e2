import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.errors import FormatError, UsageError
from blockwright.tree.changes.patterns import Patterns, exclude, only, read_patterns
from blockwright.tree.node import Directory, File, walk

FILES = ["a", "b.pyc", "d/a", "d/b.pyc", "d/e/a", "d/e/f/a", "x y", "d/[z]", "d/e/c1", "d/e/c2", "#n", "!n"]
FILES.append("build/o")


def tree(names=FILES):
    root = Directory()
    for name in names:
        *parents, last = name.split("/")
        here = root
        for part in parents:
            here = here.entries.setdefault(part.encode(), Directory())
        here.entries[last.encode()] = File()
    return root


def left(root):
    return sorted(path.decode() for path, node in walk(root) if not isinstance(node, Directory))


def test_only_takes_what_matches_and_what_leads_there():
    assert left(only(tree(), Patterns([b"d/e"]))) == ["d/e/a", "d/e/c1", "d/e/c2", "d/e/f/a"]
    assert left(only(tree(), Patterns([b"*.pyc"]))) == ["b.pyc", "d/b.pyc"]
    made = only(tree(), Patterns([b"nothing"]))
    assert not made.entries


def test_a_hard_link_stays_under_its_other_names():
    file = File()
    made = exclude(Directory(entries={b"a": file, b"b": file}), Patterns([b"a"]))
    assert made.entries == {b"b": file}


def test_a_file_of_patterns_has_comments():
    assert read_patterns(b"# no\n\n*.o\r\n  \n\\#yes\n") == [b"*.o", b"\\#yes"]


@pytest.mark.parametrize("text", [b"", b"/", b"!", b"a\\", b"[a", b"../x", b"a/./b", b"x\0"])
def test_patterns_that_are_none_are_refused(text):
    with pytest.raises(UsageError):
        Patterns([text])


@given(st.lists(st.binary(min_size=1, max_size=12), max_size=5))
def test_any_bytes_are_patterns_or_refused(texts):
    with contextlib.suppress(UsageError, FormatError):
        exclude(tree(), Patterns(texts))
