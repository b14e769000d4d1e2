"""Random trees put on the host and read back."""

import os
import shutil
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings

from blockwright.tree.compare import compare_trees
from blockwright.tree.digest import tree_digest
from blockwright.tree.host import read_directory
from blockwright.tree.node import Directory, walk
from tests.support.hosttree import write_tree
from tests.support.trees import deep_tree, trees


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = os.fsencode(tmp_path_factory.mktemp("trees"))
    try:
        os.setxattr(path, b"trusted.probe", b"1")
    except (OSError, AttributeError):
        pytest.skip("needs root, and a file system with extended attributes")
    return path


@settings(max_examples=60, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
# Linux drops the nanoseconds of the first and the last second that a file system can keep.
@given(trees(max_nodes=15, seconds=[0, -1, 1_700_000_000, 2**31, 2**32, 1 - 2**31]))
def test_a_tree_comes_back_as_it_was(scratch: bytes, tree: Directory) -> None:
    path = os.fsencode(tempfile.mkdtemp(dir=os.fsdecode(scratch)))
    try:
        write_tree(tree, path)
        found = read_directory(path)
        assert compare_trees(tree, found, contents=True) == []
        assert tree_digest(found) == tree_digest(tree)
        assert [name for name, _ in walk(found)] == [name for name, _ in walk(tree)]
    finally:
        shutil.rmtree(path)


def test_directories_far_below_one_another(tmp_path) -> None:
    tree = deep_tree(900)
    write_tree(tree, os.fsencode(tmp_path))
    found = read_directory(tmp_path)
    assert len(list(walk(found))) == 902
