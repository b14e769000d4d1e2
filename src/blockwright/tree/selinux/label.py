"""Every node of a tree gets the label that the rules say, as ``security.selinux``.

Knows: how a tree is walked such that a directory's names share what their path has in common. Refuses to know: rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from blockwright.tree.node import NO_XATTRS, Directory, Node
from blockwright.tree.rebuild import copy_node
from blockwright.tree.selinux.contexts import Contexts

SELINUX: Final = b"security.selinux"


def label(root: Directory, contexts: Contexts) -> Directory:
    """Return the tree with a label for every node that a rule has one for; others keep what they have.

    A node with several names gets the label of the first, in order of directories and names.
    """
    return _Labels(contexts).run(root)


class _Labels:
    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts
        self._alone: dict[bytes, Mapping[bytes, bytes]] = {}
        self._known: dict[int, Node] = {}

    def run(self, root: Directory) -> Directory:
        contexts, known = self._contexts, self._known
        top = self._directory(root, contexts.lookup(b"/", root.kind))
        stack = [(b"/", root, top)]
        while stack:
            path, old, new = stack.pop()
            base = path
            if contexts.aliased:
                base = contexts.alias(path.rstrip(b"/") or b"/").rstrip(b"/") + b"/"
            state = contexts.within(base)
            below = []
            for name in sorted(old.entries):
                node = old.entries[name]
                directory = isinstance(node, Directory)
                if not directory:
                    made = known.get(id(node))
                    if made is not None:
                        new.entries[name] = made
                        continue
                if contexts.aliased and (path + name in contexts.aliased or base + name in contexts.aliased):
                    context = contexts.lookup(path + name, node.kind)
                else:
                    context = contexts.find(base + name, node.kind, state, name)
                if isinstance(node, Directory):
                    folder = new.entries[name] = self._directory(node, context)
                    below.append((path + name + b"/", node, folder))
                else:
                    new.entries[name] = known[id(node)] = self._node(node, context)
            below.reverse()
            stack += below
        return top

    def _directory(self, node: Directory, context: bytes | None) -> Directory:
        made = Directory(node.permissions, node.uid, node.gid, node.mtime_ns, node.xattrs)
        if context is not None:
            made.xattrs = self._xattrs(node.xattrs, context)
        return made

    def _node(self, node: Node, context: bytes | None) -> Node:
        if context is None:
            return node
        xattrs = self._xattrs(node.xattrs, context)
        return copy_node(node, node.permissions, node.uid, node.gid, node.mtime_ns, xattrs)

    def _xattrs(self, xattrs: Mapping[bytes, bytes], context: bytes) -> Mapping[bytes, bytes]:
        """Return attributes with the label, which Linux keeps with a NUL behind it."""
        if xattrs is NO_XATTRS or not xattrs:
            found = self._alone.get(context)
            if found is None:
                found = self._alone[context] = MappingProxyType({SELINUX: context + b"\0"})
            return found
        return MappingProxyType({**xattrs, SELINUX: context + b"\0"})
