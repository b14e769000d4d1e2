"""What is done to images that are there: activated, stopped, taken up again, removed, and what they left swept up.

Volumes are what the pool's journal says. Everything here may be killed at any moment and done again.

Knows: the order in which volumes, runs and files go. Refuses to know: flags, and steps.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from blockwright.errors import Cancelled, InUse, NotFound, UsageError
from blockwright.journal import Lease
from blockwright.pipeline import claims, sboms, verdicts
from blockwright.pipeline.catalogue import Image
from blockwright.pipeline.context import Context
from blockwright.pipeline.images import Images, image_of
from blockwright.pipeline.keeping import Recorded, another, claimed, keeping
from blockwright.pipeline.locks import pauses
from blockwright.pipeline.objects import PART, object_lock, object_path, refuse, remove_object
from blockwright.pipeline.receipt import Receipt
from blockwright.pipeline.records import Run, busy
from blockwright.pipeline.runner import Outcome
from blockwright.pipeline.states import STEPS, Event, State
from blockwright.pipeline.steps import STEPS as FUNCTIONS
from blockwright.volume import Driver, VolumeInfo, open_pool
from blockwright.volume import State as VolumeState

STOP_S: Final = 30.0
"""How long a process is waited for that was asked to stop."""
_ACTIVE: Final = (VolumeState.ACTIVE, VolumeState.MOUNTED)


def activate(images: Images, image: Image, context: Context, name: str | None = None) -> Outcome:
    """Have a snapshot of the image active, called ``name``, and return the run with its receipt.

    Raises UsageError where the image is not ready, NotFound where it is another machine's, and what the pool's driver
    does.
    """
    if claims.is_claimed(images.runs.journal, image.id):
        return _activate_claimed(images, image, context, name)
    run = images.runs.find(image.id)
    if run is None:
        raise another(image)
    _check_ready(run)
    wanted = replace(run.request, activate=True, activation=name, sbom=False)  # a list that is lost is not made anew
    return images.go_on(replace(run, request=wanted), context)


def _check_ready(run: Run) -> None:
    if run.state not in (State.READY, State.ACTIVE):
        raise UsageError(f"{run.id}: activate: expected an image that is ready, found it {run.state.value}")


def _activate_claimed(images: Images, image: Image, context: Context, name: str | None) -> Outcome:
    """Do the step on the image's own host: its run's history goes on from there when it is asked for again."""
    step = FUNCTIONS[Event.ACTIVATE]
    with claimed(images, image) as kept:
        _check_ready(kept.run)
        run = replace(kept.run, request=replace(kept.run.request, activate=True, activation=name))
        receipts = list(kept.receipts)
        made = run.inputs([each for each in receipts if each.step is not Event.ACTIVATE])
        if receipts[-1].step is Event.ACTIVATE and step.holds(made, receipts[-1], context):
            return Outcome(run, receipts, ())
        done = kept.active(step.do(made, context))
    return Outcome(replace(run, state=State.ACTIVE), done, (Event.ACTIVATE,))


def deactivate(images: Images, image: Image, name: str | None = None) -> list[str]:
    """Have no path to snapshots of the image, or to the one called ``name``, and return which had one.

    What was written to them stays. Raises NotFound, InUse where somebody uses one.
    """
    with keeping(images, image) as kept, open_pool(kept.run.request.pool) as driver:
        run = kept.run
        snapshots = snapshots_of(driver, run)
        if name is not None and name not in {each.name for each in snapshots}:
            raise NotFound(f"{name}: no such snapshot of {run.volume}")
        done = []
        for each in snapshots:
            if each.state in _ACTIVE and name in (None, each.name):
                driver.deactivate(each.name)
                done.append(each.name)
        if run.state is State.ACTIVE and not any(each.state in _ACTIVE for each in snapshots_of(driver, run)):
            kept.inactive()
    return done


def snapshots_of(driver: Driver, run: Run) -> list[VolumeInfo]:
    """Return the snapshots of a run's volume."""
    return [each for each in driver.list() if each.origin == run.volume]


def remove(images: Images, image: Image, *, snapshots: bool = False) -> list[str]:
    """Have nothing left of the image, nor, with ``snapshots``, of its snapshots; return the volumes that are gone.

    Raises InUse where there are snapshots and ``snapshots`` was not said, or somebody uses one.
    """
    with keeping(images, image) as kept:
        run = kept.run
        gone = _remove_volumes(run, snapshots=snapshots)
        if run.state is State.ACTIVE:
            kept.inactive()
        sources = _fetched(images, run, kept.receipts)
        kept.forget()
        _remove_files(images, run, sources)
    return gone


