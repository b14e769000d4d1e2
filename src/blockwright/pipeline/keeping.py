"""An image to oneself, whichever engine has its run: what is on record of it, and how that changes.

A run of the journal is held by its lease. A run of Temporal's is held, on its own host, by the lock that its steps
take; what is on record of it here is the catalogue's, and its history is left as it is.

Knows: where either has what. Refuses to know: volumes, and why anything changes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from blockwright.errors import InUse, NotFound
from blockwright.journal import Lease
from blockwright.pipeline import claims
from blockwright.pipeline.catalogue import Image
from blockwright.pipeline.images import Images
from blockwright.pipeline.receipt import Receipt
from blockwright.pipeline.records import Run, busy
from blockwright.pipeline.request import Request
from blockwright.pipeline.states import Event, State


class Kept(Protocol):
    """An image that nobody else changes meanwhile."""

    @property
    def run(self) -> Run:
        """What is on record of it."""

    @property
    def receipts(self) -> Sequence[Receipt]:
        """What its steps did."""

    def inactive(self) -> None:
        """Have on record that no snapshot has a path."""

    def forget(self) -> None:
        """Have nothing on record."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An image whose run is in the journal."""

    images: Images
    run: Run
    lease: Lease

    @property
    def receipts(self) -> Sequence[Receipt]:
        """Of the journal."""
        return self.images.runs.receipts(self.run.id)

    def inactive(self) -> None:
        """Drop the receipt."""
        self.images.runs.drop(self.lease, self.run.id, Event.ACTIVATE, State.READY)

    def forget(self) -> None:
        """Remove the run."""
        self.images.runs.remove(self.lease, self.run.id)


@dataclass(frozen=True, slots=True)
class Claimed:
    """An image whose run is Temporal's, on its own host."""

    images: Images
    image: Image

    @property
    def run(self) -> Run:
        """What the catalogue knows: where it comes from and goes to. What else was asked for, history has."""
        image = self.image
        request = Request(image.reference, image.pool, scan="off")
        state = State(image.state)
        return Run(image.id, request, image.identity or {}, image.volume, state, trace=image.trace)

    @property
    def receipts(self) -> Sequence[Receipt]:
        """Of the catalogue."""
        return self.images.receipts(self.image)

    def inactive(self) -> None:
        """Have none of the catalogue's receipts tell of a snapshot."""
        self._put([each for each in self.receipts if each.step is not Event.ACTIVATE], State.READY)

    def active(self, receipt: Receipt) -> Sequence[Receipt]:
        """Have the catalogue's last receipt tell of a snapshot, and return all."""
        receipts = [*(each for each in self.receipts if each.step is not Event.ACTIVATE), receipt]
        self._put(receipts, State.ACTIVE)
        return receipts

    def _put(self, receipts: Sequence[Receipt], state: State) -> None:
        documents = [each.document() for each in receipts]
        changed_ns = max(time.time_ns(), self.image.changed_ns + 1)
        self.images.catalogue.put(replace(self.image, receipts=documents, state=state.value, changed_ns=changed_ns))

    def forget(self) -> None:
        """Remove it from the catalogue; a step that is late finds out."""
        claims.release(self.images.runs.journal, self.image.id)
        self.images.catalogue.remove(self.image.id)


@contextmanager
def keeping(images: Images, image: Image) -> Iterator[Kept]:
    """Have the image to oneself. Raises NotFound where it is another machine's, InUse where somebody is at it."""
    if claims.is_claimed(images.runs.journal, image.id):
        with claimed(images, image) as kept:
            yield kept
        return
    if images.runs.find(image.id) is None:
        raise another(image)
    try:
        lease = images.runs.take(image.id)
    except InUse:
        owner = images.runs.worker(image.id)
        if owner is None:
            raise
        raise busy(image.id, owner) from None
    try:
        yield Recorded(images, images.runs.get(image.id), lease)
    finally:
        images.runs.give_back(lease)
        images.publish()


@contextmanager
def claimed(images: Images, image: Image) -> Iterator[Claimed]:
    """Have an image of Temporal's to oneself, on its own host. Raises InUse, NotFound."""

    def refuse() -> None:
        raise InUse(f"run {image.id}: a worker of Temporal is at it: 'blockwright image cancel' stops it")

    with claims.lock(images.home, image.id, refuse):
        found = images.catalogue.get(image.id)
        if found is None:
            raise NotFound(f"{image.id}: no such image")
        yield Claimed(images, found)


def another(image: Image) -> NotFound:
    """Return what is raised of an image that another machine has."""
    where = f" on {image.host}" if image.host else ""
    return NotFound(f"{image.id}: is not of this machine: '--temporal ADDRESS --on HOST' does it{where}")
