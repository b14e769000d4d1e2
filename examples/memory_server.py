"""Serves memory on a TCP port, read-only for all but this machine, and prints what was asked of it at the end.

python examples/memory_server.py localhost:10809 256M
"""

import sys
from contextlib import suppress

from blockwright.device.memory import MemoryDevice
from blockwright.nbd.server.access import access_list
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.listeners import closing_all, listen_tcp, parse_host_port
from blockwright.nbd.server.metrics import OTHER
from blockwright.nbd.server.server import Server
from blockwright.nbd.wire import Command
from blockwright.units import format_size, parse_size


def main(address: str, size: str) -> None:
    device = MemoryDevice(parse_size(size))
    rules = access_list(["127.0.0.0/8", "::1"], readers=["0.0.0.0/0", "::/0"])
    listeners = listen_tcp(*parse_host_port(address))
    export = Export("", device, description="memory", access=rules)
    with closing_all(listeners), Server([export], [each.socket for each in listeners]) as server:
        for each in listeners:
            print(each.uri, flush=True)
        with suppress(KeyboardInterrupt):
            server.wait()
    for number, totals in server.options.metrics.export("").commands().items():
        name = "other" if number == OTHER else Command(number).name.lower()
        print(f"{name}: {totals.requests} requests, {format_size(totals.bytes)}")
    print(f"memory in use: {format_size(device.allocated)}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
