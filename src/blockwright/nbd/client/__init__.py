"""NBD's user-space client: a server's export as a ``BlockDevice``.

from blockwright.nbd.client.connect import connect

with connect("nbd://host/export", writable=True) as device:
device.write(0, b"...")
device.flush()
"""
