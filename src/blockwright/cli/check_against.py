"""``blockwright check --against``: differences as text, each when it is found, or as one JSON document.

Knows: how a difference is shown. Refuses to know: what is one.
"""

from __future__ import annotations

import gc
import os
import stat
import sys
from collections.abc import Mapping
from typing import Any, Final

from blockwright.against import Comparison, compare, open_root
from blockwright.cli.options import Where
from blockwright.cli.output import print_json, print_lines, tell_remarks
from blockwright.cli.source_options import Take
from blockwright.epoch import source_date_epoch
from blockwright.tree.compare import Difference

DIFFERENT: Final = 3
_KINDS: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
}
_SHOWN: Final = 64
"""Bytes of an attribute's value that are shown."""


def check_against(where: Where, take: Take, names: tuple[str, ...], rules: dict[str, Any], *, as_json: bool) -> int:
    """Compare, print, and return the exit code: 3 where anything differs. ``rules`` are those of ``compare``."""
    gc.disable()  # two trees are many objects, and none of them in cycles
    form = where.image_format
    image, place = open_root(
        where.name,
        partition=where.partition,
        form=form.form,
        policy=form.policy,
        force_unlocked=where.force_unlocked,
    )
    with image, take.open(names) as source:
        reopen = (lambda: take.open(names)) if take.repeatable(names) else None
        comparison = compare(image, place, source, time_s=source_date_epoch(), reopen=reopen, **rules)
        shown: list[dict[str, object]] = []
        count = 0
        for each in comparison.differences:
            count += 1
            if as_json:
                shown += _documents(each)
            else:
                print_lines([f"{place}: {line}" for line in _lines(each)])
        tell_remarks(source.name, comparison.remarks)
    if as_json:
        _print_document(comparison, names, shown)
    else:
        print_lines(_summary(comparison, names, count))
    return DIFFERENT if count else 0


def _summary(comparison: Comparison, names: tuple[str, ...], count: int) -> list[str]:
    place, source = comparison.place, " ".join(names)
    lines = []
    if comparison.added:
        lines.append(f"{place}: not in {source}, and the writer's own: {', '.join(map(_path, comparison.added))}")
    if count:
        sys.stdout.flush()
        lines.append(f"{place}: {comparison.kind}: {count} difference{'s' * (count > 1)} from {source}")
    else:
        lines.append(f"{place}: {comparison.kind}: the same as {source}, {comparison.nodes} names")
    return lines


def _print_document(comparison: Comparison, names: tuple[str, ...], shown: list[dict[str, object]]) -> None:
    print_json(
        "blockwright.check.against/1",
        {
            "same": not shown,
            "place": comparison.place,
            "kind": comparison.kind,
            "source": list(names),
            "names": comparison.nodes,
            "added": [_path(each) for each in comparison.added],
            "differences": shown,
        },
    )


def _path(path: bytes) -> str:
    return "/" + os.fsdecode(path)


def _lines(each: Difference) -> list[str]:
    path = _path(each.path)
    if each.aspect == "missing":
        kind = _KINDS[getattr(each.left or each.right, "kind", stat.S_IFREG)]
        return [f"{path}: {kind} is only in the {'source' if each.right is None else 'image'}"]
    lines = []
    for document in _documents(each):
        expected, found = document["expected"], document["found"]
        aspect = " ".join(str(document[name]) for name in ("aspect", "name") if name in document)
        at = f": byte {document['offset']}" if document.get("offset") is not None else ""
        if expected is None and found is None:
            lines.append(f"{path}: {aspect}: differs, in a source that cannot be read twice")
        else:
            lines.append(f"{path}: {aspect}{at}: expected {_value(expected)}, found {_value(found)}")
    return lines


def _value(value: object) -> str:
    return "none" if value is None else str(value)


def _documents(each: Difference) -> list[dict[str, object]]:
    """Return a difference for JSON: one entry, or for attributes one for each name."""
    aspect, left, right = each.aspect, each.left, each.right
    base: dict[str, object] = {"path": _path(each.path), "aspect": aspect}
    if aspect == "missing":
        return [{**base, "expected": left is not None, "found": right is not None}]
    if aspect == "xattrs" and isinstance(left, Mapping) and isinstance(right, Mapping):
        names = sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))
        return [
            {**base, "name": os.fsdecode(name), "expected": _hex(left.get(name)), "found": _hex(right.get(name))}
            for name in names
        ]
    if aspect == "content":
        return [_content(base, left, right)]
    if aspect == "kind":
        return [{**base, "expected": _kind(left), "found": _kind(right)}]
    return [{**base, "expected": _plain(left), "found": _plain(right)}]


def _content(base: dict[str, object], left: Any, right: Any) -> dict[str, object]:
    if left is None:
        return {**base, "offset": None, "expected": None, "found": None}
    return {**base, "offset": left[0], "expected": left[1].hex(), "found": right[1].hex()}


def _kind(value: object) -> str:
    return _KINDS.get(value, "unknown") if isinstance(value, int) else "unknown"


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return os.fsdecode(value)
    return f"{value[0]}:{value[1]}" if isinstance(value, tuple) else value


def _hex(value: bytes | None) -> str | None:
    if value is None:
        return None
    return value[:_SHOWN].hex() + ("…" if len(value) > _SHOWN else "")
