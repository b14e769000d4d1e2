"""Images as people have them: asked for, listed, activated, removed. What each command is, in one call.

Knows: how journal, catalogue and volumes go together. Refuses to know: flags, and how anything is shown.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Self

from blockwright.errors import Corrupt, NotFound, UsageError
from blockwright.pipeline import verdicts
from blockwright.pipeline.catalogue import Catalogue, Image, SqliteCatalogue, set_aside
from blockwright.pipeline.home import Home
from blockwright.pipeline.receipt import Receipt
from blockwright.pipeline.records import Run, Runs
from blockwright.pipeline.states import Event, State
from blockwright.pipeline.verdicts import Judged

if TYPE_CHECKING:  # who lists images runs none
    from blockwright.pipeline.context import Context
    from blockwright.pipeline.request import Request
    from blockwright.pipeline.runner import Outcome

SETTING: Final = "BLOCKWRIGHT_CATALOGUE"
"""The environment's word for the catalogue's address, ``postgresql://…``; a file of one's own where it is empty."""
LEAST_PREFIX: Final = 4
"""Digits of a run's name that stand for it."""


class Images:
    """The images of one home. Use it as a context manager, or ``close`` it."""

    def __init__(self, home: Home | None = None, catalogue: Catalogue | None = None) -> None:
        self.home = home or Home.default()
        self.runs = Runs(self.home)
        try:
            self.catalogue = catalogue or self._opened()
            self.publish()
        except BaseException:
            self.runs.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close journal and catalogue."""
        self.catalogue.close()
        self.runs.close()

    def _opened(self) -> Catalogue:
        """Return the catalogue; of one that is gone, or does not hold and is set aside, a new one.

        It is filled by ``publish``, which never removes what another process may have put there by now.
        """
        address = os.environ.get(SETTING, "")
        if address and not address.startswith(("postgresql://", "postgres://")):
            raise UsageError(f"{SETTING}: expected postgresql://HOST/DATABASE, found another address")
        self._follow(address)
        if address:
            from blockwright.pipeline.postgres import PostgresCatalogue, keeper_of

            shared = PostgresCatalogue(address, keeper_of(self.home))
            if shared.fresh:
                self.runs.untell()
            return shared
        path = self.home.catalogue
        if os.path.exists(path):
            try:
                return SqliteCatalogue(path)
            except Corrupt:
                set_aside(path, time.time_ns())
        found = SqliteCatalogue(path)
        self.runs.untell()
        return found

    def _follow(self, address: str) -> None:
        """Have all runs told to this catalogue where another one heard of them last."""
        digest = hashlib.sha256(address.encode("utf-8", "surrogateescape")).hexdigest() if address else ""
        path = os.path.join(self.home.folder, "told")
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                last = file.read(100)
        except FileNotFoundError:
            last = ""
        if last != digest:
            self.runs.untell()  # before the note: who dies in between does it again
            with open(f"{path}.{os.getpid()}", "w", encoding="ascii") as file:
                file.write(digest)
            os.replace(file.name, path)

    # -- the catalogue follows the journal -------------------------------------------------------------------

    def publish(self) -> None:
        """Have the catalogue know of every run what the journal knows; a dead process may not have got to it."""
        self.runs.clear()
        for run in self.runs.untold():
            if run.state is State.ABSENT:
                self.catalogue.remove(run.id)
                self.runs.forget(run)
            else:
                self.catalogue.put(self._image(run))
                self.runs.told(run)
                now = self.runs.find(run.id)
                if now is None or now.state is State.ABSENT:  # removed by another process meanwhile
                    self.catalogue.remove(run.id)

    def rebuild(self) -> int:
        """Make the catalogue anew from runs and receipts, and return how many images it has."""
        found = [self._image(run) for run in self.runs.all()]
        self.catalogue.replace(found)
        self.runs.untell()  # another process may have put one there meanwhile
        self.publish()
        return len(found)

    def _image(self, run: Run) -> Image:
        return self.image_of(run, self.runs.receipts(run.id))

    def image_of(self, run: Run, receipts: Sequence[Receipt]) -> Image:
        """Return a run as the catalogue is to have it, with the newest verdict that there is."""
        found = image_of(run, receipts)
        judged = verdicts.later(self.runs.journal, run.id, receipts)
        return found if judged is None else replace(found, verdict=judged.line)

    def judged(self, image: Image, judged: Judged) -> None:
        """Have a verdict on an image on record, and the catalogue know of it."""
        verdicts.add(self.runs.journal, judged)
        if self.runs.find(image.id) is not None:
            self.runs.untell(image.id)
            self.publish()
        else:
            self.catalogue.put(replace(image, verdict=judged.line, changed_ns=max(judged.when_ns, image.changed_ns)))

    # -- what is there ---------------------------------------------------------------------------------------

    def list(self) -> list[Image]:
        """Return all images, the oldest first, without receipts."""
        return self.catalogue.images()

    def find(self, name: str) -> Image:
        """Return the image that is called so: by its run or the beginning of that, its volume, or its reference.

        Raises NotFound, and UsageError where several are meant.
        """
        every = self.catalogue.images()
        plain, path = name.removeprefix("volume:").rpartition("/")[2], os.path.abspath(name)
        for found in (
            [each for each in every if each.id == name],
            [each for each in every if plain == each.volume or each.reference in (name, path)],
            [each for each in every if len(name) >= LEAST_PREFIX and each.id.startswith(name)],
        ):
            if len({each.id for each in found}) == 1:  # the same one on several machines is one
                return self.catalogue.get(found[0].id) or found[0]
            if found:
                shown = ", ".join(each.id for each in found[:8])
                raise UsageError(f"{name}: expected one image, found {len(found)}: {shown}")
        raise NotFound(f"{name}: no such image: 'blockwright image ls' lists them")

    # -- what is done ----------------------------------------------------------------------------------------

    def fetch(self, request: Request, context: Context, told: Callable[[Run], None] | None = None) -> Outcome:
        """Have the image that is asked for, in a volume; ``told`` hears of the run before it is begun.

        Raises what the steps raise. Whatever happens, the catalogue knows of it.
        """
        from blockwright.pipeline.identity import identify

        identity = identify(request)
        name = request.run_of(identity)
        known = self.runs.find(name)
        wanted = Run(name, request, identity, request.volume_of(name), State.NEW) if known is None else known
        wanted = replace(wanted, request=request, identity=identity)
        return self.go_on(wanted, context, told)

    def go_on(self, wanted: Run, context: Context, told: Callable[[Run], None] | None = None) -> Outcome:
        """Have a run done that is as ``wanted``. Raises what the steps raise."""
        from blockwright.pipeline.runner import Runner
        from blockwright.volume.info import check_name

        check_name(wanted.request.pool, "pool")
        if wanted.request.activation is not None:
            check_name(wanted.request.activation)
        if told is not None:
            told(wanted)
        try:
            return Runner(self.runs, context).run(wanted)
        finally:
            self.publish()

    def receipts(self, image: Image) -> Sequence[Receipt]:
        """Return an image's receipts. Raises Corrupt."""
        return [Receipt.parse(each, self.home.catalogue) for each in image.receipts]


def image_of(run: Run, receipts: Sequence[Receipt]) -> Image:
    """Return a run as a catalogue has it."""
    outputs = {each.step: each.outputs for each in receipts}
    identity = run.identity
    digest = next((str(identity[key]) for key in ("digest", "etag", "metadata") if identity.get(key)), "")
    return Image(
        id=run.id,
        reference=run.request.named,
        state=run.state.value,
        pool=run.request.pool,
        volume=run.volume,
        host=receipts[-1].host if receipts else "",
        digest=digest,
        volume_bytes=int(outputs.get(Event.VERIFY, {}).get("volume_bytes", 0)),
        content_bytes=int(outputs.get(Event.VERIFY, {}).get("content_bytes", 0)),
        verdict=str(outputs.get(Event.SCAN, {}).get("line", "")),
        trouble=run.trouble or "",
        failed=run.failed or "",
        trace=run.trace,
        created_ns=run.created_ns,
        changed_ns=run.changed_ns,
        identity=identity,
        receipts=[each.document() for each in receipts],
    )
