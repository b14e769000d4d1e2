"""A first backend in four steps: any object with these four methods is a disk.

python examples/backend.py /tmp/disk.sock
nbdinfo 'nbd+unix:///?socket=/tmp/disk.sock'
"""

import sys
from contextlib import suppress

from blockwright.device.adapter import ObjectDevice
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.listeners import closing_all, listen_unix
from blockwright.nbd.server.server import Server


# 1. Say how large the disk is, how its bytes are read and written, and how they are made durable.
class Notes:
    """A disk of one MiB in a bytearray."""

    def __init__(self) -> None:
        self.content = bytearray(1 << 20)

    def size(self) -> int:
        return len(self.content)

    def read_at(self, offset: int, length: int) -> bytes:
        return bytes(self.content[offset : offset + length])

    def write_at(self, offset: int, data: memoryview) -> None:
        self.content[offset : offset + len(data)] = data

    def sync(self) -> None:
        """Nothing is kept back here."""


def main(path: str) -> None:
    # 2. Make a device of it. Ranges are checked here, so the methods above never see one that does not fit.
    device = ObjectDevice(Notes())
    # 3. Give it a name.
    export = Export("notes", device, description="a disk in four methods")
    # 4. Serve it, until control-C.
    listener = listen_unix(path)
    with closing_all([listener]), Server([export], [listener.socket]) as server:
        print(f"nbd+unix:///notes?socket={path}", flush=True)
        with suppress(KeyboardInterrupt):
            server.wait()


if __name__ == "__main__":
    main(sys.argv[1])
