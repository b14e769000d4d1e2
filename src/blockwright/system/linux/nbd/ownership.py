"""Which network block devices are ours: on record from before the kernel is asked until they are free again.

A device is proven to be ours by the identifier it was attached with, and the thread that did it. Where a process died
before it could note which device it got, the identifier finds it.

Knows: the records, and the proof. Refuses to know: how devices are attached and detached.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import Any, Final

from blockwright.system.linux.nbd import state
from blockwright.system.linux.nbd.state import NbdState
from blockwright.system.linux.registry import Record, Registry

KIND: Final = "nbd"


class Ownership:
    """One device's record. ``identifier`` is what it is to be attached with."""

    def __init__(self, name: str, fields: dict[str, Any]) -> None:
        self._name = name
        self._fields = fields
        self._registry = Registry(KIND)

    @classmethod
    def intended(cls, identifier: str | None, **more: Any) -> Ownership:
        """Put on record that this thread is about to attach a device; ``more`` is kept beside."""
        name = uuid.uuid4().hex
        fields = {
            **more,
            "identifier": f"blockwright-{name}" if identifier is None else identifier,
            "task": threading.get_native_id(),
            "number": None,
        }
        found = cls(name, fields)
        found._registry.put(name, fields, owned=True)
        return found

    @property
    def identifier(self) -> str:
        """What the device is attached with."""
        return str(self._fields["identifier"])

    def by_this_thread(self) -> None:
        """Put on record that another thread, this one, attaches the device; what it is known by is its number."""
        self._fields |= {"task": threading.get_native_id(), "identifier": ""}
        self._registry.put(self._name, self._fields, owned=True)

    def attached(self, number: int, *, owned: bool) -> None:
        """Put on record which device it is, and that it stays when this process ends unless it is ``owned`` by it."""
        self._fields |= {"number": number}
        self._registry.put(self._name, self._fields, owned=owned)

    def is_attached(self) -> bool:
        """Whether the device is still attached as it was."""
        found = state.state(int(self._fields["number"]))
        return found is not None and _is(found, self._fields)

    def keep(self) -> None:
        """Put on record that the device stays when this process ends."""
        self._registry.put(self._name, self._fields, owned=False)

    def bind(self) -> None:
        """Put on record that the device is to go with this process."""
        self._registry.put(self._name, self._fields, owned=True)

    def forget(self) -> None:
        """Have no record. Idempotent."""
        self._registry.remove(self._name)


def device_of(record: Record) -> NbdState | None:
    """Return the device that a record of this boot tells of, None where it is not attached any more."""
    fields = record.fields
    if not record.current or not isinstance(fields.get("identifier"), str) or not isinstance(fields.get("task"), int):
        return None
    known = fields.get("number")
    for number in state.numbers() if known is None else [known] if isinstance(known, int) else []:
        found = state.state(number)
        if found is not None and _is(found, fields):
            return found
    return None


def _is(found: NbdState, fields: dict[str, Any]) -> bool:
    # Before Linux 5.14 no device has an identifier.
    return found.task == fields.get("task") and found.identifier in ("", fields.get("identifier"))


def records() -> Iterator[tuple[Record, NbdState | None]]:
    """Yield what is on record, each with its device as it is now, None where that is gone."""
    for record in Registry(KIND).records():
        yield record, device_of(record)


def forget(found: NbdState) -> None:
    """Have no record of an attachment that is over."""
    for record in Registry(KIND).records():
        fields = record.fields
        if fields.get("number") == found.number and fields.get("task") == found.task:
            Registry(KIND).remove(record.name)