def _remove_volumes(run: Run, *, snapshots: bool) -> list[str]:
    gone: list[str] = []
    try:
        driver = open_pool(run.request.pool)
    except NotFound:
        return gone
    with driver:
        driver.reconcile()
        found = snapshots_of(driver, run)
        if found and not snapshots:
            raise InUse(
                f"{run.volume}: has snapshots, {found[0].name} among them:"
                f" 'blockwright image rm --snapshots {run.id}' removes them too"
            )
        for each in found:
            if each.state is VolumeState.ACTIVE:
                driver.deactivate(each.name)
            driver.remove(each.name)
            gone.append(each.name)
        with suppress(NotFound):
            driver.remove(run.volume)
            gone.append(run.volume)
    return gone


def _fetched(images: Images, run: Run, receipts: Sequence[Receipt]) -> list[str]:
    """Return the files that were fetched for this run and for no other one."""
    others = {path for name, told in _every(images) if name != run.id for path in _objects(told)}
    return [each for each in _objects(receipts) if each not in others]


def _every(images: Images) -> list[tuple[str, Sequence[Receipt]]]:
    """Return all runs of this machine's, whichever engine has them, with their receipts."""
    found: list[tuple[str, Sequence[Receipt]]] = [(run.id, images.runs.receipts(run.id)) for run in images.runs.all()]
    for each in _claimed(images):
        found.append((each.id, images.receipts(each)))  # noqa: PERF401 - two kinds, one list
    return found


def _claimed(images: Images) -> list[Image]:
    """Return the images here whose runs are Temporal's, with their receipts."""
    mine = [each for each in images.list() if claims.is_claimed(images.runs.journal, each.id)]
    return [images.catalogue.get(each.id) or each for each in mine]


def _objects(receipts: Sequence[Receipt]) -> list[str]:
    outputs = [each.outputs for each in receipts if each.step is Event.DOWNLOAD]
    found = [one for each in outputs for one in (each, *each.get("layers", ()))]
    return [str(each["path"]) for each in found if each["kind"] == "object"]


def _remove_files(images: Images, run: Run, objects: list[str]) -> None:
    for path in objects:
        with suppress(InUse), object_lock(images.home, path, refuse):
            if _unneeded(images, path) is not None:
                remove_object(path)
    sboms.remove(images.home, run.id)
    verdicts.remove(images.runs.journal, run.id)
    shutil.rmtree(images.home.work(run.id), ignore_errors=True)


def cancel(images: Images, image: Image, wait_s: float = STOP_S) -> State:
    """Have nobody at the run any more, which is cancelled then, and return its state.

    One that is ready stays so. Raises InUse where the process that is at it has not stopped in time.
    """
    if claims.is_claimed(images.runs.journal, image.id):
        raise claims.elsewhere(image.id)
    images.runs.cancel(image.id)
    end = time.monotonic() + wait_s
    for pause in pauses():
        try:
            with keeping(images, image) as kept:
                assert isinstance(kept, Recorded), "others were refused"
                if kept.run.state in (State.NEW, State.FETCHED, State.VERIFIED, State.SCANNED):
                    return _cancelled(images, kept.run, kept.lease)
                return kept.run.state
        except InUse:
            if time.monotonic() > end:
                raise
        time.sleep(pause)
    raise AssertionError("pauses have no end")


def _cancelled(images: Images, run: Run, lease: Lease) -> State:
    """Have a run cancelled that a dead process left: what it was at is taken back."""
    receipts = images.runs.receipts(run.id)
    step = STEPS[len(receipts)]
    with Context(images.home) as context:
        FUNCTIONS[step].undo(run.inputs(receipts), context)
    shutil.rmtree(images.home.work(run.id), ignore_errors=True)
    return images.runs.end(lease, run.id, Event.CANCEL, step, Cancelled("cancelled"))


def retry(images: Images, image: Image, context: Context) -> Outcome:
    """Have a run go on that failed, was cancelled, or was left by a dead process. Raises what its steps raise."""
    if claims.is_claimed(images.runs.journal, image.id):
        raise claims.elsewhere(image.id)
    run = images.runs.get(image.id)
    owner = images.runs.worker(run.id)
    if owner is not None:
        raise busy(run.id, owner)
    return images.go_on(run, context)


