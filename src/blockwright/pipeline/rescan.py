"""An image that is there is judged anew, by what is known today, from the list that was kept of what it holds.

Nothing is fetched, and no file of the image is read. Whatever is in doubt (no list, another one than the receipt
tells of, a list that lacks files, no scanner) is no verdict of "clean".

Knows: the order of things. Refuses to know: scanners, and how lists are made.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from blockwright.errors import BlockwrightError, NotFound, UsageError
from blockwright.pipeline import sboms
from blockwright.pipeline.catalogue import Image
from blockwright.pipeline.images import Images
from blockwright.pipeline.receipt import Receipt, check_chain
from blockwright.pipeline.states import Event, State
from blockwright.pipeline.verdicts import CLEAN, Judged
from blockwright.scan import Decision, LeftOut, Policy, Sbom, ScannerOptions, Verdict, rescan
from blockwright.scan.decision import instant, line_of
from blockwright.scan.sbom import parse_sbom
from blockwright.volume import State as VolumeState
from blockwright.volume import open_pool
from blockwright.volume.pool import look_up

_RESTING: Final = (State.READY.value, State.ACTIVE.value)


@dataclass(frozen=True, slots=True)
class How:
    """By what images are judged, and whether what is not clean may not be activated (``mode`` is ``enforce``)."""

    policy: Policy
    scanner: str | None
    options: ScannerOptions
    mode: str
    workdir: str


def judge(images: Images, image: Image, how: How) -> Judged:
    """Return a new verdict on an image, which is on record then.

    Raises UsageError for an image that is not ready, or another scanner, NotFound for a program that is not there.
    """
    if image.state not in _RESTING:
        raise UsageError(f"{image.id}: scan: expected an image that is ready, found it {image.state}")
    begun_ns = time.time_ns()
    try:
        sbom, left_out = _list_of(images, image)
    except BlockwrightError as error:
        now = instant(datetime.now(UTC))
        verdict = Verdict(Decision.FAILED, policy_digest=how.policy.digest, when=now, reason=str(error))
        line = line_of(verdict, how.policy)
    else:
        outcome = rescan(
            sbom,
            policy=how.policy,
            scanner=how.scanner,
            workdir=how.workdir,
            options=how.options,
            left_out=left_out,
        )
        verdict, line = outcome.verdict, outcome.line
    judged = Judged(image.id, begun_ns, how.mode, verdict.decision.value, f"scan: {line}", verdict.to_json())
    images.judged(image, judged)
    return judged


def _list_of(images: Images, image: Image) -> tuple[Sbom, LeftOut]:
    """Return the list that was kept of an image, and which files it lacks. Raises NotFound, FormatError and such."""
    receipts = images.receipts(image)
    check_chain(receipts)
    kept = next((_kept_of(each) for each in receipts if each.step is Event.SCAN), None)
    data = sboms.read(images.home, image.id, kept)
    assert kept is not None, "what was read is told of"
    left = kept["left_out"]
    return parse_sbom(data, sboms.path_of(images.home, image.id, kept)), LeftOut(
        int(left["files"]), int(left["size"]), tuple(str(each) for each in left["names"])
    )


def _kept_of(receipt: Receipt) -> dict[str, Any] | None:
    found = receipt.outputs.get("sbom")
    return found if isinstance(found, dict) else None


def here(images: Images) -> list[Image]:
    """Return the images that are ready and whose volumes are on this machine, with their receipts."""
    found = []
    for each in images.list():
        if each.state not in _RESTING:
            continue
        try:
            look_up(each.pool, each.volume)
        except NotFound:
            continue
        found.append(images.catalogue.get(each.id) or each)
    return found


def active_of(image: Image) -> list[str]:
    """Return the names of an image's snapshots that are active; of a pool that cannot be asked, what is on record."""
    try:
        with open_pool(image.pool) as driver:
            return [
                each.name
                for each in driver.list()
                if each.origin == image.volume and each.state in (VolumeState.ACTIVE, VolumeState.MOUNTED)
            ]
    except NotFound:
        return []
    except BlockwrightError:
        steps = {each["step"]: each["outputs"] for each in image.receipts}
        known = steps.get(Event.ACTIVATE.value)
        return [str(known["snapshot"])] if known and image.state == State.ACTIVE.value else []


def is_clean(judged: Judged) -> bool:
    """Whether nothing was found, and nothing is in doubt."""
    return judged.decision == CLEAN
