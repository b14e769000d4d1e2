"""A file tree as a value: nodes, contents, and where they come from."""

from blockwright.tree.content import BytesContent, Content, DeviceContent, PlacedContent
from blockwright.tree.node import Directory, File, Node, Special, Symlink

__all__ = [
    "BytesContent",
    "Content",
    "DeviceContent",
    "Directory",
    "File",
    "Node",
    "PlacedContent",
    "Special",
    "Symlink",
]
