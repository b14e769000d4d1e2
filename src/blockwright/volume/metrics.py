"""What pools and their volumes are like, as Prometheus has it (text format 0.0.4), and as a file that it picks up.

Operations are counted in each pool's journal, so that every process's are told. Knows: names and how they are
written. Refuses to know: who asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from blockwright.errors import BlockwrightError
from blockwright.journal import BUCKETS_S, Tally
from blockwright.volume.found import PoolStatus
from blockwright.volume.info import State, VolumeInfo
from blockwright.volume.pool import open_pool
from blockwright.volume.spec import write_file

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PREFIX: Final = "blockwright_"
DONE: Final = frozenset({"done", "finished"})
"""Outcomes of operations that are no error."""

Labels = tuple[tuple[str, str], ...]
Samples = Iterable[tuple[Labels, int | float]]


class Exposition:
    """Lines of the text, family by family."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(self, name: str, kind: str, text: str, samples: Samples) -> None:
        """Add one metric."""
        self._lines += [f"# HELP {PREFIX}{name} {text}", f"# TYPE {PREFIX}{name} {kind}"]
        self._lines += [
            f"{PREFIX}{name}{_labels(labels)} {value:g}"
            if isinstance(value, float)
            else f"{PREFIX}{name}{_labels(labels)} {value}"
            for labels, value in samples
        ]

    def histogram(self, name: str, text: str, found: Iterable[tuple[Labels, Sequence[Tally]]]) -> None:
        """Add a histogram of seconds."""
        whole = f"{PREFIX}{name}"
        self._lines += [f"# HELP {whole} {text}", f"# TYPE {whole} histogram"]
        for labels, tallies in found:
            below = 0
            for number, most in enumerate(BUCKETS_S):
                below += sum(each.count for each in tallies if each.bucket == number)
                self._lines.append(f"{whole}_bucket{_labels((*labels, ('le', f'{most:g}')))} {below}")
            count = sum(each.count for each in tallies)
            self._lines.append(f"{whole}_bucket{_labels((*labels, ('le', '+Inf')))} {count}")
            self._lines.append(f"{whole}_sum{_labels(labels)} {sum(each.seconds for each in tallies):.6f}")
            self._lines.append(f"{whole}_count{_labels(labels)} {count}")

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"


def render(names: Sequence[str]) -> str:
    """Return the metrics of pools as text. A pool that cannot be looked at is told as not up."""
    statuses: dict[str, PoolStatus] = {}
    volumes: dict[str, list[VolumeInfo]] = {}
    tallies: dict[str, list[Tally]] = {}
    pending: dict[str, int] = {}
    for name in names:
        try:
            with open_pool(name) as pool:
                statuses[name] = pool.status()
                volumes[name], tallies[name] = pool.list(), pool.journal.tallies()
                pending[name] = len(pool.journal.intents())
        except (BlockwrightError, OSError):
            statuses.setdefault(name, PoolStatus(up=False, data_used=0, data_total=0))
    text = Exposition()
    _pools(text, statuses, pending)
    _volumes(text, volumes)
    _operations(text, tallies)
    return str(text)


def write_textfile(path: str, names: Sequence[str]) -> None:
    """Have the metrics at ``path``, which is never seen half written. Raises OSError."""
    write_file(path, render(names).encode(), mode=0o644)


def _pools(text: Exposition, statuses: dict[str, PoolStatus], pending: dict[str, int]) -> None:
    found = [(_pool(name), status) for name, status in statuses.items()]
    text.family("pool_up", "gauge", "Whether the pool can be used.", [(at, int(each.up)) for at, each in found])
    sound = [(at, int(each.up and not each.health)) for at, each in found]
    text.family("pool_healthy", "gauge", "Whether nothing is wrong with it.", sound)
    for name, what in (
        ("data_used", "Bytes of data that volumes take."),
        ("data_total", "Bytes of data that they may take."),
        ("metadata_used", "Bytes that the pool's metadata takes."),
        ("metadata_total", "Bytes that it may take; 0 where it has no space of its own."),
    ):
        text.family(f"pool_{name}_bytes", "gauge", what, [(at, int(getattr(each, name))) for at, each in found])
    waiting = [(_pool(name), count) for name, count in pending.items()]
    text.family("pool_intents", "gauge", "Operations that are begun and not settled.", waiting)


def _volumes(text: Exposition, volumes: dict[str, list[VolumeInfo]]) -> None:
    states = [
        ((*_pool(name), ("state", state.value)), sum(each.state is state for each in found))
        for name, found in volumes.items()
        for state in State
        if state is not State.ABSENT
    ]
    text.family("volumes", "gauge", "Volumes, snapshots among them, by state.", states)
    snapshots = [(_pool(name), sum(each.origin is not None for each in found)) for name, found in volumes.items()]
    text.family("snapshots", "gauge", "Volumes that are snapshots of another.", snapshots)
    sizes = [(_pool(name), sum(each.size for each in found)) for name, found in volumes.items()]
    text.family("volumes_bytes", "gauge", "Sizes of all volumes together.", sizes)


def _operations(text: Exposition, tallies: dict[str, list[Tally]]) -> None:
    ended: dict[Labels, int] = {}
    failed: dict[Labels, int] = {}
    times: dict[Labels, list[Tally]] = {}
    for name, found in tallies.items():
        for each in found:
            labels = (*_pool(name), ("operation", each.operation))
            if each.outcome in DONE:
                ended[labels] = ended.get(labels, 0) + each.count
                times.setdefault(labels, []).append(each)
            else:
                kind = (*labels, ("kind", each.outcome))
                failed[kind] = failed.get(kind, 0) + each.count
    text.family("volume_operations_total", "counter", "Operations that succeeded.", ended.items())
    text.family("volume_errors_total", "counter", "Operations that failed, by kind of error.", failed.items())
    text.histogram("volume_operation_duration_seconds", "Seconds that those took that succeeded.", times.items())


def _pool(name: str) -> Labels:
    return (("pool", name),)


def _labels(labels: Labels) -> str:
    """Return labels as the text has them; names of pools and errors hold nothing to be escaped."""
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}" if labels else ""
