from blockwright.tree import Directory, File, Symlink
from blockwright.tree.lookup import lookup


def test_links_are_followed_and_clamped_at_the_root() -> None:
    file = File()
    usr = Directory(entries={b"lib": Directory(entries={b"x": file})})
    root = Directory(
        entries={
            b"usr": usr,
            b"lib": Symlink(b"usr/lib"),
            b"up": Symlink(b"../../../usr"),
            b"absolute": Symlink(b"/lib/x"),
            b"turn": Symlink(b"turn"),
            b"dangling": Symlink(b"nowhere"),
        }
    )
    assert lookup(root, b"/") is root
    assert lookup(root, b"lib/x") is file
    assert lookup(root, b"/up/./lib//x") is file
    assert lookup(root, b"absolute") is file
    assert lookup(root, b"lib/../lib/x") is file
    assert lookup(root, b"../../lib/x") is file
    assert lookup(root, b"turn") is None
    assert lookup(root, b"dangling") is None
    assert lookup(root, b"lib/x/more") is None
    assert lookup(root, b"lib", follow=False) is root.entries[b"lib"]
    assert lookup(root, b"lib/x", follow=False) is file
    assert lookup(root, b"lib/", follow=False) is root.entries[b"lib"]


def test_a_link_within_a_directory_starts_there() -> None:
    file = File()
    inner = Directory(entries={b"y": file, b"x": Symlink(b"y"), b"up": Symlink(b"../a/y")})
    root = Directory(entries={b"a": inner})
    assert lookup(root, b"a/x") is file
    assert lookup(root, b"a/up") is file
