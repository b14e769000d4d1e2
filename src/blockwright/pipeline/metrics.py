"""What runs and images are like, as Prometheus has it (text format 0.0.4), and as a file that it picks up.

Steps are counted in the journal, so that every process's are told, those of killed ones up to their last commit.

Knows: names. Refuses to know: how they are written (``volume.metrics``), and who asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from blockwright.journal import Tally
from blockwright.pipeline.catalogue import Image
from blockwright.pipeline.images import Images
from blockwright.pipeline.states import Event, State
from blockwright.volume.metrics import Exposition, Labels
from blockwright.volume.spec import write_file

RETRIED: Final = "retried"
REJECTED: Final = "ArchiveRejected/"
"""What the outcome of a rejected archive begins with in the journal; the reason follows."""
_DONE: Final = "done"
_SIZES: Final = (
    ("fetched", Event.DOWNLOAD, "bytes"),
    ("content", Event.VERIFY, "content_bytes"),
    ("volume", Event.VERIFY, "volume_bytes"),
)


def render(images: Images) -> str:
    """Return the metrics as text."""
    text = Exposition()
    _images(text, [images.catalogue.get(each.id) or each for each in images.list()])
    _steps(text, images.runs.journal.tallies())
    return str(text)


def write_textfile(path: str, images: Images) -> None:
    """Have the metrics at ``path``, which is never seen half written. Raises OSError."""
    write_file(path, render(images).encode(), mode=0o644)


def _images(text: Exposition, found: Sequence[Image]) -> None:
    states = [
        ((("state", state.value),), sum(each.state == state.value for each in found))
        for state in State
        if state is not State.ABSENT
    ]
    text.family("images", "gauge", "Images, and runs that are to become one, by state.", states)
    sums: dict[str, int] = {name: 0 for name, _, _ in _SIZES}
    stored = content = 0
    for each in found:
        outputs = {Event(one["step"]): one["outputs"] for one in each.receipts}
        for name, step, key in _SIZES:
            sums[name] += int(outputs.get(step, {}).get(key) or 0)
        packed = _stored(outputs)
        if packed:
            stored += packed
            content += int(outputs[Event.VERIFY]["content_bytes"])
    text.family(
        "images_bytes",
        "gauge",
        "Bytes of all images: fetched over the network, of their files, of their volumes.",
        [((("what", name),), size) for name, size in sums.items()],
    )
    ratio = [((), content / stored)] if stored else []
    text.family("images_unpacked_ratio", "gauge", "Bytes of files for one byte of a stored layer or archive.", ratio)


def _stored(outputs: Mapping[Event, Mapping[str, Any]]) -> int:
    """Return how many bytes an image's source has as it is stored, 0 where that is not known."""
    if Event.VERIFY not in outputs:
        return 0
    layers = outputs[Event.VERIFY].get("layers") or ()
    if layers:
        return sum(int(each["stored_bytes"]) for each in layers)
    fetched = outputs.get(Event.DOWNLOAD, {})
    return int(fetched.get("size") or fetched.get("bytes") or 0)


def _steps(text: Exposition, tallies: Sequence[Tally]) -> None:
    times: dict[Labels, list[Tally]] = {}
    failed: dict[Labels, int] = {}
    rejected: dict[Labels, int] = {}
    retried: dict[Labels, int] = {}
    for each in tallies:
        step = (("step", each.operation),)
        if each.outcome == _DONE:
            times.setdefault(step, []).append(each)
            continue
        if each.outcome == RETRIED:
            retried[step] = retried.get(step, 0) + each.count
            continue
        kind = (*step, ("kind", each.outcome.partition("/")[0]))
        failed[kind] = failed.get(kind, 0) + each.count
        if each.outcome.startswith(REJECTED):
            reason = (("reason", each.outcome.removeprefix(REJECTED)),)
            rejected[reason] = rejected.get(reason, 0) + each.count
    text.histogram("image_step_duration_seconds", "Seconds that steps took that succeeded.", times.items())
    text.family("image_step_errors_total", "counter", "Steps that failed for good, by kind.", failed.items())
    text.family("image_retries_total", "counter", "Steps that were done again.", retried.items())
    text.family("image_rejected_total", "counter", "Archives that were not taken in, by reason.", rejected.items())
