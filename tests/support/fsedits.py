"""Random edits of a file system, made in an editor and in a tree value at once.

Knows: every change an editor can be asked for, and what it does to a tree. Refuses to know: which file system it is.
"""

import random
from collections.abc import Callable

from blockwright.errors import NoSpace
from blockwright.fs.editor import Attributes, Editor
from blockwright.tree.compare import Difference, compare_trees
from blockwright.tree.content import BytesContent, Content
from blockwright.tree.node import Directory, File, Node, Special, Symlink, walk
from tests.support.trees import PatternContent, content_bytes

SIZES = (0, 1, 59, 60, 100, 1000, 1024, 4096, 5000, 12288, 30000, 70000)
KEPT = frozenset({b"lost+found"})


class RandomEdits:
    """A tree that follows an editor. ``log`` is what was done, one line each."""

    def __init__(self, seed: int, root: Directory, *, largest: int = 70000, specials: bool = True) -> None:
        self.rng = random.Random(seed)
        self.root = root
        self.largest = largest
        self.specials = specials
        self.log: list[str] = []
        self.count = 0
        self.refusals: tuple[type[Exception], ...] = (NoSpace,)

    # -- what there is ---------------------------------------------------------------------------------------

    def directories(self) -> list[tuple[bytes, Directory]]:
        found: list[tuple[bytes, Directory]] = [(b"", self.root)]
        for path, directory in found:
            for name, node in directory.entries.items():
                if isinstance(node, Directory) and name not in KEPT:
                    found.append((path + b"/" + name, node))
        return found

    def places(self, *kinds: type[Node]) -> list[tuple[bytes, Directory, bytes, Node]]:
        """Every (path, directory, name, node) of these kinds."""
        return [
            (path + b"/" + name, directory, name, node)
            for path, directory in self.directories()
            for name, node in directory.entries.items()
            if isinstance(node, kinds or Node) and name not in KEPT
        ]

    def name(self) -> bytes:
        self.count += 1
        tail = self.rng.choice(
            (b"", b"", b"x" * self.rng.randrange(1, 60), b"y" * 240, "\N{GREEK SMALL LETTER PI}".encode())
        )
        return b"%d" % self.count + tail

    def content(self) -> Content:
        size = self.rng.choice([size for size in SIZES if size <= self.largest])
        if self.rng.random() < 0.3 and size > 10000:
            runs = [(4096 * at, 4096) for at in range(size // 4096) if self.rng.random() < 0.5]
            return PatternContent(size, runs, self.rng.randrange(1 << 30))
        return BytesContent(self.rng.randbytes(size))

    def xattrs(self) -> dict[bytes, bytes]:
        if self.rng.random() < 0.6:
            return {}
        sizes = (0, 1, 20, 100, 300)
        return {b"user.%d" % at: self.rng.randbytes(self.rng.choice(sizes)) for at in range(self.rng.randrange(1, 3))}

    def node(self) -> Node:
        rng = self.rng
        owner = (rng.choice((0, 1000, 70000)), rng.choice((0, 100, 1 << 20)), rng.randrange(1 << 30) * 10**9 + 5)
        kind = rng.random()
        if kind < 0.6:
            return File(rng.choice((0o644, 0o600, 0o4755)), *owner, self.xattrs(), self.content())
        if kind < 0.75:
            return Symlink(b"t" * rng.choice((1, 59, 60, 61, 900)), 0o777, *owner)
        if kind < 0.8 and self.specials:
            device = Special(rng.choice((0o020000, 0o060000)), 0o600, *owner, major=rng.choice((1, 259)), minor=70000)
            return rng.choice((device, Special(0o010000, 0o640, *owner)))
        return Directory(0o755, *owner, self.xattrs())

    # -- changes ---------------------------------------------------------------------------------------------

    def step(self, editor: Editor, name: str | None = None) -> None:
        """Make one random change, or one of that name; a full file system refuses and stays what it is."""
        choices: dict[str, tuple[Callable[[Editor], None], int]] = {
            "put": (self.put, 8),
            "tree": (self.tree, 1),
            "remove": (self.remove, 4),
            "move": (self.move, 3),
            "link": (self.link, 2),
            "rewrite": (self.rewrite, 2),
            "patch": (self.patch, 3),
            "truncate": (self.truncate, 2),
            "attributes": (self.attributes, 2),
            "xattr": (self.xattr, 3),
        }
        if name is None:
            name = self.rng.choices(list(choices), [weight for _, weight in choices.values()])[0]
        change = choices[name][0]
        try:
            change(editor)
        except self.refusals as error:
            self.log.append(f"    {error}")

    def put(self, editor: Editor) -> None:
        path, directory = self.rng.choice(self.directories())
        name, node = self.name(), self.node()
        self.log.append(f"put {path + b'/' + name!r} {type(node).__name__}")
        editor.put(path + b"/" + name, node)
        directory.entries[name] = node

    def tree(self, editor: Editor) -> None:
        path, directory = self.rng.choice(self.directories())
        name = self.name()
        inner = Directory(entries={self.name(): self.node() for _ in range(self.rng.randrange(12))})
        files = [node for node in inner.entries.values() if isinstance(node, File)]
        if files:
            inner.entries[self.name()] = files[0]
        self.log.append(f"put tree {path + b'/' + name!r} of {len(inner.entries)}")
        try:
            editor.put(path + b"/" + name, inner)
        except self.refusals:
            self.root = loaded(editor.files.tree())
            raise
        directory.entries[name] = inner

    def remove(self, editor: Editor) -> None:
        places = self.places()
        if places:
            path, directory, name, _node = self.rng.choice(places)
            self.log.append(f"rm {path!r}")
            editor.rm(path, recursive=True)
            del directory.entries[name]

    def move(self, editor: Editor) -> None:
        places = self.places()
        if not places:
            return
        path, directory, name, node = self.rng.choice(places)
        to, target = self.rng.choice(self.directories())
        if isinstance(node, Directory) and (to + b"/").startswith(path + b"/"):
            return
        files = [each for each in target.entries if isinstance(target.entries[each], File)]
        new = self.rng.choice(files) if files and isinstance(node, File) and self.rng.random() < 0.3 else self.name()
        self.log.append(f"mv {path!r} {to + b'/' + new!r}")
        if target.entries.get(new) is node:
            if target is directory and new == name:
                return
            editor.mv(path, to + b"/" + new)
            del directory.entries[name]
            return
        editor.mv(path, to + b"/" + new)
        del directory.entries[name]
        target.entries[new] = node

    def link(self, editor: Editor) -> None:
        places = self.places(File)
        if places:
            path, _directory, _name, node = self.rng.choice(places)
            to, target = self.rng.choice(self.directories())
            new = self.name()
            self.log.append(f"ln {path!r} {to + b'/' + new!r}")
            editor.ln(path, to + b"/" + new)
            target.entries[new] = node

    def _file(self) -> tuple[bytes, File] | None:
        places = self.places(File)
        if not places:
            return None
        path, _directory, _name, node = self.rng.choice(places)
        assert isinstance(node, File)
        return path, node

    def rewrite(self, editor: Editor) -> None:
        found = self._file()
        if found is not None:
            content = self.content()
            self.log.append(f"write {found[0]!r} {content.size}")
            editor.write(found[0], content)
            found[1].content = content

    def patch(self, editor: Editor) -> None:
        found = self._file()
        if found is not None:
            path, file = found
            data = self.rng.randbytes(self.rng.choice((1, 100, 4096, 9000)))
            offset = self.rng.choice((0, 1, 4095, 5000, 8192, self.rng.randrange(90000)))
            self.log.append(f"write {path!r} {len(data)} at {offset}")
            editor.write(path, BytesContent(data), offset=offset)
            before = content_bytes(file.content).ljust(offset, b"\0")
            file.content = BytesContent(before[:offset] + data + before[offset + len(data) :])

    def truncate(self, editor: Editor) -> None:
        found = self._file()
        if found is not None:
            path, file = found
            size = self.rng.choice((0, 1, 4095, 4096, 5000, self.rng.randrange(90000)))
            self.log.append(f"truncate {path!r} {size}")
            editor.truncate(path, size)
            file.content = BytesContent(content_bytes(file.content)[:size].ljust(size, b"\0"))

    def attributes(self, editor: Editor) -> None:
        places = self.places(File, Directory)
        if places:
            path, _directory, _name, node = self.rng.choice(places)
            permissions, uid = self.rng.randrange(1 << 12), self.rng.choice((0, 1, 1 << 17))
            self.log.append(f"chmod {path!r} {permissions:o}, chown {uid}")
            editor.set_attributes(path, Attributes(permissions=permissions, uid=uid))
            node.permissions, node.uid = permissions, uid

    def xattr(self, editor: Editor) -> None:
        places = self.places(File, Directory)
        if places:
            path, _directory, _name, node = self.rng.choice(places)
            gone = sorted(node.xattrs) if self.rng.random() < 0.4 else []
            name = gone[0] if gone else b"user.%d" % self.rng.randrange(4)
            value = None if gone else self.rng.randbytes(self.rng.choice((0, 5, 60, 200)))
            self.log.append(f"setxattr {path!r} {name!r} {None if value is None else len(value)}")
            editor.set_xattr(path, name, value)
            others = {each: node.xattrs[each] for each in node.xattrs if each != name}
            node.xattrs = others if value is None else {**others, name: value}


def loaded(root: Directory) -> Directory:
    """The tree with its bodies in memory, so that the file system it came from can go."""
    for _path, node in walk(root):
        if isinstance(node, File):
            node.content = BytesContent(content_bytes(node.content))
    return root


def differences(expected: Directory, editor_or_tree: Directory) -> list[Difference]:
    """What two trees differ in but times, which a change sets, and what every file system has."""
    left = Directory(entries={name: node for name, node in expected.entries.items() if name not in KEPT})
    right = Directory(entries={name: node for name, node in editor_or_tree.entries.items() if name not in KEPT})
    return list(compare_trees(left, right, contents=True, ignore={"mtime_ns"}))
