"""A server as it is now, as one JSON document: what the live page shows, and whoever else asks.

The document's schema is ``blockwright.serve.live/1`` (docs/pictures.md). Counts only grow; rates are for readers to
compute, from two documents and their ``uptime_ns``. However many exports and clients there are, the document names
``MAX_EXPORTS`` and ``MAX_CLIENTS`` of them, and the blocks of one.

Knows: what is told. Refuses to know: who asks, and how it is shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from blockwright.draw.words import plain
from blockwright.nbd.server.export import Served
from blockwright.nbd.server.heat import Heat
from blockwright.nbd.server.metrics import BUCKETS_US, OTHER, CommandMetrics
from blockwright.nbd.server.server import Server
from blockwright.nbd.wire import Command

SCHEMA: Final = "blockwright.serve.live/1"
MAX_EXPORTS: Final = 200
MAX_CLIENTS: Final = 100


def document(server: Server, uptime_ns: Callable[[], int], chosen: str | None) -> bytes:
    """Return the document. ``chosen`` names the export whose blocks are told; for None, the first one's are."""
    exports = sorted(server.catalogue.all(), key=lambda each: each.export.name)
    connections = server.connections
    heated = next((each for each in exports if each.export.name == chosen), next(iter(exports), None))
    return json.dumps(
        {
            "schema": SCHEMA,
            "uptime_ns": uptime_ns(),
            "connections": len(connections),
            "connections_limit": server.options.limits.connections,
            "bytes_in_flight": server.bytes_in_flight,
            "bytes_in_flight_limit": server.options.limits.bytes_in_flight,
            "latency_bounds_us": list(BUCKETS_US),
            "events": {f"{event}{f': {why}' if why else ''}": n for (event, why), n in _events(server)},
            "exports": [_export(server, each) for each in exports[:MAX_EXPORTS]],
            "exports_total": len(exports),
            "heat": None if heated is None else _heat(server, heated),
            "clients": [
                {"peer": plain(str(each.peer)), "export": None if each.export is None else plain(each.export)}
                for each in connections[:MAX_CLIENTS]
            ],
        }
    ).encode()


def _events(server: Server) -> list[tuple[tuple[str, str], int]]:
    return sorted(server.options.metrics.events().items())


def _export(server: Server, served: Served) -> dict[str, Any]:
    export = served.export
    commands = server.options.metrics.export(export.name).commands()
    size = served.opened.size
    writable = None if size is None else not export.read_only and served.opened.device.traits.writable
    return {
        "name": export.name,
        "shown": plain(export.name) or "(default)",
        "description": plain(export.description),
        "size": size,
        "writable": writable,
        "sessions": served.connections,
        "commands": {_name(number): _totals(each) for number, each in sorted(commands.items())},
    }


def _name(number: int) -> str:
    return "other" if number == OTHER else Command(number).name.lower()


def _totals(each: CommandMetrics) -> dict[str, Any]:
    return {
        "requests": each.requests,
        "errors": each.errors,
        "bytes": each.bytes,
        "nanoseconds": each.nanoseconds,
        "latency": each.buckets,
    }


def _heat(server: Server, served: Served) -> dict[str, Any]:
    name = served.export.name
    untouched = Heat(served.opened.size or 0).snapshot()
    found = untouched + server.options.metrics.export(name).heat()
    return {"export": name, "block": 1 << found.shift, "read": found.reads, "written": found.writes}
