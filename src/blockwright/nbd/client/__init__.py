"""NBD's user-space client: a server's export as a ``BlockDevice``.

with connect("nbd://host/export", writable=True) as device:
    device.write(0, b"...")
    device.flush()
"""

from blockwright.nbd.client.device import NbdDevice
from blockwright.nbd.client.dialling import connect, from_socket

__all__ = ["NbdDevice", "connect", "from_socket"]
