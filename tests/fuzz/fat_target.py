"""Fuzz target: any bytes as a FAT volume."""

from blockwright.device.memory import MemoryDevice
from blockwright.errors import FormatError
from blockwright.fs.fat import check, read
from blockwright.tree.node import Directory, File

MAX_BYTES = 5 << 20
MAX_READ = 1 << 20


def fuzz_one(data: bytes) -> None:
    """Lets nothing but FormatError out of probing, checking, and reading every file's beginning and end."""
    device = MemoryDevice(content=data[:MAX_BYTES])
    read.probe(device)
    for use in (check.check, _read_all):
        try:
            use(device)
        except FormatError:
            continue


def _read_all(device: MemoryDevice) -> None:
    fs = read.open(device)
    fs.usage()
    for entry in fs.entries(fs.root_inode):
        fs.stat_inode(entry.inode)
        fs.find(fs.root_inode, entry.name)
    stack = [fs.tree()]
    while stack:
        for node in stack.pop().entries.values():
            if isinstance(node, Directory):
                stack.append(node)
            elif isinstance(node, File) and node.content.size:
                length = min(node.content.size, MAX_READ)
                node.content.read_into(node.content.size - length, memoryview(bytearray(length)))
