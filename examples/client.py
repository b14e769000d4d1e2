"""A client: what a server offers, and one export as a device: read, written, flushed, and asked for its holes.

python examples/client.py 'nbd+unix:///notes?socket=/tmp/disk.sock'
"""

import sys

from blockwright.device.extent import HOLE
from blockwright.nbd.client.connect import connect
from blockwright.units import format_size


def main(uri: str) -> None:
    with connect(uri, writable=True) as device:
        print(f"size: {format_size(device.size)}")
        allocated = sum(extent.length for extent in device.extents() if not extent.flags & HOLE)
        print(f"allocated: {format_size(allocated)}")
        # Requests of several threads, and the parts of a long one, are in flight together.
        device.write(0, b"hello, disk")
        device.flush()
        print(f"first bytes: {device.read(0, 11).decode()}")


if __name__ == "__main__":
    main(sys.argv[1])