def sweep(images: Images, *, dry_run: bool = False, blobs: bool = False) -> list[str]:
    """Remove what no image needs, and return lines that say what: runs that failed, were cancelled or were left, with
    what they fetched; files of no run; volumes that such runs left half made.

    With ``blobs`` also what was fetched from registries for no image, which `build` may have kept for another time.
    """
    busy = _busy(images)
    lines = []
    for image in _ended(images, busy):
        lines.append(f"run {image.id}: {image.state}: {image.reference}")
        if not dry_run:
            with suppress(InUse, NotFound):
                remove(images, image)
    lines += _sweep_files(images, busy, dry_run=dry_run)
    if blobs and not busy:
        lines += _sweep_blobs(images, dry_run=dry_run)
    if not dry_run:
        claims.sweep(images.runs.journal)
    return lines


def _busy(images: Images) -> set[str]:
    """Return the runs that somebody is at now, or may be."""
    known = {each.id for each in images.list()}
    found = claims.busy(images.home, images.runs.journal, known.__contains__)
    return found | {run.id for run in images.runs.all() if images.runs.worker(run.id) is not None}


def _ended(images: Images, busy: Collection[str]) -> list[Image]:
    """Return what failed, was cancelled or was left."""
    found = [image_of(run, ()) for run in images.runs.all() if run.state not in (State.READY, State.ACTIVE)]
    found += [each for each in _claimed(images) if each.state in (State.FAILED.value, State.CANCELLED.value)]
    return [each for each in found if each.id not in busy]


def _sweep_blobs(images: Images, *, dry_run: bool) -> list[str]:
    """Remove blobs that no receipt names."""
    from blockwright.oci.blobs import BlobStore
    from blockwright.source.registry import blobs_directory

    kept, lines = {str(each) for _, told in _every(images) for each in _blobs(told)}, []
    for digest, path in BlobStore(blobs_directory()).files().items():
        if digest in kept:
            continue
        lines.append(f"blob {digest}: {os.stat(path).st_size} bytes")
        if not dry_run:
            os.unlink(path)
    return lines


def _blobs(receipts: Sequence[Receipt]) -> list[str]:
    found = [each for each in receipts if each.step is Event.DOWNLOAD]
    return [str(digest) for each in found for digest, _ in each.outputs.get("blobs", ())]


def _sweep_files(images: Images, busy: Collection[str], *, dry_run: bool) -> list[str]:
    lines = []
    for name in sorted({each.removesuffix(PART) for each in os.listdir(images.home.objects)}):
        path = os.path.join(images.home.objects, name)
        try:
            with object_lock(images.home, path, refuse):
                size = _unneeded(images, path)
                if size is None:
                    continue
                lines.append(f"object {name}: {size} bytes")
                if not dry_run:
                    remove_object(path)
        except InUse:
            continue  # somebody fetches it
    lines += _sweep_lists(images, busy, dry_run=dry_run)
    work = os.path.dirname(images.home.work(""))
    for name in sorted(os.listdir(work)):
        if name not in busy:
            lines.append(f"files of run {name}")
            if not dry_run:
                shutil.rmtree(os.path.join(work, name), ignore_errors=True)
    return lines


def _sweep_lists(images: Images, busy: Collection[str], *, dry_run: bool) -> list[str]:
    """Remove lists of what images hold that no receipt tells of."""
    needed = set[str]()
    for each in images.list():
        for receipt in images.receipts(images.catalogue.get(each.id) or each):
            kept = receipt.outputs.get("sbom") if receipt.step is Event.SCAN else None
            if kept and "digest" in kept:
                needed.add(sboms.path_of(images.home, each.id, kept))
    lines = []
    for path in sboms.unneeded(images.home, needed, busy):
        lines.append(f"SBOM {os.path.basename(path)}")
        if not dry_run:
            with suppress(FileNotFoundError):
                os.unlink(path)
    return lines


def _unneeded(images: Images, path: str) -> int | None:
    """Return the bytes of an object that no run has fetched or is about to, None for any other."""
    if any(path in _objects(told) for _, told in _every(images)):
        return None
    if claims.busy(images.home, images.runs.journal, {each.id for each in images.list()}.__contains__):
        return None  # nobody here knows what it is about to fetch
    for run in images.runs.all():
        if images.runs.worker(run.id) is None:
            continue
        # Which objects its layers are a run says when all of them are here.
        if run.identity["kind"] == "layers" or path == object_path(images.home, run.identity):
            return None
    return sum(os.stat(each).st_size for each in (path, path + PART) if os.path.exists(each))
