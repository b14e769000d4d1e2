"""Hands the bodies of a tree to a placer, as a source that passes once would."""

from blockwright.device.base import BlockDevice
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import Ext4Plan
from blockwright.fs.ext4.stream import StreamPlacer
from blockwright.tree.content import Content, Place
from blockwright.tree.node import Directory, File, Node


def place_content(content: Content, place: Place) -> Content:
    """Give one content's data to `place`, in the pieces that it asks for."""
    data = [(start, start + length) for start, length in content.runs()]

    def fill(view: memoryview) -> None:
        while len(view):
            start, end = data[0]
            part = min(len(view), end - start)
            content.read_into(start, view[:part])
            view = view[part:]
            data[0] = start + part, end
            if start + part == end:
                del data[0]

    placed = place(content.size, content.runs(), fill)
    assert not data, "all data was asked for"
    return placed


def place_tree(tree: Directory, place: Place) -> Directory:
    """The same tree, its bodies placed in the order of a walk; hard links stay links."""
    root = _placed(tree, place, {})
    assert isinstance(root, Directory)
    return root


def _placed(node: Node, place: Place, copies: dict[int, Node]) -> Node:
    """Apart from `place_tree`: a function inside it would refer to itself, and keep the device in memory for long."""
    if id(node) not in copies:
        metadata = (node.permissions, node.uid, node.gid, node.mtime_ns, node.xattrs)
        if isinstance(node, Directory):
            entries = {name: _placed(child, place, copies) for name, child in sorted(node.entries.items())}
            made: Node = Directory(*metadata, entries)
        elif isinstance(node, File):
            made = File(*metadata, place_content(node.content, place))
        else:
            made = node
        copies[id(node)] = made
    return copies[id(node)]


def stream_tree(tree: Directory, options: Ext4Options, device: BlockDevice) -> tuple[Directory, Ext4Plan]:
    """Place all bodies in `device`; return the tree with placed contents, and the plan of the rest."""
    placer = StreamPlacer(device, options)
    placed = place_tree(tree, placer.place)
    return placed, placer.finish(placed, options)
