"""Serves files by their names to whoever runs as the same user, and one client after another by a loop of our own.

python examples/file_server.py /tmp/disks.sock one.img two.img
"""

import os
import socket
import sys
import threading

from blockwright.device.file import open_path
from blockwright.nbd.server.access import access_list
from blockwright.nbd.server.connection import Options, serve_connection
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.limits import Limits


def main(path: str, files: list[str]) -> None:
    ours = access_list([f"uid={os.getuid()}"])
    # Opened once, and locked against other writers for as long as we run.
    exports = [Export(os.path.basename(each), open_path(each, writable=True), access=ours) for each in files]
    options = Options(limits=Limits(handshake_s=5.0, idle_s=600.0))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print(f"nbd+unix:///?socket={path}", flush=True)
        while True:
            client, _ = listener.accept()
            # The accept loop is the caller's; a connection is served to its end in whatever thread calls.
            threading.Thread(target=serve_connection, args=(client, exports, options), daemon=True).start()


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2:])
    except KeyboardInterrupt:
        os.unlink(sys.argv[1])
