"""What a step works with: where things are kept, who is told of progress, and the source.

That is opened once however many steps read it, and stays in this process, unlike ``Inputs``.

Knows: their shape, and how a fetched source is opened. Refuses to know: what steps do.
"""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

from blockwright.errors import Cancelled, Corrupt
from blockwright.pipeline.home import Home
from blockwright.pipeline.inputs import Inputs
from blockwright.pipeline.receipt import Receipt, tools
from blockwright.pipeline.request import Request
from blockwright.pipeline.states import Event
from blockwright.volume.steps import Checkpoint, unwatched

if TYPE_CHECKING:  # what is ready already opens no source
    from blockwright.oci.choice import Choice
    from blockwright.source import Source
    from blockwright.source.stack import Fetched
    from blockwright.tree.node import Directory
    from blockwright.tree.rules import ArchiveRules

Progress = Callable[[str, int, int], None]
"""``progress(what, done, total)`` in bytes; a total of 0 is one that nobody knows."""

_Kept = TypeVar("_Kept")


def _silent(_what: str, _done: int, _total: int) -> None:
    """Show nothing."""


def _go_on() -> None:
    """Let everything go on."""


@dataclass
class Context:
    """What steps work with. ``checkpoint`` is told of every place at which a process can die; ``tell`` takes lines
    for people; ``stop`` raises Cancelled where the run is not wanted any more. Close it.
    """

    home: Home
    host: str = field(default_factory=platform.node)
    attempt: int = 1
    verify: bool = False
    """Whether what was done before is read, and not only looked for."""
    checkpoint: Checkpoint = unwatched
    tell: Callable[[str], None] = lambda _line: None
    progress: Progress = _silent
    stop: Callable[[], None] = _go_on
    tree: Directory | None = None
    """What the source holds, where a step has read it."""
    readable: bool = False
    """Whether what its files hold can be read anywhere, and more than once."""
    _source: Source | None = None
    _owned: ExitStack = field(default_factory=ExitStack)

    def receipt(self, inputs: Inputs, step: Event, started_ns: int, outputs: Mapping[str, Any]) -> Receipt:
        """Return the receipt of a step that is done now."""
        before = inputs.receipts[-1].digest if inputs.receipts else ""
        return Receipt(
            inputs.run, step, outputs, started_ns, time.time_ns(), self.host, self.attempt, before, tools()
        )

    def watch(self, what: str) -> Callable[[int, int], None]:
        """Return what is told of progress in bytes, and breaks off a run that is not wanted any more."""

        def told(done: int, total: int) -> None:
            self.stop()
            self.progress(what, done, total)

        return told

    def source(self, inputs: Inputs) -> Source:
        """Return the fetched source, open; the same one again as long as nobody has read what passes once."""
        if self._source is None:
            self._source = self._owned.enter_context(open_fetched(inputs))
        return self._source

    def forget(self) -> None:
        """Close the source, so that the next one who asks gets it from its beginning."""
        self._source = self.tree = None
        self.readable = False
        self._owned.close()

    def clean(self, run: str) -> None:
        """Have nothing in the folder of a run."""
        shutil.rmtree(self.home.work(run), ignore_errors=True)

    def keep(self, device: AbstractContextManager[_Kept]) -> _Kept:
        """Return what was entered, which is left when the source is let go of."""
        return self._owned.enter_context(device)

    def close(self) -> None:
        """Close what is open."""
        self.forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def rules_of(request: Request) -> ArchiveRules:
    """Return what is taken in of an archive. Raises Corrupt for limits that are none."""
    from blockwright.tree.rules import ArchiveRules, Xattrs

    given = dict(request.limits or {})
    for name, value in given.items():
        if name != "xattrs" and (type(value) not in (int, float) or not value > 0):
            raise Corrupt(f"request: limits: {name}: expected a number above 0, found {str(value)[:64]}")
    try:
        if "xattrs" in given:
            given["xattrs"] = Xattrs(given["xattrs"])
        return ArchiveRules(**given)
    except (TypeError, ValueError) as error:
        raise Corrupt(f"request: limits: {error}") from None


def choice_of(request: Request) -> Choice:
    """Return which image is meant where there are several."""
    from blockwright.oci.choice import Choice
    from blockwright.oci.platform import parse_platform

    return Choice(None if request.platform is None else parse_platform(request.platform), request.image)


def open_fetched(inputs: Inputs) -> Source:
    """Return the source as the first step left it; raises as ``open_source`` does.

    No network is asked.
    """
    request, fetched = inputs.request, inputs.outputs(Event.DOWNLOAD)
    rules, choice = rules_of(request), choice_of(request)
    if fetched["kind"] == "registry":
        return _open_image(fetched["manifest"], rules, choice, request.reference)
    from blockwright.source import open_sources

    if "layers" in fetched:
        from blockwright.source.stack import open_fetched as open_several

        return open_several([_fetched(each) for each in fetched["layers"]], rules, choice)
    name = str(fetched["path"])
    if fetched["kind"] == "object" and "part" not in fetched:
        from blockwright.source.archive import open_file

        return open_file(name, rules, choice, str(inputs.identity["uri"]))
    if "part" in fetched:
        name = f"{name}:{fetched['part']}"
    return open_sources((name,), rules=rules, choice=choice, layers=request.layers)


def _fetched(found: Mapping[str, Any]) -> Fetched:
    """Return one of several references as the first step left it."""
    from blockwright.source.stack import Fetched

    name = str(found["uri"])
    if found["kind"] == "registry":
        return Fetched(name, image=_image(found["manifest"]))
    return Fetched(name, str(found["path"]), found.get("digest"))


def _image(manifest: Mapping[str, Any]) -> Directory:
    """Return an image whose blobs were fetched as an OCI layout."""
    from blockwright.oci.blobs import BlobStore
    from blockwright.oci.manifest import Descriptor
    from blockwright.oci.pull import stored
    from blockwright.source.registry import blobs_directory

    described = Descriptor(str(manifest["type"]), str(manifest["digest"]), int(manifest["size"]))
    return stored(BlobStore(blobs_directory()), described)


def _open_image(manifest: Mapping[str, Any], rules: ArchiveRules, choice: Choice, name: str) -> Source:
    from blockwright.oci.image import layers_of
    from blockwright.source.layered import LayeredSource

    layers = layers_of(_image(manifest), choice._replace(name=None), name)
    return LayeredSource(layers, name, rules, ExitStack())


def cancelled(run: str) -> Cancelled:
    """Return what a run that is not wanted any more raises."""
    return Cancelled(f"run {run}: was cancelled: 'blockwright image retry {run}' goes on with it")
