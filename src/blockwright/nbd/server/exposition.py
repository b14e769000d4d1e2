"""A server's totals in the text format of Prometheus (version 0.0.4).

Knows: names, labels and how they are written. Refuses to know: who asks, and what counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from blockwright.nbd.server.metrics import BUCKETS_US, OTHER, CommandMetrics, ServerMetrics
from blockwright.nbd.wire import Command

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PREFIX: Final = "blockwright_nbd"

_EVENTS: Final = {
    "accepted": ("connections_total", "Connections that were taken."),
    "refused": ("connections_refused_total", "Connections over a limit, by that limit."),
    "not accepted": ("accepts_failed_total", "Tries to take a connection that failed, by the system's error."),
    "option refused": ("options_refused_total", "Options of handshakes that were answered with an error, by it."),
    "ended": ("connections_ended_total", "Connections that have ended, by how."),
}
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Gauges:
    """What a server holds at this moment."""

    connections: int = 0
    bytes_in_flight: int = 0
    bytes_in_flight_limit: int = 0
    connections_by_export: Mapping[str, int] = field(default_factory=dict)


def render(metrics: ServerMetrics, gauges: Gauges) -> str:
    """Return all totals as text; one sample a line, in an order that does not change."""
    lines: list[str] = []
    _gauge(lines, "connections", "Connections under way.", [((), gauges.connections)])
    _gauge(lines, "bytes_in_flight", "Bytes that requests under way hold.", [((), gauges.bytes_in_flight)])
    _gauge(lines, "bytes_in_flight_limit", "Bytes that they may hold.", [((), gauges.bytes_in_flight_limit)])
    by_export = [((("export", name),), count) for name, count in sorted(gauges.connections_by_export.items())]
    _gauge(lines, "export_connections", "Sessions under way, by export.", by_export)
    events = metrics.events()
    for event, (name, text) in _EVENTS.items():
        found = sorted((reason, count) for (kind, reason), count in events.items() if kind == event)
        samples = [((("reason", reason),) if reason else (), count) for reason, count in found]
        _family(lines, name, "counter", text, samples)
    _render_commands(lines, metrics)
    return "\n".join(lines) + "\n"


def _render_commands(lines: list[str], metrics: ServerMetrics) -> None:
    found = [
        ((("export", export), ("command", _command(number))), totals)
        for export, each in sorted(metrics.exports().items())
        for number, totals in sorted(each.commands().items())
    ]
    requests = [(labels, totals.requests) for labels, totals in found]
    errors = [(labels, totals.errors) for labels, totals in found]
    _family(lines, "requests_total", "counter", "Requests that were answered.", requests)
    _family(lines, "request_errors_total", "counter", "Requests that were answered with an error.", errors)
    moved = [(labels, totals.bytes) for labels, totals in found]
    _family(lines, "request_bytes_total", "counter", "Bytes that requests were about.", moved)
    name = f"{PREFIX}_request_duration_seconds"
    _header(lines, name, "histogram", "Seconds from a request's arrival to its reply.")
    for labels, totals in found:
        lines += _histogram(name, labels, totals)


def _histogram(name: str, labels: Labels, totals: CommandMetrics) -> Iterable[str]:
    below = 0
    for bound_us, count in zip(BUCKETS_US, totals.buckets, strict=False):
        below += count
        yield f"{name}_bucket{_labels((*labels, ('le', _number(bound_us / 1e6))))} {below}"
    yield f"{name}_bucket{_labels((*labels, ('le', '+Inf')))} {totals.requests}"
    yield f"{name}_sum{_labels(labels)} {_number(totals.nanoseconds / 1e9)}"
    yield f"{name}_count{_labels(labels)} {totals.requests}"


def _gauge(lines: list[str], name: str, text: str, samples: Iterable[tuple[Labels, int]]) -> None:
    _family(lines, name, "gauge", text, samples)


def _family(lines: list[str], name: str, kind: str, text: str, samples: Iterable[tuple[Labels, int]]) -> None:
    _header(lines, f"{PREFIX}_{name}", kind, text)
    lines += [f"{PREFIX}_{name}{_labels(labels)} {value}" for labels, value in samples]


def _header(lines: list[str], name: str, kind: str, text: str) -> None:
    lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return f"{value:.9f}".rstrip("0").rstrip(".")


def _command(number: int) -> str:
    return "other" if number == OTHER else Command(number).name.lower()
